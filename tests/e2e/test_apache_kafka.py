"""What only Apache Kafka shows: members that expire, and brokers that are killed while the others go on."""

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from rewardpoints.app.commands import ServerRefused
from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.lots import LotKind, lot_id
from rewardpoints.events.connection import consumer_group
from tests.apache_kafka import ApacheKafka
from tests.e2e.stack import TENANT, Server, Stack, an_order, running_stack, until
from tests.e2e.test_orders import records_read
from tests.e2e.test_redemptions import REDEEM, an_account, an_option, requests
from tests.events.wire import committed, end_of
from tests.servers import apache_kafka, chosen_servers

pytestmark = pytest.mark.skipif(
    chosen_servers()["kafka"] == "embedded",
    reason="the embedded broker expires no member and has no replicas: REWARDPOINTS_TEST_KAFKA=apache",
)

CHUNK = 50
KILL_PAUSE_SECONDS = float(os.environ.get("REWARDPOINTS_TEST_BROKER_KILL_PAUSE_SECONDS", "0"))
PACE_SECONDS = max(0.1, KILL_PAUSE_SECONDS / 60)  # a long run is read back as a whole too
MOST_REDEMPTIONS = 900  # the request topic is read back to its newest thousand
NO_STABLE_NAME = {"KAFKA_GROUP_INSTANCE_ID": "", "KAFKA_SESSION_TIMEOUT_MS": "6000"}


async def test_a_killed_worker_without_a_stable_name_is_expired_and_another_takes_over(stack: Stack) -> None:
    killed, left = [await (await stack.worker(slot, **NO_STABLE_NAME)).ready() for slot in ("w1", "w2")]
    orders = orders_of(4000)
    await publish(stack, orders[:1000])
    await until(lambda: all_read(killed, left), seconds=30, what="both workers have partitions")

    publishing = asyncio.create_task(publish(stack, orders[1000:]))
    await until(lambda: lots_of(stack, 1500), seconds=60, what="lots of the second part")
    await killed.kill()
    await publishing
    await until(lambda: lots_of(stack, len(orders)), seconds=60, what="every lot, the killed worker's too")
    await assert_each_once(stack, orders)
    await until(lambda: all_committed(stack), seconds=30, what="every partition committed to its end")
    assert await left.stop() == 0
    await stack.assert_true()


async def test_a_broker_killed_under_load_loses_nothing_and_doubles_nothing(
    mongodb_uri: str,
    database_name: str,
    topic_prefix: str,
    tmp_path: Path,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    """Three brokers, three replicas, two in sync: the leader of a partition is killed -9 and comes back.

    ``REWARDPOINTS_TEST_BROKER_KILLS`` says how often, by default once; a kill comes no sooner than
    ``REWARDPOINTS_TEST_BROKER_KILL_PAUSE_SECONDS`` after the one before it (``make faults SCENARIO=broker-kills``).
    """
    names = {"mongodb_uri": mongodb_uri, "database": database_name, "prefix": topic_prefix, "folder": tmp_path}
    async with (
        apache_kafka(tmp_path / "kafka", brokers=3) as cluster,
        running_stack(kafka=cluster.bootstrap_servers, replicas=3, **names) as stack,
    ):
        workers = [await (await stack.worker(slot, **NO_STABLE_NAME)).ready() for slot in ("w1", "w2")]
        api = await (await stack.api(**NO_STABLE_NAME)).ready()
        enough = asyncio.Event()
        recoveries = []
        async with httpx.AsyncClient(base_url=api.url, timeout=20) as client:
            option = await an_option(client, stack)
            await an_account(client, stack, "spender", 100 * MOST_REDEMPTIONS)
            publishing = asyncio.create_task(publish_until(stack, enough))
            redeeming = asyncio.create_task(redeem(client, stack, option, enough))
            await until(lambda: lots_of(stack, 1000), seconds=60, what="lots before the kill")
            for number in range(int(os.environ.get("REWARDPOINTS_TEST_BROKER_KILLS", "1"))):
                next_at = time.monotonic() + KILL_PAUSE_SECONDS
                recoveries.append(await kill_a_leader(cluster, stack, f"after-{number}"))
                await asyncio.sleep(max(next_at - time.monotonic(), 0))
            enough.set()
            orders, codes = await publishing, await redeeming
        record_testsuite_property("recovery_seconds", recoveries)
        record_testsuite_property("orders", len(orders))

        await until(lambda: all_committed(stack), seconds=120, what="every partition committed to its end")
        await assert_each_once(stack, orders)
        await until(lambda: all_requested(stack, codes), seconds=60, what="a coupon request for each code")
        published = {(request["id"], request["code"]) for request in await requests(stack)}
        assert len(published) == len({redemption for redemption, _ in published}) == len(codes)
        assert [await server.stop() for server in (*workers, api)] == [0, 0, 0]
        await stack.assert_true()


async def kill_a_leader(cluster: ApacheKafka, stack: Stack, prefix: str) -> float:
    """Kill -9 a partition's leader and have it back in sync; the seconds until orders of after the kill were lots."""
    victim = cluster.brokers[await leader(stack) - 1]
    await victim.kill()
    killed_at = time.monotonic()
    after = [{**order, "id": f"{prefix}-{order['id']}"} for order in orders_of(CHUNK)]
    await publish(stack, after)
    await until(lambda: all_there(stack, after), seconds=60, what="orders of after the kill")
    recovery = time.monotonic() - killed_at
    await victim.start()
    await until(lambda: in_sync(stack), seconds=60, what="three replicas in sync")
    return round(recovery, 1)


def orders_of(count: int) -> list[dict[str, Any]]:
    return [an_order(f"o{number}", f"c{number % 100}", 1 + number % 50) for number in range(count)]


async def publish(stack: Stack, orders: Sequence[dict[str, Any]]) -> None:
    """As a publisher does that must lose nothing: what was not acknowledged goes out again, and may be there twice."""
    for start in range(0, len(orders), CHUNK):
        chunk = orders[start : start + CHUNK]

        async def acknowledged(chunk: Sequence[dict[str, Any]] = chunk) -> bool:
            try:
                await stack.publish_orders(*chunk)
            except (AssertionError, ServerRefused):  # some, or all, were not acknowledged
                return False
            return True

        await until(acknowledged, seconds=120, what="a chunk acknowledged")


async def publish_until(stack: Stack, enough: asyncio.Event) -> list[dict[str, Any]]:
    """One chunk of new orders after the other until it is enough; all of them, each acknowledged at least once."""
    orders: list[dict[str, Any]] = []
    while not enough.is_set():
        chunk = [an_order(f"o{number}", f"c{number % 100}", 1) for number in range(len(orders), len(orders) + CHUNK)]
        await publish(stack, chunk)
        orders += chunk
        await pace(enough)
    return orders


async def pace(enough: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(enough.wait(), PACE_SECONDS)


async def redeem(client: httpx.AsyncClient, stack: Stack, option: str, enough: asyncio.Event) -> set[str]:
    """One redemption after the other until it is enough; the codes they were answered with."""
    codes: set[str] = set()
    while not enough.is_set() and len(codes) < MOST_REDEMPTIONS:
        answer = await client.post(REDEEM, json={"id": option}, headers=stack.customer("spender"))
        assert answer.status_code == httpx.codes.OK, answer.text  # a code does not wait for Kafka
        codes.add(str(answer.json()["code"]))
        await pace(enough)
    return codes


async def all_read(*workers: Server) -> bool:
    return all([await records_read(worker.url) > 0 for worker in workers])


async def lots_of(stack: Stack, count: int) -> bool:
    return await stack.ledger.database.lots.estimated_document_count() >= count


async def all_there(stack: Stack, orders: Sequence[dict[str, Any]]) -> bool:
    """By the ids of their lots: nothing else is quick in a ledger that a long run has filled."""
    ids = [lot_id(account_of(TENANT, order["customer"]["id"]), LotKind.ORDER, order["id"]) for order in orders]
    return len(await stack.ledger.database.lots.find({"_id": {"$in": ids}}, {"_id": 1}).to_list(None)) == len(orders)


async def assert_each_once(stack: Stack, orders: Sequence[dict[str, Any]]) -> None:
    points = {order["id"]: order["totalPrice"] for order in orders}
    lots = [lot for lot in await stack.lots() if lot["sourceId"] in points]
    assert Counter(lot["sourceId"] for lot in lots) == Counter(points.keys())
    assert {lot["sourceId"]: lot["points"] for lot in lots} == points


async def all_committed(stack: Stack) -> bool:
    """Whether the group has committed every partition of the order topic to its end."""
    topic = stack.kafka.topic_order_completed
    offsets = await committed(stack.kafka, consumer_group(stack.kafka, "orders"), topic)
    return sum(offsets.values()) == await end_of(stack.kafka, topic)


async def all_requested(stack: Stack, codes: set[str]) -> bool:
    return {request["code"] for request in await requests(stack)} == codes


async def leader(stack: Stack) -> int:
    """The node that leads the first partition of the order topic."""
    (topic,) = await described(stack, [stack.kafka.topic_order_completed])
    return next(int(part["leader"]) for part in topic["partitions"] if part["partition"] == 0)


async def in_sync(stack: Stack) -> bool:
    """Whether every partition of the cluster has all its replicas in sync."""
    partitions = [part for topic in await described(stack) for part in topic["partitions"]]
    return all(len(part["isr"]) == len(part["replicas"]) == 3 for part in partitions)


async def described(stack: Stack, topics: Sequence[str] | None = None) -> list[dict[str, Any]]:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka.bootstrap_servers)
    try:
        await admin.start()
        return list(await admin.describe_topics(topics))
    finally:
        await admin.close()
