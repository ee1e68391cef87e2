"""Liability over the ledger: added up account by account, in bounded memory."""

from contextlib import aclosing

from rewardpoints.domain.accounts import tenant_range
from rewardpoints.domain.errors import UnreadableEntry
from rewardpoints.domain.history import History
from rewardpoints.domain.liability import Liability
from rewardpoints.ledger.account_pages import EVERY_ACCOUNT, PATIENCE_SECONDS, AccountPages, Entries
from rewardpoints.ledger.accounts import history_from
from rewardpoints.ledger.driver import Database


async def add_up(
    database: Database, liability: Liability, *, tenant: str | None = None, pages: AccountPages | None = None
) -> None:
    """Add all accounts, or a tenant's, each from one snapshot. May run beside the service.

    Exact as of the report's instant but for what reaches the ledger late: an order of before that is recorded after
    its account was read is in the next report.

    Raises:
        UnreadableEntry: a document is not one of the service's.
        LedgerUnavailable: at any step; begin again with a new report.
    """
    accounts = tenant_range(tenant) if tenant is not None else EVERY_ACCOUNT
    async with aclosing((pages or AccountPages(database, patience_seconds=PATIENCE_SECONDS)).entries(accounts)) as walk:
        async for entries in walk:
            liability.add(_readable(entries))


def _readable(entries: Entries) -> History:
    try:
        return history_from(entries)
    except (KeyError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
        problem = f"{entries.account}: an entry cannot be read: {error!r}; see `rewardpoints verify`"
        raise UnreadableEntry(problem) from error
