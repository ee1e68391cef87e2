"""Orders on their way into the ledger, through workers that run as processes."""

import asyncio
import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from rewardpoints.app.commands import read_topic
from rewardpoints.events.dead_letters import ERROR, REASON
from tests.e2e.orders import ONE_LINE_ORDER, THREE_LINE_ORDER
from tests.e2e.stack import TENANT, Stack, an_order, until

PUBLIC_ORDERS = Path(__file__).parents[3] / "shared" / "contract" / "orders"
EXPECTED = {"EON2076": (333, 300), "EON1200": (812, 820)}


def completed(order: dict[str, Any]) -> dict[str, Any]:
    return {**order, "status": "COMPLETED"}


def public_orders() -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(PUBLIC_ORDERS.glob("*.json"))]


@pytest.mark.parametrize(
    "orders",
    [
        pytest.param([ONE_LINE_ORDER, THREE_LINE_ORDER], id="derived"),
        pytest.param(
            public_orders(),
            id="public",
            marks=pytest.mark.skipif(not PUBLIC_ORDERS.is_dir(), reason="the public orders are not beside this repo"),
        ),
    ],
)
@pytest.mark.parametrize("base", ["totalPrice", "subTotalPrice"])
async def test_two_real_orders_earn_what_they_should_once(
    stack: Stack, orders: list[dict[str, Any]], base: str
) -> None:
    for order in orders:
        content = {"orderValueToRewardPointsFactor": 1, "orderValueBase": base}
        await stack.settings_version(order["siteCode"], content)
    worker = await stack.worker()
    await stack.publish_orders(*map(completed, orders))
    await until(lambda: has_lots(stack, 2), seconds=20, what="two lots")
    first = {lot["referenceId"]: lot for lot in await stack.lots()}
    assert {order_id: lot["points"] for order_id, lot in first.items()} == {
        order_id: points[base == "subTotalPrice"] for order_id, points in EXPECTED.items()
    }
    assert first["EON1200"]["createdAt"] == datetime(2025, 6, 10, 12, 31, 39, 614_000, tzinfo=UTC)

    await stack.publish_orders(*map(completed, orders), an_order("last", "c9"))
    await until(lambda: has_lots(stack, 3), seconds=20, what="the order after the repeated ones")
    again = {lot["referenceId"]: lot for lot in await stack.lots() if lot["referenceId"] in EXPECTED}
    assert again == first
    assert await worker.stop() == 0


async def has_lots(stack: Stack, count: int) -> bool:
    return await stack.lot_count() >= count


async def test_ten_thousand_orders_three_times_through_two_killed_workers(stack: Stack) -> None:
    total = 10_000
    chance = random.Random(7)
    deliveries = [number for number in range(total) for _ in range(3)]
    chance.shuffle(deliveries)
    orders = {number: an_order(f"o{number}", f"c{number % 500}", 1 + number % 50) for number in range(total)}
    workers = [await (await stack.worker(slot)).ready() for slot in ("w1", "w2")]

    async def publish() -> None:
        for start in range(0, len(deliveries), 1000):
            await stack.publish_orders(*(orders[number] for number in deliveries[start : start + 1000]))

    publishing = asyncio.create_task(publish())
    for killed, threshold in zip(workers, (total // 5, total // 2), strict=True):
        await until(lambda threshold=threshold: has_lots(stack, threshold), seconds=300, what=f"{threshold} lots")  # type: ignore[misc]  # binds the loop's value
        await killed.kill()
        await killed.start()
    await publishing
    await until(lambda: has_lots(stack, total), seconds=300, what="every lot")
    await until(lambda: caught_up(workers[0].url, workers[1].url), seconds=300, what="every delivery read")
    lots = await stack.lots()
    assert len(lots) == total
    assert {lot["sourceId"]: lot["points"] for lot in lots} == {f"o{n}": 1 + n % 50 for n in range(total)}
    assert [await worker.stop() for worker in workers] == [0, 0]
    await stack.assert_true()


async def caught_up(*urls: str) -> bool:
    """Nothing more is read: the counters of all workers stand still for a while."""
    before = [await records_read(url) for url in urls]
    await asyncio.sleep(1)
    return before == [await records_read(url) for url in urls]


async def records_read(url: str) -> float:
    async with httpx.AsyncClient(base_url=url) as client:
        text = (await client.get("/metrics")).text
    return sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("rewardpoints_records_read_total")
    )


async def test_bad_input_becomes_a_dead_letter_that_explains_and_the_next_record_is_processed(stack: Stack) -> None:
    await stack.worker()
    good = an_order("good", "c1")
    too_big = json.dumps(an_order("big", "c1", note="x" * (stack.kafka.max_message_bytes - 1000))).encode()
    bad: list[tuple[bytes | dict[str, Any], str]] = [
        (b"{not json", "malformed"),
        (b"", "malformed"),
        (b"\xff\xfe\x00", "malformed"),
        (b'{"id": "a\xff", "status": "COMPLETED", "customer": {"id": "c1"}}', "malformed"),
        ({**good, "id": None}, "invalid_id"),
        ({name: value for name, value in good.items() if name != "id"}, "invalid_id"),
        ({**good, "totalPrice": -1}, "invalid_amount"),
        (json.dumps(good).replace('"totalPrice": 10', '"totalPrice": 1e400').encode(), "invalid_amount"),
        ({**good, "totalPrice": None}, "invalid_amount"),
        ({**good, "totalPrice": 2_000_000_000}, "too_many_points"),
        ({**good, "completed": "yesterday"}, "invalid_time"),
        ({**good, "completed": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}, "future_time"),
        ({**good, "totalPrice": "ten"}, "invalid_amount"),
        ({**good, "totalPrice": []}, "invalid_field"),
    ]
    for value, _ in bad:
        await stack.publish_orders(value)
    await stack.publish_orders(good, tenant=None)
    await stack.publish_orders({**good, "tenant": "customer"}, tenant=None)
    await stack.publish_orders(too_big.replace(b'"status": "COMPLETED"', b'"status":  COMPLETED '))
    await stack.publish_orders(good)
    await until(lambda: has_lots(stack, 1), seconds=20, what="the good order")

    expected = Counter([reason for _, reason in bad] + ["missing_tenant", "invalid_tenant", "malformed"])

    async def explained() -> bool:
        letters = await dead_letters(stack)
        return Counter(letter["headers"][REASON] for letter in letters) == expected

    await until(explained, seconds=20, what=f"dead letters {expected}")
    letters = await dead_letters(stack)
    assert all(len(letter["headers"][ERROR]) > 10 for letter in letters)
    assert [lot["sourceId"] for lot in await stack.lots()] == ["good"]


async def dead_letters(stack: Stack) -> list[dict[str, Any]]:
    return await read_topic(stack.kafka, stack.kafka.topic_dead_letter, 1000)


async def test_orders_that_earn_nothing_are_skipped_and_no_dead_letter(stack: Stack) -> None:
    worker = await stack.worker()
    await stack.settings_version("closed", {"enabled": False, "orderValueToRewardPointsFactor": 1})
    skipped = {
        "status": an_order("1", "c1", status="IN_CHECKOUT"),
        "anonymous_customer": an_order("2", "ANONYMOUS"),
        "no_settings": an_order("3", "c1", siteCode="unknown"),
        "site_disabled": an_order("4", "c1", siteCode="closed"),
        "zero_points": an_order("5", "c1", 0.5),
    }
    await stack.publish_orders(*skipped.values(), an_order("good", "c1"))
    await until(lambda: has_lots(stack, 1), seconds=20, what="the good order")

    async def counted() -> bool:
        async with httpx.AsyncClient(base_url=worker.url) as client:
            text = (await client.get("/metrics")).text
        return all(f'rewardpoints_orders_skipped_total{{reason="{reason}"}} 1.0' in text for reason in skipped)

    await until(counted, seconds=10, what="each skip counted")
    assert await dead_letters(stack) == []
    assert await stack.lot_count() == 1


async def test_todays_settings_do_not_change_last_months_orders(stack: Stack) -> None:
    api = await (await stack.api()).ready()
    await (await stack.worker()).ready()
    last_month = (datetime.now(UTC) - timedelta(days=30)).isoformat()
    async with httpx.AsyncClient(base_url=api.url, headers=stack.employee()) as client:
        path = f"/site/{TENANT}/sites/main/mixins/couponSettings"
        changed = await client.patch(path, json={"rewardpoints": {"orderValueToRewardPointsFactor": 2}})
        assert changed.status_code in {200, 204}, changed.text
        shown = (await client.get(path)).json()
        assert shown["rewardpoints"]["orderValueToRewardPointsFactor"] == 2
    await stack.publish_orders(an_order("old", "c1", 10, completed=last_month), an_order("new", "c1", 10))
    await until(lambda: has_lots(stack, 2), seconds=20, what="both lots")
    points = {lot["sourceId"]: (lot["points"], lot["earned"]["settingsVersion"]) for lot in await stack.lots()}
    assert points == {"old": (10, 1), "new": (20, 2)}


async def test_an_erased_customer_stays_erased(stack: Stack) -> None:
    """Erased while orders are in flight; then the whole topic is read again; only a later order opens an account."""
    api = await (await stack.api()).ready()
    worker = await (await stack.worker()).ready()
    # completed before the erasure, published before, during and after it
    orders = [an_order(f"gone{number}", "gone") for number in range(3000)]
    others = [an_order(f"kept{number}", f"c{number}") for number in range(300)]

    async def publish() -> None:
        for start in range(0, 3000, 100):
            await stack.publish_orders(*orders[start : start + 100], *others[start // 10 : start // 10 + 10])

    publishing = asyncio.create_task(publish())
    await until(lambda: has_lots(stack, 200), seconds=30, what="orders in flight")
    async with httpx.AsyncClient(base_url=api.url, headers=stack.employee(), timeout=60) as client:

        async def erased() -> bool:
            answer = await client.delete("/reward-points/customer/gone")
            assert answer.status_code in {httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE}
            return answer.status_code == httpx.codes.OK

        await until(erased, seconds=60, what="erased, beside batches that want the same documents")
        await publishing

        async def others_kept() -> bool:
            return await stack.ledger.database.lots.count_documents({"account": {"$ne": "shop/gone"}}) == len(others)

        async def none_left() -> bool:
            return await stack.lots(account="shop/gone") == []

        await until(others_kept, seconds=30, what="every other order")
        await until(lambda: caught_up(worker.url), seconds=30, what="everything read")
        await until(none_left, seconds=20, what="nothing of the erased customer")

        replaying = await (await stack.worker("w2", KAFKA_GROUP_ID=f"{stack.kafka.group_id}-again")).ready()
        await until(lambda: read_at_least(replaying.url, 3300), seconds=60, what="the whole topic again")
        await until(none_left, seconds=20, what="nothing of the erased customer after the replay")
        assert (await client.get("/reward-points/customer/gone")).status_code == httpx.codes.NOT_FOUND

        await stack.publish_orders(an_order("fresh", "gone", 7))

        async def fresh() -> bool:
            answer = await client.get("/reward-points/customer/gone")
            return answer.status_code == httpx.codes.OK and answer.json() == 7

        await until(fresh, seconds=20, what="a fresh account")
    await stack.assert_true()


async def read_at_least(url: str, count: int) -> bool:
    return await records_read(url) >= count
