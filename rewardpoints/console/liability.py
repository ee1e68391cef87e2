"""Liability: what the tenant's customers may still spend, and when it expires."""

from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from rewardpoints.console.charts import expiry_chart
from rewardpoints.console.gate import VIEW
from rewardpoints.console.pages import Pages, Visit
from rewardpoints.console.ports import LiabilityReports
from rewardpoints.domain.accounts import check_id
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.liability import PeriodLength


class LiabilityPage:
    """Outstanding points by the period they expire in, and how points came and went."""

    def __init__(self, reports: LiabilityReports) -> None:
        self._reports = reports

    def add_to(self, pages: Pages) -> None:
        """Add the page."""
        pages.add("/console/liability", self.show, scope=VIEW)

    async def show(self, visit: Visit) -> Response:
        """The report; first that it is being made."""
        length, site = visit.query.text("by") or PeriodLength.MONTH.value, visit.query.text("site")
        if length not in set(PeriodLength):
            raise InvalidInput("by", f"must be one of {', '.join(PeriodLength)}")
        if site:
            check_id("site", site)
        asked: dict[str, Any] = {"by": length, "site": site, "lengths": [one.value for one in PeriodLength]}
        if visit.waits:
            load = f"/console/liability?{urlencode({'by': length, 'site': site})}"
            what = "Adding up all accounts"
            return visit.show("liability_loading.html", title="Liability", load=load, what=what, **asked)
        report = await self._reports.report(visit.tenant, site_code=site or None, by=PeriodLength(length))
        return visit.show("liability.html", report=report, chart=expiry_chart(report), **asked)
