"""What employees do with the accounts of their customers."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.api.harness import Api

BAD_REQUEST = {"type", "title", "status", "detail", "instance"}
BAD_AMOUNTS: list[Any] = [0, -1, 1.5, 1.0, True, "5", None, 1_000_000_001, 10**30, [], {}]


def customer(customer_id: str = "c1") -> str:
    return f"/reward-points/customer/{customer_id}"


async def balance(api: Api, customer_id: str = "c1") -> httpx.Response:
    return await api.call("GET", customer(customer_id))


async def added(api: Api, customer_id: str = "c1") -> list[dict[str, Any]]:
    summary = (await api.call("GET", f"{customer(customer_id)}/summary")).json()
    entries: list[dict[str, Any]] = summary["summary"]["addedPointsList"]
    return entries


async def test_balance_and_summary_of_a_customer(api: Api) -> None:
    await api.give("c1", 5)

    summary = await api.call("GET", f"{customer()}/summary")

    assert (await balance(api)).json() == 5
    assert summary.json()["customerId"] == "c1"
    assert summary.json()["activePoints"] == 5
    assert summary.json()["summary"]["redeemedPointsList"] == []


@pytest.mark.parametrize("path", ["", "/summary"])
async def test_no_account_is_not_found(api: Api, path: str) -> None:
    answer = await api.call("GET", f"{customer('nobody')}{path}")

    assert answer.status_code == 404
    assert answer.json() == {
        "type": "resource_not_found",
        "status": 404,
        "message": "No reward points found for customer nobody",
    }


@pytest.mark.parametrize(
    ("body", "points"),
    [
        ({"customerId": "c1", "startPoints": {"points": 20}}, 20),
        ({"startPoints": {"points": 0}}, 0),
        ({"points": 7}, 7),
        ({"points": 0}, 0),
        ({"customerId": "c1"}, 0),
        ({"points": 7, "unknown": {"fields": "are ignored"}}, 7),
    ],
)
async def test_opening_an_account(api: Api, body: dict[str, Any], points: int) -> None:
    answer = await api.call("POST", customer(), json=body)

    assert (answer.status_code, answer.content) == (200, b"")
    assert (await balance(api)).json() == points


async def test_an_import_keeps_its_times(api: Api) -> None:
    start = {
        "id": "12345fee",
        "reference-id": "123456",
        "description": "points added",
        "points": 20,
        "createdAt": "2019-08-24T14:15:22Z",
        "allPointsAfterCreation": 20,
        "usedPoints": 5,
        "validUntil": "2019-08-24T14:15:22Z",
        "usedWith": ["5237bcac"],
    }
    answer = await api.call("POST", customer(), json={"customerId": "c1", "startPoints": start})

    assert answer.status_code == 200
    assert (await balance(api)).json() == 0
    assert await added(api) == [
        {
            **start,
            "createdAt": "2019-08-24T14:15:22.000+00:00",
            "validUntil": "2019-08-24T14:15:22.000+00:00",
            "allPointsAfterCreation": 0,
            "usedPoints": 0,
            "usedWith": [],
        }
    ]


async def test_an_account_is_opened_once(api: Api) -> None:
    await api.give("c1", 5)

    answer = await api.call("POST", customer(), json={"points": 7})

    assert answer.status_code == 409
    assert answer.json() == {
        "status": 409,
        "type": "application/json",
        "message": "New Reward Point Entry not Created",
        "moreInfo": "",
        "details": [
            {
                "field": None,
                "type": None,
                "message": "Couldn't create a new reward point entry for the customer 'c1'",
                "moreInfo": "",
            }
        ],
    }
    assert (await balance(api)).json() == 5


@pytest.mark.parametrize(
    "body",
    [
        {"customerId": "c2", "points": 1},
        {"points": -1},
        {"points": "1"},
        {"points": True},
        {"points": 1.0},
        {"points": 1, "startPoints": {"points": 2}},
        {"startPoints": {}},
        {"startPoints": {"points": 1, "createdAt": "yesterday"}},
        {"startPoints": {"points": 1, "validUntil": "2029-08-24T14:15:22"}},
        {"startPoints": {"points": 1, "validUntil": 5}},
        {"startPoints": [1]},
        [],
        None,
    ],
)
async def test_an_opening_that_breaks_a_rule_opens_nothing(api: Api, body: object) -> None:
    answer = await api.call("POST", customer(), json=body)

    assert answer.status_code == 400
    assert set(answer.json()) == BAD_REQUEST
    assert (await balance(api)).status_code == 404


async def test_adding_opens_an_account_and_adds_to_one(api: Api) -> None:
    first = await api.call("POST", f"{customer()}/addPoints", json={"points": 3})
    second = await api.call("POST", f"{customer()}/addPoints", json={"points": 4})

    assert [(answer.status_code, answer.content) for answer in (first, second)] == [(201, b"")] * 2
    assert (await balance(api)).json() == 7


async def test_the_id_makes_adding_repeatable(api: Api) -> None:
    body = {"id": "x", "points": 3, "description": "sorry", "usedPoints": 1, "createdAt": "2019-08-24T14:15:22Z"}
    path = f"{customer()}/addPoints"

    first = await api.call("POST", path, json=body)
    again = await api.call("POST", path, json={**body, "usedPoints": 2, "createdAt": "2020-08-24T14:15:22Z"})
    different = await api.call("POST", path, json={**body, "points": 4})
    different_site = await api.call("POST", f"{path}?siteCode=other", json=body)

    assert [answer.status_code for answer in (first, again, different, different_site)] == [201, 201, 400, 400]
    (entry,) = await added(api)
    assert (entry["id"], entry["points"], entry["usedPoints"]) == ("x", 3, 0)
    assert not entry["createdAt"].startswith("2019")


async def test_the_idempotency_key_makes_adding_repeatable(api: Api) -> None:
    path, headers = f"{customer()}/addPoints", {"Idempotency-Key": "once"}
    statuses = [
        (await api.call("POST", path, json={"points": points}, headers=headers)).status_code for points in (3, 3, 4)
    ]
    assert statuses == [201, 201, 400]
    assert (await balance(api)).json() == 3


async def test_the_idempotency_key_goes_before_the_id(api: Api) -> None:
    path, headers = f"{customer()}/addPoints", {"Idempotency-Key": "once"}
    bodies = [{"id": "x", "points": 3}, {"id": "x", "points": 3}, {"id": "y", "points": 3}, {"points": 3}]
    statuses = [(await api.call("POST", path, json=body, headers=headers)).status_code for body in bodies]

    assert statuses == [201, 201, 400, 400]
    (entry,) = await added(api)
    assert (entry["id"], entry["points"]) == ("x", 3)


async def test_no_id_is_taken_for_a_key(api: Api) -> None:
    path = f"{customer()}/addPoints"
    await api.call("POST", path, json={"points": 3}, headers={"Idempotency-Key": "same"})
    (by_key,) = await added(api)

    for look_alike in ("same", "key:same", by_key["id"]):
        answer = await api.call("POST", path, json={"points": 4, "id": look_alike})
        assert answer.status_code == 201
    keyed = await api.call("POST", path, json={"points": 5}, headers={"Idempotency-Key": "id:same"})

    assert keyed.status_code == 201
    assert (await balance(api)).json() == 3 + 3 * 4 + 5


async def test_validity_is_honoured_in_the_future_only(api: Api) -> None:
    path, now = f"{customer()}/addPoints", api.server.clock()
    refused = await api.call("POST", path, json={"points": 3, "validUntil": now.isoformat()})
    accepted = await api.call("POST", path, json={"points": 3, "validUntil": (now + timedelta(hours=1)).isoformat()})
    api.server.clock.ahead = timedelta(hours=2)

    assert (refused.status_code, refused.json()["detail"]) == (400, "validUntil: must be in the future")
    assert accepted.status_code == 201
    assert (await balance(api)).json() == 0


async def test_points_given_by_hand_are_valid_for_the_sites_months(api: Api) -> None:
    settings = {"orderValueToRewardPointsFactor": 1, "validityInMonths": 1}
    await api.call("PUT", api.settings_path, json={"rewardpoints": settings})
    await api.give("c1", 5)
    api.server.clock.ahead = timedelta(days=32)

    assert (await balance(api)).json() == 0


@pytest.mark.parametrize("points", BAD_AMOUNTS)
@pytest.mark.parametrize("operation", ["addPoints", "redeemPoints"])
async def test_amounts_are_positive_integers(api: Api, operation: str, points: object) -> None:
    await api.give("c1", 5)

    answer = await api.call("POST", f"{customer()}/{operation}", json={"points": points})

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(("points: ", "The body "))
    assert answer.json()["instance"] == f"{customer()}/{operation}"
    assert (await balance(api)).json() == 5


@pytest.mark.parametrize(
    "content",
    [
        {"description": "x" * 2001},
        {"description": "a\x00b"},
        {"description": 5},
        {"id": ""},
        {"id": "x" * 257},
        {"id": 12},
        {"reference-id": "x" * 257},
        {"validUntil": "0001-01-01T00:00:00Z"},
        {"validUntil": "9999-12-31T23:59:59Z"},
        {"validUntil": ""},
    ],
)
async def test_texts_and_times_are_bounded(api: Api, content: dict[str, Any]) -> None:
    answer = await api.call("POST", f"{customer()}/addPoints", json={"points": 1, **content})

    assert answer.status_code == 400
    assert (await balance(api)).status_code == 404


async def test_redeeming_without_a_coupon(api: Api) -> None:
    await api.give("c1", 60)

    answer = await api.call("POST", f"{customer()}/redeemPoints", json={"description": "gift", "points": 50})

    assert (answer.status_code, answer.content) == (201, b"")
    assert (await balance(api)).json() == 10
    summary = (await api.call("GET", f"{customer()}/summary")).json()
    (redeemed,) = summary["summary"]["redeemedPointsList"]
    assert (redeemed["points"], redeemed["description"]) == (50, "gift")
    assert not api.server.coupon_requests.of(api.account("c1"))


@pytest.mark.parametrize("by", ["id", "key"])
async def test_redeeming_is_repeatable(api: Api, by: str) -> None:
    await api.give("c1", 60)
    body: dict[str, Any] = {"points": 10, **({"id": "r1"} if by == "id" else {})}
    headers = {"Idempotency-Key": "r1"} if by == "key" else {}
    statuses = [
        (
            await api.call("POST", f"{customer()}/redeemPoints", json={**body, "points": points}, headers=headers)
        ).status_code
        for points in (10, 10, 11)
    ]
    assert statuses == [201, 201, 400]
    assert (await balance(api)).json() == 50


async def test_an_id_and_a_key_of_the_same_text_are_two(api: Api) -> None:
    await api.give("c1", 60)
    path = f"{customer()}/redeemPoints"
    await api.call("POST", path, json={"points": 10, "id": "same"})
    await api.call("POST", path, json={"points": 10}, headers={"Idempotency-Key": "same"})
    assert (await balance(api)).json() == 40


async def test_over_redeeming_and_redeeming_nothing(api: Api) -> None:
    nobody = await api.call("POST", f"{customer()}/redeemPoints", json={"points": 1})
    await api.give("c1", 5)
    too_many = await api.call("POST", f"{customer()}/redeemPoints", json={"points": 6})

    assert (nobody.status_code, nobody.json()["message"]) == (404, "No reward points found for customer c1")
    assert (too_many.status_code, too_many.json()["detail"]) == (400, "Too few points: 6 points wanted, 5 available")


async def test_erasing_is_idempotent_and_complete(api: Api) -> None:
    await api.give("c1", 5)
    await api.give("c2", 6)

    answers = [await api.call("DELETE", customer()) for _ in range(2)]

    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"")] * 2
    assert (await balance(api)).status_code == 404
    assert (await balance(api, "c2")).json() == 6


async def test_an_erasure_that_takes_too_long_is_asked_for_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardpoints.api.deadline.ANSWER_SECONDS", 0.2)

    async def hangs(*_arguments: Any) -> Any:
        await asyncio.Event().wait()

    api.server.faults.plant("accounts.erase", hangs)
    answer = await api.call("DELETE", customer())
    api.server.faults.clear()

    assert (answer.status_code, answer.json()["type"]) == (503, "service_unavailable")
    assert (await api.call("DELETE", customer())).status_code == 200
