"""Explain: why a customer has the points they have, and when they expire."""

from datetime import datetime

from rewardpoints.domain.accounts import Account, tenant_of
from rewardpoints.domain.errors import NoAccount
from rewardpoints.domain.explanation import explain
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.lots import active_points
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.reasons import ExplainedAccount
from rewardpoints.ledger.ledger import Ledger


async def explain_account(
    ledger: Ledger, clock: Clock, account: Account, at: datetime | None = None
) -> ExplainedAccount:
    """The account at an instant, now where none is given, from one snapshot of all its entries.

    Raises:
        NoAccount: the customer has none; the message says so if it was erased.
        LedgerUnavailable
    """
    history = await ledger.accounts.history(account)
    if history is None:
        tombstone = await ledger.tombstones.find(account)
        erased = f"; it was erased at {format_instant(tombstone.erased_at)}" if tombstone else ""
        raise NoAccount(f"the customer has no account{erased}")
    instant = at or clock()
    tenant = tenant_of(account)
    sites = {(tenant, lot.site_code) for lot in history.lots if lot.earned}
    histories = await ledger.site_settings.histories(sites)
    return ExplainedAccount(
        explanation=explain(history, instant),
        settings={
            (site[1], version.version): version for site, found in histories.items() for version in found.versions
        },
        stored_balance=active_points(history.lots, instant) if at is None else None,
    )
