"""Points spent over HTTP, coupon requests on Kafka, and what comes back, between processes."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from rewardpoints.app.commands import read_topic
from rewardpoints.domain.chargebacks import DESCRIPTION
from rewardpoints.domain.instants import parse_instant
from rewardpoints.embedded.ports import free_port
from rewardpoints.events.dead_letters import REASON
from tests.e2e.stack import OTHER_TENANT, TENANT, Stack, until

OPTION = {
    "type": "coupon",
    "name": "5 Euro",
    "description": "A voucher over 5 Euro for 100 points",
    "points": 100,
    "coupon": {
        "name": "5 Euro",
        "discountType": "ABSOLUTE",
        "discountAbsolute": {"amount": 5.25, "currency": "EUR"},
        "maxRedemptions": 1,
    },
}
REDEEM = "/reward-points/public/customer/redeem"


async def an_option(client: httpx.AsyncClient, stack: Stack, tenant: str = TENANT) -> str:
    answer = await client.post(
        f"/reward-points/{tenant}/redeemOptions", json=OPTION, headers=stack.employee(tenant=tenant)
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    return str(answer.json()[-1]["id"])


async def an_account(
    client: httpx.AsyncClient, stack: Stack, customer: str, *points: int, tenant: str = TENANT
) -> None:
    for position, amount in enumerate(points):
        answer = await client.post(
            f"/reward-points/customer/{customer}/addPoints",
            json={"id": f"grant-{position}", "points": amount},
            headers=stack.employee(tenant=tenant),
        )
        assert answer.status_code == httpx.codes.CREATED, answer.text


async def summary(client: httpx.AsyncClient, headers: Mapping[str, str]) -> dict[str, Any]:
    answer = await client.get("/reward-points/public/customer/summary", headers=headers)
    assert answer.status_code == httpx.codes.OK, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def requests(stack: Stack) -> list[dict[str, Any]]:
    records = await read_topic(stack.kafka, stack.kafka.topic_coupon_creation_requests, 1000)
    return [record["value"] for record in records]


async def dead_letter_reasons(stack: Stack) -> list[str]:
    return [record["headers"][REASON] for record in await read_topic(stack.kafka, stack.kafka.topic_dead_letter, 100)]


async def test_fifty_at_once_where_the_points_suffice_for_seven(stack: Stack) -> None:
    api = await (await stack.api()).ready()
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as client:
        option = await an_option(client, stack)
        await an_account(client, stack, "c1", 250, 130, 70, 299)  # 749
        headers = stack.customer("c1")
        started = time.monotonic()
        answers = await asyncio.gather(*(client.post(REDEEM, json={"id": option}, headers=headers) for _ in range(50)))
        seconds = time.monotonic() - started
        assert Counter(answer.status_code for answer in answers) == {200: 7, 400: 43}, f"in {seconds:.1f} s"
        codes = {answer.json()["code"] for answer in answers if answer.status_code == httpx.codes.OK}
        assert len(codes) == 7
        shown = await summary(client, headers)
        assert shown["activePoints"] == 49
        assert len(shown["summary"]["redeemedPointsList"]) == 7

    async def all_published() -> bool:
        return {request["code"] for request in await requests(stack)} == codes

    await until(all_published, seconds=20, what="a request for each code")
    await stack.assert_true()


async def test_one_key_twenty_times_at_once_is_one_code_spent_once(stack: Stack) -> None:
    api = await (await stack.api()).ready()
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as client:
        option = await an_option(client, stack)
        await an_account(client, stack, "c1", 1000)
        headers = stack.customer("c1") | {"Idempotency-Key": "once"}
        answers = await asyncio.gather(*(client.post(REDEEM, json={"id": option}, headers=headers) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["code"] for answer in answers}) == 1
        assert (await summary(client, headers))["activePoints"] == 900
        other = await client.post(f"{REDEEM}?siteCode=other", json={"id": option}, headers=headers)
        assert other.status_code == httpx.codes.BAD_REQUEST
        assert (await summary(client, headers))["activePoints"] == 900
    await stack.assert_true()


async def test_killed_between_commit_and_publish_the_request_still_arrives(stack: Stack) -> None:
    """The API cannot reach Kafka, so the kill -9 after its answer surely falls between commit and publish."""
    api = await stack.api(KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    await until(lambda: mongodb_is_up(api), seconds=20, what="the API up without Kafka")
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as client:
        option = await an_option(client, stack)
        await an_account(client, stack, "c1", 100)
        answer = await client.post(REDEEM, json={"id": option}, headers=stack.customer("c1"))
        assert answer.status_code == httpx.codes.OK
        await api.kill()
    code = answer.json()["code"]
    (stored,) = await stack.ledger.database.redemptions.find({}).to_list(None)
    assert stored["publishAt"] is not None
    assert await requests(stack) == []

    await (await stack.worker()).ready()

    async def arrived() -> bool:
        return bool(await requests(stack))

    await until(arrived, seconds=45, what="the coupon request")
    assert {(request["id"], request["code"]) for request in await requests(stack)} == {(stored["_id"], code)}

    async def cleared() -> bool:
        return await stack.ledger.database.redemptions.find_one({"publishAt": {"$exists": True}}) is None

    await until(cleared, seconds=20, what="the request cleared after the broker's ack")
    await stack.assert_true()


async def mongodb_is_up(api: Any) -> bool:
    answer = await api.readiness()
    return (
        answer is not None
        and answer.status_code == httpx.codes.OK
        and answer.json()["checks"]["kafka"]["status"] == "degraded"
    )


async def test_a_chargeback_three_times_is_one_new_lot(stack: Stack) -> None:
    api = await (await stack.api()).ready()
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as client:
        option = await an_option(client, stack)
        await an_account(client, stack, "c1", 60, 60)
        headers = stack.customer("c1")
        code = (await client.post(REDEEM, json={"id": option}, headers=headers)).json()["code"]

        async def published() -> bool:
            return bool(await requests(stack))

        await until(published, seconds=20, what="the coupon request")
        (request,) = await requests(stack)
        assert request["code"] == request["coupon"]["code"] == code
        assert request["coupon"]["discountAbsolute"] == {"amount": 5.25, "currency": "EUR"}
        assert sum(draw["points"] for draw in request["draws"]) == request["points"] == 100

        message = {"redemptionId": request["id"], "tenant": TENANT, "reason": "no codes left"}
        sent_at = datetime.now(UTC)
        await stack.publish(stack.kafka.topic_chargebacks, message, message, message, tenant=None)

        async def given_back() -> bool:
            return bool((await summary(client, headers))["activePoints"] == 120)

        await until(given_back, seconds=20, what="the points back")
        await stack.publish(stack.kafka.topic_chargebacks, message, {**message, "redemptionId": "unknown"}, tenant=None)
        await stack.publish(stack.kafka.topic_chargebacks, {**message, "tenant": OTHER_TENANT}, tenant=None)

        async def refused() -> bool:
            return sorted(await dead_letter_reasons(stack)) == ["unknown_redemption", "wrong_tenant"]

        await until(refused, seconds=20, what="two dead letters")
        shown = await summary(client, headers)
        assert shown["activePoints"] == 120
        (new,) = [lot for lot in shown["summary"]["addedPointsList"] if lot["description"] == DESCRIPTION]
        assert (new["points"], new["usedPoints"], new["reference-id"]) == (100, 0, None)
        created_at = parse_instant(new["createdAt"])
        assert abs(created_at - sent_at) < timedelta(seconds=10)
        assert parse_instant(new["validUntil"]) == created_at.replace(year=created_at.year + 3)
        used = [lot["usedPoints"] for lot in shown["summary"]["addedPointsList"] if lot is not new]
        assert sorted(used) == [40, 60]  # drawn lots stay drawn
    await stack.assert_true()


async def test_a_coupon_is_issued_or_charged_back_never_both(stack: Stack) -> None:
    api = await (await stack.api()).ready()
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as client:
        option = await an_option(client, stack)
        await an_account(client, stack, "c1", 200)
        headers = stack.customer("c1")
        for _ in range(2):
            assert (await client.post(REDEEM, json={"id": option}, headers=headers)).status_code == httpx.codes.OK
        first, second = [stored["_id"] for stored in await stack.ledger.database.redemptions.find({}).to_list(None)]
        results = stack.kafka.topic_coupon_creation_results
        assert results is not None

        async def state_of(redemption: str, state: str) -> bool:
            stored = await stack.ledger.database.redemptions.find_one({"_id": redemption})
            return stored is not None and stored["state"] == state

        await stack.publish(results, {"redemptionId": first, "status": "CREATED"})
        await until(lambda: state_of(first, "issued"), seconds=20, what="issued")
        await stack.publish(stack.kafka.topic_chargebacks, {"redemptionId": first}, {"redemptionId": second})
        await until(lambda: state_of(second, "charged_back"), seconds=20, what="charged back")
        await stack.publish(results, {"redemptionId": second, "status": "CREATED"})

        async def refused() -> bool:
            return sorted(await dead_letter_reasons(stack)) == ["already_issued", "issued_after_chargeback"]

        await until(refused, seconds=20, what="two dead letters")
        assert await state_of(first, "issued")
        assert await state_of(second, "charged_back")
        assert (await summary(client, headers))["activePoints"] == 100


async def test_a_tenant_sees_nothing_of_another(stack: Stack) -> None:
    api = await (await stack.api()).ready()
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as client:
        option = await an_option(client, stack)
        await an_account(client, stack, "c1", 100)
        rival = stack.employee(tenant=OTHER_TENANT)
        assert (await client.get("/reward-points/customer/c1", headers=rival)).status_code == httpx.codes.NOT_FOUND
        assert (await client.get("/reward-points/summaryBatch", headers=rival)).json() == []
        assert (await client.get(f"/reward-points/{TENANT}/redeemOptions", headers=rival)).status_code == 403
        await an_account(client, stack, "c1", 500, tenant=OTHER_TENANT)
        customer = stack.customer("c1", tenant=OTHER_TENANT)
        assert (await client.post(REDEEM, json={"id": option}, headers=customer)).status_code == httpx.codes.NOT_FOUND
        assert (await client.delete("/reward-points/customer/c1", headers=rival)).status_code == httpx.codes.OK
        mine = await client.get("/reward-points/public/customer", headers=stack.customer("c1"))
        assert mine.json() == 100
