"""Liability: what customers may still spend, when it expires, and how it came and went."""

from rewardpoints.domain.liability import Liability
from rewardpoints.ledger.account_pages import about_entries
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.liability import add_up


class LiabilityRun:
    """One run over all accounts, or a tenant's. ``report`` is what has been added up so far."""

    def __init__(self, ledger: Ledger, report: Liability, *, tenant: str | None = None) -> None:
        self._ledger = ledger
        self._tenant = tenant
        self.report = report

    async def about(self) -> int | None:
        """About how many entries there are to add up; None where only counting them would tell.

        Raises:
            LedgerUnavailable
        """
        return await about_entries(self._ledger.database) if self._tenant is None else None

    async def complete(self) -> Liability:
        """Add up everything, once; the report is complete when this returns.

        Raises:
            UnreadableEntry: a document is not one of the service's.
            LedgerUnavailable: begin again with a new run.
        """
        await add_up(self._ledger.database, self.report, tenant=self._tenant)
        return self.report
