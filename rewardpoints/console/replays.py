"""Replays of the tenant's orders: dry runs, starts, progress, and stopping and resuming them."""

from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from rewardpoints.console.forms import Form, with_zone
from rewardpoints.console.gate import MANAGE, VIEW
from rewardpoints.console.numbers import number_of
from rewardpoints.console.pages import Pages, Visit
from rewardpoints.console.ports import ReplayDesk
from rewardpoints.domain.accounts import check_id
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.replays import ReplayRequest, parse_bound

LIST: Final = "/console/replays"
SHOWN: Final = 50
LIVE_SECONDS: Final = 2
MAX_RATE: Final = 1_000_000
FIELDS: Final = ("topic", "from", "to", "partition", "customer", "rate")


class Replays:
    """A replay reads a part of a topic once more and adds the lots that are missing, of the visitor's tenant."""

    def __init__(self, desk: ReplayDesk, *, order_topic: str) -> None:
        self._desk = desk
        self._order_topic = order_topic

    def add_to(self, pages: Pages) -> None:
        """Add the pages."""
        pages.add(LIST, self.show, scope=VIEW)
        pages.add(f"{LIST}/replay", self.replay, scope=VIEW)
        pages.add(f"{LIST}/start", self.start, scope=MANAGE, method="POST")
        pages.add(f"{LIST}/stop", self.stop, scope=MANAGE, method="POST")
        pages.add(f"{LIST}/resume", self.resume, scope=MANAGE, method="POST")

    async def show(self, visit: Visit) -> Response:
        """The replays that moved last, and a form to start one."""
        return await self._list(visit)

    async def replay(self, visit: Visit) -> Response:
        """One replay, refreshed while it runs."""
        replay_id = check_id("id", visit.query.text("id"))
        if visit.waits:
            load = f"{LIST}/replay?{urlencode({'id': replay_id})}"
            what = "Looking for the replay"
            return visit.show("replay_loading.html", title="Replay", load=load, what=what, live=LIVE_SECONDS)
        return visit.show("replay.html", view=await self._desk.find(visit.tenant, replay_id))

    async def start(self, visit: Visit) -> Response:
        """Start what the form asks for; as a dry run where that button was used."""
        try:
            request = self._request(visit)
            replay_id = await self._desk.start(request, dry_run=visit.form.chosen("dry_run"))
        except InvalidInput as error:
            return await self._list(visit, problem=str(error), status=400)
        return visit.go_to(f"{LIST}/replay?{urlencode({'id': replay_id})}")

    async def stop(self, visit: Visit) -> Response:
        """Have a replay stop after its next batch."""
        replay_id = check_id("id", visit.form.text("id"))
        await self._desk.stop(visit.tenant, replay_id)
        return visit.go_to(f"{LIST}/replay?{urlencode({'id': replay_id})}")

    async def resume(self, visit: Visit) -> Response:
        """Go on with a replay."""
        replay_id = check_id("id", visit.form.text("id"))
        await self._desk.resume(visit.tenant, replay_id)
        return visit.go_to(f"{LIST}/replay?{urlencode({'id': replay_id})}")

    async def _list(self, visit: Visit, *, problem: str | None = None, status: int = 200) -> Response:
        form = visit.form
        fields: dict[str, Any] = {name: form.text(name) for name in FIELDS}
        fields["from"] = fields["from"] or "beginning"
        fields["to"] = fields["to"] or "end"
        fields["topic"] = fields["topic"] or self._order_topic
        found = await self._desk.recent(visit.tenant, limit=SHOWN)
        return visit.show("replays.html", status=status, views=found, fields=fields, problem=problem)

    def _request(self, visit: Visit) -> ReplayRequest:
        form = visit.form
        return ReplayRequest(
            topic=check_id("topic", form.text("topic") or self._order_topic),
            begin=parse_bound("from", with_zone(form.text("from"))),
            end=parse_bound("to", with_zone(form.text("to") or "end")),
            partition=_partition(form),
            tenant=visit.tenant,
            customer_id=check_id("customer", form.text("customer")) if form.text("customer") else None,
            rate=_rate(form),
        )


def _partition(form: Form) -> int | None:
    if not form.text("partition"):
        return None
    partition = form.whole("partition")
    if not 0 <= partition < 2**31:
        raise InvalidInput("partition", "must be a partition's number")
    return partition


def _rate(form: Form) -> float | None:
    if not form.text("rate"):
        return None
    rate = float(number_of(form, "rate"))
    if not 0.1 <= rate <= MAX_RATE:  # noqa: PLR2004 - as the command has it
        raise InvalidInput("rate", f"must lie between 0.1 and {MAX_RATE}")
    return rate
