"""The pages of dead letters."""

import pytest

from rewardpoints.console.ports import ServiceUnavailable
from rewardpoints.domain.dead_letters import LetterAction, LetterId, LetterState
from tests.console.fakes import TENANT, a_letter
from tests.console.harness import HOSTILE, Desk, elements_of, fields_of, scripts_of, text_of

VIEW = "rewardspoints.rewardpoints_view"
ACT = "/console/dead-letters/act"


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    discarded = LetterAction(
        id=LetterId(0, 9), timestamp=0, state=LetterState.DISCARDED, at=made.clock(), note="a test order"
    )
    made.letters.letters[TENANT] = [
        a_letter(1),
        a_letter(2, reason="future_time", source="chargebacks/0/2"),
        a_letter(3),
        a_letter(9, state=LetterState.DISCARDED, action=discarded),
    ]
    made.letters.letters["other"] = [a_letter(7, value="theirs")]
    return made


async def test_the_list_is_made_while_the_page_waits(desk: Desk) -> None:
    browser = await desk.signed_in()
    page = (await browser.get("/dead-letters", params={"reason": "future_time", "from": "2026-11-20T12:00"})).text
    (part,) = [one for one in elements_of(page, "div") if "data-load" in one]
    made = await browser.client.get(str(part["data-load"]))
    assert made.status_code == 200
    assert "1 match: 1 future time" in text_of(made.text)
    assert not scripts_of(page)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({}, {"0-1", "0-2", "0-3"}),
        ({"reason": "invalid_amount"}, {"0-1", "0-3"}),
        ({"topic": "chargebacks"}, {"0-2"}),
        ({"state": "discarded"}, {"0-9"}),
        ({"state": "any"}, {"0-1", "0-2", "0-3", "0-9"}),
        ({"from": "2026-11-20T12:02"}, {"0-2", "0-3"}),
        ({"from": "2026-11-20T12:01", "to": "2026-11-20T12:02:00+00:00"}, {"0-1"}),
        ({"to": "2026-11-20"}, set()),
    ],
)
async def test_letters_are_filtered(desk: Desk, query: dict[str, str], ids: set[str]) -> None:
    page = (await (await desk.signed_in()).part("/dead-letters", **query)).text
    assert {one["value"] for one in elements_of(page, "input") if one.get("name") == "id"} == ids
    assert ("No dead letters match." in page) == (not ids)


@pytest.mark.parametrize(
    "query", [{"reason": "because"}, {"state": "lost"}, {"from": "yesterday"}, {"topic": "x" * 3000}, {"to": HOSTILE}]
)
async def test_a_wrong_filter_is_said(desk: Desk, query: dict[str, str]) -> None:
    answer = await (await desk.signed_in()).get("/dead-letters", params=query)
    assert answer.status_code == 400
    assert not scripts_of(answer.text)


async def test_many_letters_are_shown_in_part(desk: Desk) -> None:
    desk.letters.letters[TENANT] = [a_letter(number) for number in range(5000)]
    page = (await (await desk.signed_in()).part("/dead-letters")).text
    assert "5,000 match: 5,000 invalid amount. The newest 50 are shown." in text_of(page)


async def test_a_letter_is_read(desk: Desk) -> None:
    browser = await desk.signed_in()
    said = text_of((await browser.get("/dead-letters/letter?id=0-1")).text)
    for words in ("Dead letter 0-1", "the amount is no number", "order-completed/1/1", '{"id": "O-1"}', "tenant shop"):
        assert words in said
    done = (await browser.get("/dead-letters/letter?id=0-9")).text
    assert "a test order" in done
    assert ACT not in done


@pytest.mark.parametrize(("letter", "status"), [("0-7", 404), ("0-100", 404), ("x", 400), ("", 400), (HOSTILE, 400)])
async def test_what_is_no_letter_of_the_tenant_is_not_there(desk: Desk, letter: str, status: int) -> None:
    browser = await desk.signed_in()
    answer = await browser.get("/dead-letters/letter", params={"id": letter})
    assert answer.status_code == status
    assert not scripts_of(answer.text)
    for action in ("retry", "discard"):
        assert (await browser.post("/dead-letters/act", {"action": action, "id": letter})).status_code == status
    assert desk.letters.acts == []


async def test_chosen_letters_are_retried_and_discarded(desk: Desk) -> None:
    browser = await desk.signed_in()
    answer = await browser.post("/dead-letters/act", {"action": "retry", "id": ["0-1", "0-3"]})
    assert answer.status_code == 200
    assert "Retried".lower() in text_of(answer.text).lower()
    answer = await browser.post("/dead-letters/act", {"action": "discard", "id": "0-2", "note": "a test"})
    assert answer.status_code == 200
    assert desk.letters.acts == [("retry", ["0-1", "0-3"], False, None), ("discard", ["0-2"], False, "a test")]


async def test_all_that_match_are_counted_first_and_then_done(desk: Desk) -> None:
    browser = await desk.signed_in()
    fields = {"action": "retry", "all": "1", "reason": "invalid_amount"}
    answer = await browser.post("/dead-letters/act", fields)
    assert "Retry 2 dead letters?" in text_of(answer.text)
    assert desk.letters.acts == [("retry", ["0-1", "0-3"], True, None)]
    again = fields_of(answer.text, ACT)
    assert again["reason"] == "invalid_amount"
    await browser.post("/dead-letters/act", {**again, "action": "retry"})
    assert desk.letters.acts[1:] == [("retry", ["0-1", "0-3"], False, None)]


async def test_time_that_ran_out_is_said(desk: Desk) -> None:
    desk.letters.complete = False
    answer = await (await desk.signed_in()).post("/dead-letters/act", {"action": "retry", "id": "0-1"})
    assert "Time ran out" in answer.text


@pytest.mark.parametrize(
    "fields",
    [{}, {"action": "eat", "id": "0-1"}, {"action": "retry"}, {"action": "retry", "id": "0-1", "all": "1"},
     {"action": "discard", "id": "0-1", "note": "x" * 3000}, {"action": "retry", "id": ["0-1"] * 201}],
)  # fmt: skip
async def test_a_form_that_makes_no_sense_does_nothing(desk: Desk, fields: dict[str, str]) -> None:
    answer = await (await desk.signed_in()).post("/dead-letters/act", fields)
    assert answer.status_code == 400
    assert desk.letters.acts == []


async def test_refused_forms_do_nothing(desk: Desk) -> None:
    browser, viewer = await desk.signed_in(), await desk.signed_in(VIEW)
    fields = {"action": "retry", "id": "0-1"}
    assert (await desk.browser().client.post(ACT, data=fields)).status_code == 401
    assert (await browser.post("/dead-letters/act", fields, token="")).status_code == 403
    assert (await viewer.post("/dead-letters/act", fields)).status_code == 403
    theirs = await desk.signed_in(tenant="other")
    assert (await theirs.post("/dead-letters/act", fields)).status_code == 404
    assert desk.letters.acts == []


async def test_who_may_only_read_is_offered_nothing_else(desk: Desk) -> None:
    viewer = await desk.signed_in(VIEW)
    assert "<button name" not in (await viewer.part("/dead-letters")).text
    assert ACT not in (await viewer.get("/dead-letters/letter?id=0-1")).text


async def test_hostile_letters_are_text(desk: Desk) -> None:
    letter = a_letter(
        1, reason=HOSTILE, error=HOSTILE, source=HOSTILE, key=HOSTILE, headers={HOSTILE: HOSTILE}, value=HOSTILE
    )
    desk.letters.letters[TENANT] = [letter]
    browser = await desk.signed_in()
    for answer in (
        await browser.part("/dead-letters"),
        await browser.get("/dead-letters/letter?id=0-1"),
        await browser.post("/dead-letters/act", {"action": "retry", "id": "0-1"}),
        await browser.get("/dead-letters", params={"topic": HOSTILE}),
    ):
        assert answer.status_code == 200
        assert not scripts_of(answer.text)
        assert "<script>alert" not in answer.text


async def test_kafka_that_is_down_is_said(desk: Desk) -> None:
    browser = await desk.signed_in()
    for method in ("letters.list", "letters.show", "letters.retry"):
        desk.faults.plant(method, ServiceUnavailable("Kafka: nobody answers"))
    for answer in (
        await browser.part("/dead-letters"),
        await browser.get("/dead-letters/letter?id=0-1"),
        await browser.post("/dead-letters/act", {"action": "retry", "id": "0-1"}),
    ):
        assert answer.status_code == 503
        assert "Kafka: nobody answers" in answer.text
