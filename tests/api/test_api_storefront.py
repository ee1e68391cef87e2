import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest

from rewardpoints.api.deadline import ANSWER_SECONDS
from rewardpoints.domain.errors import LedgerBusy, LedgerUnavailable
from tests.api.harness import Api

NO_ACCOUNT = "No reward points found for customer {}"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")


async def test_a_balance_is_a_bare_integer(api: Api) -> None:
    await api.give("c1", 30)
    await api.give("c1", 12)

    answer = await api.as_customer("c1", "GET", "")

    assert (answer.status_code, answer.text) == (200, "42")
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["", "/summary"])
async def test_without_an_account_there_is_nothing_to_show(api: Api, path: str) -> None:
    answer = await api.as_customer("nobody", "GET", path)

    assert answer.status_code == 404
    assert answer.json() == {
        "type": "resource_not_found",
        "status": 404,
        "message": NO_ACCOUNT.format("nobody"),
    }


async def test_a_summary_shows_every_entry_with_its_balance(api: Api) -> None:
    valid_until = (api.server.clock() + timedelta(days=30)).isoformat()
    await api.give("c1", 100, id="first", description="Welcome", validUntil=valid_until, **{"reference-id": "B-1"})
    option = await api.new_option()
    code = (await api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]})).json()["code"]
    await api.give("c1", 5, id="second")

    summary = (await api.as_customer("c1", "GET", "/summary")).json()

    first, second = summary["summary"]["addedPointsList"]
    (redeemed,) = summary["summary"]["redeemedPointsList"]
    assert code
    assert (summary["customerId"], summary["activePoints"]) == ("c1", 15)
    assert first["id"] == "first"
    assert first["reference-id"] == "B-1"
    assert (first["description"], first["points"], first["usedPoints"]) == ("Welcome", 100, 90)
    assert (first["allPointsAfterCreation"], first["usedWith"]) == (100, [redeemed["id"]])
    assert TIME.fullmatch(first["createdAt"])
    assert TIME.fullmatch(first["validUntil"])
    assert (second["reference-id"], second["usedWith"], second["allPointsAfterCreation"]) == (None, [], 15)
    assert set(redeemed) == {"id", "description", "points", "createdAt", "allPointsAfterCreation"}
    assert (redeemed["points"], redeemed["allPointsAfterCreation"]) == (90, 10)
    assert redeemed["description"] == option["description"]


async def test_expired_points_do_not_count(api: Api) -> None:
    await api.give("c1", 7, validUntil=(api.server.clock() + timedelta(days=1)).isoformat())
    await api.give("c1", 5)
    api.server.clock.ahead = timedelta(days=2)

    assert (await api.as_customer("c1", "GET", "")).text == "5"
    assert (await api.as_customer("c1", "GET", "/summary")).json()["activePoints"] == 5


async def test_options_are_served_to_customers_with_their_coupon(api: Api) -> None:
    option = await api.new_option()

    answer = await api.as_customer("c1", "GET", "/redeemOptions")

    assert answer.status_code == 200
    assert answer.json() == [option]
    assert option["coupon"]["discountType"] == "ABSOLUTE"


@pytest.mark.parametrize("name", ["id", "redeemOptionId"])
async def test_redeeming_answers_a_code_and_asks_for_the_coupon(api: Api, name: str) -> None:
    await api.give("c1", 100)
    option = await api.new_option()

    answer = await api.as_customer("c1", "POST", "/redeem", json={name: option["id"]})

    assert answer.status_code == 200
    assert re.fullmatch(r"RP-[0-9A-HJKMNP-TV-Z]{14}", answer.json()["code"])
    (request,) = api.server.coupon_requests.of(api.account("c1"))
    assert request.coupon is not None
    assert (request.coupon.code, request.points) == (answer.json()["code"], 90)
    assert request.coupon.option["id"] == option["id"]


async def test_the_codes_prefix_is_the_sites(api: Api) -> None:
    await api.call(
        "PUT", api.settings_path, json={"rewardpoints": {"orderValueToRewardPointsFactor": 1, "couponPrefix": "LLS"}}
    )
    await api.give("c1", 200)
    option = await api.new_option()

    here = await api.as_customer("c1", "POST", "/redeem?siteCode=main", json={"id": option["id"]})
    elsewhere = await api.as_customer("c1", "POST", "/redeem?siteCode=other", json={"id": option["id"]})

    assert here.json()["code"].startswith("LLS-")
    assert elsewhere.json()["code"].startswith("RP-")


async def test_two_redeems_without_a_key_are_two(api: Api) -> None:
    await api.give("c1", 200)
    option = await api.new_option()

    codes = {(await api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]})).json()["code"] for _ in "12"}

    assert len(codes) == 2
    assert (await api.as_customer("c1", "GET", "")).text == "20"


async def test_a_repeated_key_answers_the_first_code(api: Api) -> None:
    await api.give("c1", 200)
    option = await api.new_option()
    headers = {"Idempotency-Key": "once"}

    first = await api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]}, headers=headers)
    again = await api.as_customer("c1", "POST", "/redeem", json={"redeemOptionId": option["id"]}, headers=headers)
    await api.call("DELETE", f"{api.options_path}/{option['id']}")
    after_deletion = await api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]}, headers=headers)

    assert first.status_code == 200
    assert again.json() == first.json()
    assert after_deletion.json() == first.json()
    assert (await api.as_customer("c1", "GET", "")).text == "110"


@pytest.mark.parametrize("gone", [False, True])
async def test_a_key_belongs_to_one_request(api: Api, *, gone: bool) -> None:
    await api.give("c1", 200)
    first, second = await api.new_option(), await api.new_option()
    headers = {"Idempotency-Key": "once"}
    await api.as_customer("c1", "POST", "/redeem", json={"id": first["id"]}, headers=headers)
    if gone:
        await api.call("DELETE", f"{api.options_path}/{second['id']}")

    other_option = await api.as_customer("c1", "POST", "/redeem", json={"id": second["id"]}, headers=headers)
    other_site = await api.as_customer("c1", "POST", "/redeem?siteCode=x", json={"id": first["id"]}, headers=headers)

    assert other_option.status_code == 400
    assert other_site.status_code == 400
    assert (await api.as_customer("c1", "GET", "")).text == "110"


async def test_keys_of_two_customers_are_two(api: Api) -> None:
    option = await api.new_option()
    codes = set()
    for customer in ("c1", "c2"):
        await api.give(customer, 90)
        answer = await api.as_customer(
            customer, "POST", "/redeem", json={"id": option["id"]}, headers={"Idempotency-Key": "once"}
        )
        codes.add(answer.json()["code"])
    assert len(codes) == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9", "a\tb"])
async def test_a_key_is_bounded_printable_ascii(api: Api, key: str) -> None:
    await api.give("c1", 90)
    option = await api.new_option()

    answer = await api.as_customer(
        "c1", "POST", "/redeem", json={"id": option["id"]}, headers={"Idempotency-Key": key.encode("latin-1")}
    )

    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["detail"]
    assert (await api.as_customer("c1", "GET", "")).text == "90"


async def test_too_few_points(api: Api) -> None:
    await api.give("c1", 89)
    option = await api.new_option()

    answer = await api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]})

    assert answer.status_code == 400
    assert answer.json() == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "Too few points: 90 points wanted, 89 available",
        "instance": "/reward-points/public/customer/redeem",
    }
    assert not api.server.coupon_requests.of(api.account("c1"))


async def test_redeeming_needs_an_account_and_an_option(api: Api) -> None:
    option = await api.new_option()
    no_account = await api.as_customer("nobody", "POST", "/redeem", json={"id": option["id"]})
    await api.give("c1", 90)
    no_option = await api.as_customer("c1", "POST", "/redeem", json={"id": "missing"})

    assert (no_account.status_code, no_account.json()["message"]) == (404, NO_ACCOUNT.format("nobody"))
    assert (no_option.status_code, no_option.json()["type"]) == (404, "resource_not_found")


@pytest.mark.parametrize(
    "body",
    [{}, {"id": 1}, {"id": ""}, {"id": None}, {"id": "a", "redeemOptionId": "b"}, [], "x", None, 1, {"id": "\n"}],
)
async def test_a_redeem_body_names_one_option(api: Api, body: object) -> None:
    answer = await api.as_customer("c1", "POST", "/redeem", json=body)

    assert answer.status_code == 400
    assert set(answer.json()) == {"type", "title", "status", "detail", "instance"}


async def test_conflicts_until_the_time_was_over(api: Api) -> None:
    await api.give("c1", 90)
    option = await api.new_option()
    api.server.faults.plant("redemptions.redeem", LedgerBusy("conflicts", retry_after_seconds=3))

    answer = await api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]})

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    assert answer.json()["status"] == 503


async def test_the_ledger_is_told_how_much_of_the_answers_time_is_left(fake_api: Api) -> None:
    """A redemption that had to wait before it began is given up by the ledger, which knows that nothing changed."""
    option = await fake_api.new_option()
    given: list[float] = []

    async def slow(*asked: Any) -> Any:
        await asyncio.sleep(0.5)
        return await fake_api.server.ports.redeem_options.find(*asked)

    async def busy(*_: Any, within_seconds: float) -> None:
        given.append(within_seconds)
        raise LedgerBusy("others are in the way")

    fake_api.server.faults.plant("redeem_options.find", slow)
    fake_api.server.faults.plant("redemptions.redeem", busy)
    answer = await fake_api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]})

    assert answer.status_code == 503
    assert given
    assert given[0] < ANSWER_SECONDS - 0.5


async def test_an_unknown_outcome_says_how_to_find_out(api: Api) -> None:
    await api.give("c1", 90)
    option = await api.new_option()
    api.server.faults.plant("redemptions.redeem", LedgerUnavailable("gone", outcome_unknown=True))

    answer = await api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]})

    assert answer.status_code == 500
    assert "Idempotency-Key" in answer.json()["error"]
    assert set(answer.json()) == {"timestamp", "status", "error", "path"}


async def test_a_published_request_is_not_published_again(fake_api: Api) -> None:
    await fake_api.give("c1", 90)
    option = await fake_api.new_option()
    headers = {"Idempotency-Key": "once"}
    await fake_api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]}, headers=headers)
    (request,) = fake_api.server.coupon_requests.redemptions
    await fake_api.server.ports.redemptions.mark_published(request.id)

    answer = await fake_api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]}, headers=headers)

    assert answer.status_code == 200
    assert len(fake_api.server.coupon_requests.redemptions) == 1
