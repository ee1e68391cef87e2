"""Adjust: add an explained entry that gives a customer points or takes them."""

from dataclasses import dataclass

from rewardpoints.domain.accounts import tenant_of
from rewardpoints.domain.adjustments import Adjustment, adjusting_intent, adjusting_lot, adjustment_of
from rewardpoints.domain.errors import IdempotencyConflict, NoAccount
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.domain.site_settings import settings_at
from rewardpoints.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjusted:
    """What became of an adjustment. ``added`` is False where it was there before; balances are from before and now."""

    entry: Lot | Redemption
    added: bool
    balance_before: int
    balance: int


async def adjust(ledger: Ledger, clock: Clock, adjustment: Adjustment, *, open_account: bool = False) -> Adjusted:
    """Add the adjustment's entry; the same adjustment again adds nothing. No entry that exists is changed.

    Points are taken as any redemption takes them: from the lots that expire first, and only as far as they suffice.

    Raises:
        NoAccount: the customer has none, and ``open_account`` is not set.
        IdempotencyConflict: the key was used for another adjustment.
        TooFewPoints, TooManyLots: they cannot be taken.
        InvalidInput: ``valid_until`` is not in the future.
        LedgerUnavailable, LedgerBusy: adjust again.
    """
    account = adjustment.account
    history = await ledger.accounts.history(account)
    if history is None and not open_account:
        raise NoAccount("the customer has no account")
    before = await ledger.accounts.balance(account, clock()) or 0
    stored = adjustment_of(account, adjustment.key, history.lots, history.redemptions) if history else None
    if stored is not None:
        if stored.fingerprint != adjustment.fingerprint:
            raise IdempotencyConflict(f"key {adjustment.key!r} was used for another adjustment")
        return Adjusted(entry=stored, added=False, balance_before=before, balance=before)
    entry, added = await _add(ledger, clock, adjustment)
    balance = await ledger.accounts.balance(account, clock()) or 0
    return Adjusted(entry=entry, added=added, balance_before=before, balance=balance)


async def _add(ledger: Ledger, clock: Clock, adjustment: Adjustment) -> tuple[Lot | Redemption, bool]:
    if adjustment.points < 0:
        return await ledger.redemptions.redeem(adjusting_intent(adjustment)), True
    site = (tenant_of(adjustment.account), adjustment.site_code)
    now = clock()
    settings = settings_at((await ledger.settings_reader.histories({site: now}))[site], now)
    lot = adjusting_lot(adjustment, settings, now=now)
    return lot, await ledger.accounts.add(lot)
