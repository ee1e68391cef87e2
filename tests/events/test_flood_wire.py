"""A flood of bad records on a real broker: consumption pauses, keeps its place in the group, and loses nothing."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from rewardpoints.domain.errors import LedgerUnavailable, RejectReason
from rewardpoints.events import dead_letters as dead
from rewardpoints.events.dead_letters import DeadLetters
from rewardpoints.events.flood_guard import FloodGuard, FloodOfBadRecords
from rewardpoints.events.order_consumer import OrderConsumer
from rewardpoints.events.records import Record
from rewardpoints.settings import KafkaSettings, ServiceSettings
from rewardpoints.telemetry import Metrics
from tests.events.conftest import Read
from tests.events.fakes import FakeLots, FakeSettings, FakeTombstones
from tests.events.wire import clock, committed, end_of, metric, order_bytes, produce, read, until

BAD = [f"bad{number}" for number in range(30)]


class Orders:
    """An order consumer over memory, whose ledger can never take the lots of ``BAD`` until ``mend``."""

    def __init__(self, dead_letters: DeadLetters, metrics: Metrics, *, pause: bool = True) -> None:
        self.lots = FakeLots()
        self.lots.never_taken = set(BAD)
        self.handle = OrderConsumer(
            self.lots,
            FakeTombstones(),
            FakeSettings(),
            dead_letters=dead_letters,
            flood_guard=FloodGuard(ServiceSettings(flood_pause=pause, flood_window_records=20)),
            metrics=metrics,
            clock=clock,
        ).handle

    def mend(self) -> None:
        self.lots.never_taken = set()


def is_paused(metrics: Metrics, topic: str) -> bool:
    return metric(metrics.registry, "consumption_paused", topic=topic) == 1


async def test_a_flood_pauses_and_when_it_is_mended_everything_is_there_once(
    kafka: KafkaSettings, dead_letters: DeadLetters, metrics: Metrics, reading: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [order_bytes(name) for name in ("A", *BAD, "B")], partition=0)
    orders = Orders(dead_letters, metrics)
    short = kafka.model_copy(update={"max_poll_interval_ms": 500, "session_timeout_ms": 6000})
    async with reading(orders.handle, settings=short) as at_work:
        await until(lambda: is_paused(metrics, topic))
        consumer: Any = at_work.subscriber._consumer
        member = _member(consumer)
        tries, since = len(orders.lots.batches), time.monotonic()
        await until(lambda: len(orders.lots.batches) > tries + 10 and time.monotonic() > since + 3)
        assert _member(consumer) == member  # six times as long as aiokafka allows between polls
        assert at_work.process.paused == {"orders"}
        assert await at_work.process.kafka_ready()
        assert not await at_work.process.hears_all()
        assert orders.lots.orders == {"A", "B"}  # the good ones of it do not wait
        assert await end_of(kafka, kafka.topic_dead_letter) == 0
        assert await committed(kafka, at_work.subscriber.group, topic) == {}
        orders.mend()
        await until(lambda: orders.lots.orders == {"A", *BAD, "B"})
        await until(lambda: not is_paused(metrics, topic))
        assert at_work.process.paused == set()
        group = at_work.subscriber.group
    assert at_work.fatal == []
    assert await committed(kafka, group, topic) == {0: 32}
    assert await end_of(kafka, kafka.topic_dead_letter) == 0
    alarms = [line for line in capsys.readouterr().out.splitlines() if "consumption_paused" in line]
    assert len(alarms) == 1
    for part in ("error", "reason=ledger_rejected", "partition=0", "offset=1", "bad=30", "judged=32"):
        assert part in alarms[0]


async def test_a_paused_consumer_stops_at_once_and_a_restart_can_let_the_flood_through(
    kafka: KafkaSettings, dead_letters: DeadLetters, metrics: Metrics, reading: Read
) -> None:
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [order_bytes(name) for name in ("A", *BAD, "B")], partition=0)
    orders = Orders(dead_letters, metrics)
    async with reading(orders.handle, retry_max_seconds=60) as at_work:
        await until(lambda: is_paused(metrics, topic))
        async with asyncio.timeout(20):  # a wait for the next try takes up to a minute
            await at_work.process.stop()
        group = at_work.subscriber.group
    assert await committed(kafka, group, topic) == {}
    assert await end_of(kafka, kafka.topic_dead_letter) == 0

    letting_through = Orders(dead_letters, metrics, pause=False)
    async with reading(letting_through.handle):
        found = await read(kafka, kafka.topic_dead_letter, 30)
        await until(lambda: letting_through.lots.orders == {"A", "B"})
    assert {dict(record.headers)[dead.REASON] for record in found} == {b"ledger_rejected"}
    assert await committed(kafka, group, topic) == {0: 32}


async def test_a_member_that_loses_a_flooded_partition_reads_on_and_its_new_owner_pauses(
    kafka: KafkaSettings, dead_letters: DeadLetters, reading: Read
) -> None:
    """Partitions are given out in the order of the members' ids, which begin with the client's."""
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [order_bytes(name) for name in BAD], partition=0)
    metrics = Metrics()
    one, two = Orders(dead_letters, metrics), Orders(dead_letters, metrics)
    async with reading(one.handle, settings=kafka.model_copy(update={"client_id": "z"})) as first:
        await until(lambda: first.subscriber.paused)
        for partition in range(3):
            names = [f"good{partition}-{number}" for number in range(3)]
            await produce(kafka, topic, [order_bytes(name) for name in names], partition=partition)
        async with reading(two.handle, settings=kafka.model_copy(update={"client_id": "a"})) as second:
            await until(lambda: second.subscriber.paused and not first.subscriber.paused)
            await until(lambda: one.lots.orders)
            assert second.subscriber.paused
            assert await end_of(kafka, kafka.topic_dead_letter) == 0
            one.mend()
            two.mend()
            await until(lambda: len(one.lots.orders | two.lots.orders) == len(BAD) + 9)
            group = first.subscriber.group
            await until(lambda: not second.subscriber.paused)
    assert first.fatal == second.fatal == []
    assert await end_of(kafka, kafka.topic_dead_letter) == 0
    assert await committed(kafka, group, topic) == {0: 33, 1: 3, 2: 3}


class OneByOne:
    """Takes every record but ``b"3"``, which it answers with ``error``."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error
        self.values: list[bytes | None] = []
        self.refused = asyncio.Event()

    async def __call__(self, records: Sequence[Record]) -> None:
        (record,) = records
        if record.value == b"3" and self.error is not None:
            self.refused.set()
            raise self.error
        self.values.append(record.value)


@pytest.mark.parametrize("kind", ["flood", "outage", "bug"])
async def test_of_records_handled_one_by_one_those_before_the_obstacle_are_committed(
    kafka: KafkaSettings, reading: Read, kind: str
) -> None:
    """Otherwise each restart, or each look at a flood, would publish their dead letters once more."""
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"1", b"2", b"3", b"4"], partition=0)
    errors: dict[str, Exception] = {"outage": LedgerUnavailable("away"), "bug": KeyError("a bug")}
    (record,) = (await read(kafka, topic, 4))[:1]
    errors["flood"] = FloodOfBadRecords(record, reason=RejectReason.MALFORMED, bad=5, judged=10)
    handler = OneByOne(errors[kind])
    async with reading(handler, one_by_one=True) as at_work:
        await handler.refused.wait()
        group = at_work.subscriber.group
    assert await committed(kafka, group, topic) == {0: 2}
    handler.error = None
    async with reading(handler, one_by_one=True):
        await until(lambda: len(handler.values) == 4)
    assert handler.values == [b"1", b"2", b"3", b"4"]


def _member(consumer: Any) -> tuple[str, int]:
    coordinator = consumer._coordinator
    return coordinator.member_id, coordinator.generation
