"""Liability added up over a ledger agrees with what each account's balance says, now and in the past."""

import random
from datetime import datetime, timedelta

import pytest

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.errors import TooFewPoints, UnreadableEntry
from rewardpoints.domain.history import balance_at
from rewardpoints.domain.liability import Liability
from rewardpoints.domain.lots import LotKind
from rewardpoints.ledger.account_pages import AccountPages
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.liability import add_up
from tests.altered import altered
from tests.contracts.ledgers import an_intent, histories, lot_back, now, order_lot

ACCOUNTS = [account_of(tenant, f"c{number}") for tenant in ("rival", "shop") for number in range(6)]


async def some_history(ledger: Ledger, seed: int) -> None:
    chance = random.Random(seed)
    for account in ACCOUNTS:
        lots = []
        for number in range(chance.randrange(1, 5)):
            at = now() - timedelta(days=chance.randrange(1, 400))
            valid_until = at + timedelta(days=chance.choice([30, 200, 900]))
            site = chance.choice(["main", "other"])
            lots.append(
                order_lot(f"o{number}", chance.randrange(1, 90), account=account, created_at=at, site_code=site)
            )
            lots[-1] = altered(lots[-1], valid_until=valid_until)
        await ledger.lots.add_batch(lots)
        for _ in range(2):
            try:
                redemption = await ledger.redemptions.redeem(
                    an_intent(chance.randrange(1, 50), account=account, coupon=True)
                )
            except TooFewPoints:
                continue
            if chance.random() < 0.5:
                await ledger.redemptions.charge_back(redemption, lot_back(redemption), reason="")


async def report(ledger: Ledger, at: datetime, *, tenant: str | None = None, site: str | None = None) -> Liability:
    liability = Liability(at, site_code=site)
    pages = AccountPages(ledger.database, keys_per_read=3, entries_per_snapshot=4)
    await add_up(ledger.database, liability, tenant=tenant, pages=pages)
    return liability


async def test_it_agrees_with_every_account_at_every_instant(ledger: Ledger) -> None:
    await some_history(ledger, 7)
    present = now()
    all_now = await report(ledger, present)
    balances = {account: await ledger.accounts.balance(account, present) or 0 for account in ACCOUNTS}
    assert all_now.outstanding == sum(balances.values()) > 0
    assert all_now.accounts == sum(balance > 0 for balance in balances.values())
    shop = await report(ledger, present, tenant="shop")
    assert shop.outstanding == sum(balance for account, balance in balances.items() if account.startswith("shop/"))
    parts = [
        await report(ledger, present, tenant=tenant, site=site)
        for tenant in ("shop", "rival")
        for site in ("main", "other")
    ]
    assert sum(part.outstanding for part in parts) == all_now.outstanding

    accounts = [one for tenant in ("rival", "shop") async for one in histories(ledger, tenant)]
    for days in (1, 20, 150, 390):
        at = present - timedelta(days=days)
        expected = sum(balance_at(history.lots, history.redemptions, at) for history in accounts)
        past = await report(ledger, at)
        assert past.outstanding == expected == sum(one.net for one in past.flows.values())
    earned = sum(lot.points for history in accounts for lot in history.lots if lot.kind is LotKind.ORDER)
    assert sum(one.earned for one in all_now.flows.values()) == earned


async def test_nothing_and_what_cannot_be_read(ledger: Ledger) -> None:
    empty = await report(ledger, now())
    assert (empty.outstanding, empty.rows(), empty.breakage) == (0, [], None)
    await ledger.lots.add_batch([order_lot("o1")])
    await ledger.database.lots.update_one({"sourceId": "o1"}, {"$unset": {"kind": ""}})
    with pytest.raises(UnreadableEntry, match=r"shop/c1: an entry cannot be read.*verify"):
        await report(ledger, now())
