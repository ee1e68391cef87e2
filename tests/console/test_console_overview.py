"""The overview."""

import asyncio

from rewardpoints.console.ports import ServiceUnavailable
from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.domain.lag import State
from tests.console.fakes import a_state
from tests.console.harness import HOSTILE, Desk, elements_of, scripts_of, text_of


async def test_it_shows_first_that_it_is_being_made_and_then_itself(desk: Desk) -> None:
    browser = await desk.signed_in()
    page = (await browser.get("/overview")).text
    (part,) = [one for one in elements_of(page, "div") if "data-load" in one]
    assert part["data-load"] == "/console/overview?part=1"
    assert part["aria-busy"] == "true"
    assert part["data-live"]
    assert not scripts_of(page)
    made = await browser.client.get(str(part["data-load"]))
    assert made.status_code == 200
    assert "<html" not in made.text


async def test_it_shows_rates_lag_backlog_and_states(desk: Desk) -> None:
    browser = await desk.signed_in()
    for answer in (await browser.part("/overview"), await browser.get("/overview?now=1")):
        said = text_of(answer.text)
        for figure in (
            "Waiting records 1,234 the oldest for 75 s",
            "Written a second 41.0",
            "Read a second 36.5",
            "Dead letters in the last hour 20 of 2,000 records, 1.00%",
            "Requests not yet published 3 the oldest for 7 min",
            "Waiting for an answer 10,000 or more the oldest for 30 h",
            "Waiting for too long 2",
            "Issued, of the last day 41",
            "Charged back, of the last day 5",
            "order-completed 0 1,234 75 s 20.5 18.2 10,000 11,234 worker-1 10.0.0.7",
            "nobody",
        ):
            assert figure in said


async def test_it_shows_names_as_text(desk: Desk) -> None:
    desk.watch.now = a_state(topic=HOSTILE)
    page = (await (await desk.signed_in()).get("/overview?now=1")).text
    assert not scripts_of(page)
    assert HOSTILE in text_of(page)


async def test_nothing_to_show_is_said(desk: Desk) -> None:
    state = a_state()
    lag = type(state.lag)(at=state.lag.at, subscriptions=(), written=0, dead_letters=0)
    desk.watch.now = State(lag, state.coupons)
    said = text_of((await (await desk.signed_in()).part("/overview")).text)
    assert "nothing waits" in said
    assert "This service reads no topic." in said


async def test_what_is_down_is_said(desk: Desk) -> None:
    browser = await desk.signed_in()
    for error, words in [
        (ServiceUnavailable("Kafka: nobody answers"), "Kafka: nobody answers"),
        (LedgerUnavailable("no primary"), "MongoDB does not answer"),
    ]:
        desk.faults.plant("watch.state", error)
        answer = await browser.part("/overview")
        assert answer.status_code == 503
        assert words in text_of(answer.text)
        assert "<html" not in answer.text


async def test_an_unforeseen_fault_is_a_page_without_details(desk: Desk) -> None:
    desk.faults.plant("watch.state", RuntimeError("secret detail"))
    answer = await (await desk.signed_in()).get("/overview?now=1")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Something went wrong" in answer.text


async def test_what_takes_too_long_is_given_up() -> None:
    desk = Desk()
    desk = Desk(settings=desk.settings.model_copy(update={"answer_seconds": 0.05}))

    async def forever() -> State:
        await asyncio.Event().wait()
        raise AssertionError

    browser = await desk.signed_in()
    desk.faults.plant("watch.state", forever)
    answer = await browser.part("/overview")
    assert answer.status_code == 503
    assert "longer than the 0.05 seconds" in text_of(answer.text)
