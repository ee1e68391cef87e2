"""The pages of replays."""

from datetime import UTC, datetime
from typing import Any

import pytest

from rewardpoints.console.ports import ServiceUnavailable
from rewardpoints.domain.differences import Difference, facts_of
from rewardpoints.domain.errors import InvalidInput, LedgerUnavailable
from rewardpoints.domain.replays import ReplayRequest, ReplayScope, ReplayState
from tests.console.fakes import TENANT, a_replay
from tests.console.harness import HOSTILE, Desk, elements_of, fields_of, scripts_of, text_of
from tests.domain.builders import a_lot

VIEW = "rewardspoints.rewardpoints_view"
START = "/console/replays/start"


def put(desk: Desk, *args: Any, **changes: Any) -> None:
    view = a_replay(*args, **changes)
    desk.replays.views[view.replay.id] = view


async def test_replays_are_listed(desk: Desk) -> None:
    put(desk)
    put(desk, "dry1", dry_run=True, state=ReplayState.FINISHED)
    put(desk, "theirs", tenant="other")
    page = (await (await desk.signed_in()).get("/replays")).text
    said = text_of(page)
    assert "r1 running" in said
    assert "dry1 dry run finished" in said
    assert "1,500 3 1,490 2 4 3" in said
    assert "theirs" not in said
    bars = [(one["max"], one["value"]) for one in elements_of(page, "progress")]
    assert bars == [("2000", "1500")] * 2


async def test_no_replays_are_said(desk: Desk) -> None:
    assert "No replays of this tenant yet." in (await (await desk.signed_in()).get("/replays")).text


async def test_who_may_only_read_is_offered_nothing_else(desk: Desk) -> None:
    put(desk)
    viewer = await desk.signed_in(VIEW)
    assert START not in (await viewer.get("/replays")).text
    assert 'method="post" action="/console/replays' not in (await viewer.part("/replays/replay", id="r1")).text


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_replay_of_the_tenants_orders_is_started(desk: Desk, *, dry_run: bool) -> None:
    browser = await desk.signed_in()
    fields = fields_of((await browser.get("/replays")).text, START)
    fields |= {"from": "2026-11-01", "to": "2026-11-21T12:30", "customer": "C1", "rate": "500", "tenant": "other"}
    answer = await browser.post("/replays/start", {**fields, **({"dry_run": "1"} if dry_run else {})})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/replays/replay?id=r-new"
    assert desk.replays.asked == [
        (
            "dry run" if dry_run else "start",
            ReplayRequest(
                topic="order-completed",
                begin=datetime(2026, 11, 1, tzinfo=UTC),
                end=datetime(2026, 11, 21, 12, 30, tzinfo=UTC),
                tenant=TENANT,
                customer_id="C1",
                rate=500.0,
            ),
        )
    ]


async def test_offsets_of_a_partition_are_replayed(desk: Desk) -> None:
    browser = await desk.signed_in()
    await browser.post("/replays/start", {"from": "10", "to": "20", "partition": "3"})
    ((_, request),) = desk.replays.asked
    assert (request.begin, request.end, request.partition, request.tenant) == (10, 20, 3, TENANT)


@pytest.mark.parametrize(
    "fields",
    [{}, {"from": "yesterday"}, {"from": "1", "to": "2026-99-01"}, {"from": "beginning", "rate": "0"},
     {"from": "beginning", "partition": "-1"}, {"from": "beginning", "partition": "x"},
     {"from": "beginning", "customer": "a\x01"}, {"from": "beginning", "topic": "x" * 300}],
)  # fmt: skip
async def test_a_request_that_makes_no_sense_is_said_and_nothing_runs(desk: Desk, fields: dict[str, str]) -> None:
    answer = await (await desk.signed_in()).post("/replays/start", fields)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert desk.replays.asked == []


async def test_what_the_replay_itself_refuses_is_said_beside_the_form(desk: Desk) -> None:
    browser = await desk.signed_in()
    desk.faults.plant("replays.start", InvalidInput("to", "must lie after from"))
    answer = await browser.post("/replays/start", {"from": "beginning", "customer": "C7"})
    assert answer.status_code == 400
    assert "must lie after from" in answer.text
    assert fields_of(answer.text, START)["customer"] == "C7"


async def test_too_many_at_once_are_refused(desk: Desk) -> None:
    browser = await desk.signed_in()
    desk.faults.plant("replays.start", ServiceUnavailable("2 replays are running in this process"))
    answer = await browser.post("/replays/start", {"from": "beginning"})
    assert answer.status_code == 503
    assert "2 replays are running" in answer.text


async def test_the_progress_of_a_running_replay_is_refreshed(desk: Desk) -> None:
    put(desk)
    browser = await desk.signed_in()
    page = (await browser.get("/replays/replay?id=r1")).text
    (part,) = [one for one in elements_of(page, "div") if "data-load" in one]
    assert part["data-live"] == "2"
    made = await browser.client.get(str(part["data-load"]))
    said = text_of(made.text)
    for words in (
        "1,500 of 2,000 offsets of order-completed",
        "500.0 records a second",
        "Skipped: zero points 4",
        "Lots added 3",
    ):
        assert words in said
    assert "data-ended" not in made.text
    assert "Cancel" in said


async def test_an_ended_replay_is_refreshed_no_more(desk: Desk) -> None:
    put(desk, state=ReplayState.FAILED, problem="MongoDB stayed away")
    page = (await (await desk.signed_in()).part("/replays/replay", id="r1")).text
    assert "data-ended" in page
    assert "MongoDB stayed away" in page
    assert "Resume" in text_of(page)
    assert "Cancel" not in text_of(page)


async def test_a_dry_run_says_what_would_be(desk: Desk) -> None:
    put(desk, "d1", dry_run=True, state=ReplayState.STOPPED)
    said = text_of((await (await desk.signed_in()).part("/replays/replay", id="d1")).text)
    assert "Lots that would be added 3" in said
    assert "Nothing is written" in said
    assert "Resume" not in said


async def test_differences_are_shown_with_both_sides(desk: Desk) -> None:
    stored, derived = facts_of(a_lot("1", 40)), facts_of(a_lot("1", 42))
    found = Difference(
        lot="f" * 64, stored=stored, derived=derived, reasons=("the factor changed",), account="shop/C1", order_id="O-1"
    )
    put(desk, differences=(found,))
    said = text_of((await (await desk.signed_in()).part("/replays/replay", id="r1")).text)
    assert "shop/C1 order O-1" in said
    assert "40 points" in said
    assert "42 points" in said
    assert "the factor changed" in said


async def test_a_replay_is_cancelled_and_resumed(desk: Desk) -> None:
    put(desk)
    browser = await desk.signed_in()
    for action in ("stop", "resume"):
        answer = await browser.post(f"/replays/{action}", {"id": "r1"})
        assert answer.status_code == 303
        assert answer.headers["location"] == "/console/replays/replay?id=r1"
    assert desk.replays.asked == [("stop", "r1"), ("resume", "r1")]
    put(desk, state=ReplayState.FINISHED)
    assert (await browser.post("/replays/resume", {"id": "r1"})).status_code == 409


async def test_another_tenants_replay_is_not_there(desk: Desk) -> None:
    put(desk, "theirs", tenant="other")
    browser = await desk.signed_in()
    assert (await browser.part("/replays/replay", id="theirs")).status_code == 404
    for action in ("stop", "resume"):
        assert (await browser.post(f"/replays/{action}", {"id": "theirs"})).status_code == 404
    assert desk.replays.asked == []


async def test_refused_forms_do_nothing(desk: Desk) -> None:
    put(desk)
    browser, viewer = await desk.signed_in(), await desk.signed_in(VIEW)
    for action in ("start", "stop", "resume"):
        fields = {"id": "r1", "from": "beginning"}
        assert (await desk.browser().client.post(f"/console/replays/{action}", data=fields)).status_code == 401
        assert (await browser.post(f"/replays/{action}", fields, token="x")).status_code == 403
        assert (await viewer.post(f"/replays/{action}", fields)).status_code == 403
    assert desk.replays.asked == []


async def test_hostile_replays_are_text(desk: Desk) -> None:
    facts = facts_of(a_lot("1", 1))
    found = Difference(lot="f" * 64, stored=facts, derived=facts, reasons=(HOSTILE,), account=HOSTILE, order_id=HOSTILE)
    put(desk, HOSTILE, differences=(found,), scope=ReplayScope(topic=HOSTILE, tenant=TENANT), problem=HOSTILE)
    browser = await desk.signed_in()
    for answer in (
        await browser.get("/replays"),
        await browser.get("/replays/replay", params={"id": HOSTILE}),
        await browser.part("/replays/replay", id=HOSTILE),
        await browser.post("/replays/start", {"from": HOSTILE, "topic": HOSTILE, "customer": HOSTILE}),
    ):
        assert not scripts_of(answer.text)
        assert "<script>alert" not in answer.text


async def test_a_ledger_that_is_down_is_said(desk: Desk) -> None:
    browser = await desk.signed_in()
    desk.faults.plant("replays.recent", LedgerUnavailable("no primary"))
    desk.faults.plant("replays.find", LedgerUnavailable("no primary"))
    for answer in (await browser.get("/replays"), await browser.part("/replays/replay", id="r1")):
        assert answer.status_code == 503
        assert "MongoDB does not answer" in answer.text
