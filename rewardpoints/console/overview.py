"""The overview: whether the service keeps up, for all tenants together."""

from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from rewardpoints.console.gate import VIEW
from rewardpoints.console.pages import Pages, Visit
from rewardpoints.console.ports import Watch
from rewardpoints.domain.lag import Lag

LIVE_SECONDS: Final = 3


@dataclass(frozen=True, slots=True)
class Totals:
    """The lag of all subscriptions together."""

    records: int
    seconds: float | None
    written_per_second: float
    read_per_second: float


class Overview:
    """Rates, lag, backlog and the states of redemptions, refreshed while the page is open."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def add_to(self, pages: Pages) -> None:
        """Add the page."""
        pages.add("/console/overview", self.show, scope=VIEW)

    async def show(self, visit: Visit) -> Response:
        """The state as it is."""
        if visit.waits:
            return visit.show("loading.html", title="Overview", live=LIVE_SECONDS, what="Looking at Kafka and MongoDB")
        state = await self._watch.state()
        return visit.show("overview.html", state=state, totals=totals(state.lag))


def totals(lag: Lag) -> Totals:
    """The lag of all subscriptions together."""
    partitions = [partition for subscription in lag.subscriptions for partition in subscription.partitions]
    ages = [subscription.seconds for subscription in lag.subscriptions]
    known = [one for one in ages if one is not None]
    return Totals(
        records=sum(partition.records for partition in partitions),
        seconds=max(known, default=0.0) if len(known) == len(ages) else None,
        written_per_second=sum(partition.written_per_second or 0 for partition in partitions),
        read_per_second=sum(partition.read_per_second or 0 for partition in partitions),
    )
