"""A ledger that is slower than its topic: what waits, waits in Kafka, and the consumer keeps its partitions."""

import asyncio
import gc
import tracemalloc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from rewardpoints.events.raw_consumer import RawConsumer
from rewardpoints.events.records import Record
from rewardpoints.settings import KafkaSettings
from rewardpoints.telemetry import Metrics
from tests.events.conftest import Read
from tests.events.wire import committed, metric, produce, until
from tests.servers import chosen_servers

PARTITIONS = 3
FETCH_BYTES = 262_144
RECORD_BYTES = 50_000
RECORDS = 200
"""Of each partition: 30 MB in all."""


class SlowLedger:
    """Takes a moment for each batch, and looks at what the consumer holds meanwhile."""

    def __init__(self) -> None:
        self.consumer: RawConsumer | None = None
        self.places: set[tuple[int, int]] = set()
        self.batches = 0
        self.most_records = 0
        self.most_buffered_bytes = 0
        self.members: set[tuple[str, int]] = set()

    async def __call__(self, records: Sequence[Record]) -> None:
        consumer: Any = self.consumer
        assert consumer is not None
        for _ in range(5):  # time enough to fetch ahead
            await asyncio.sleep(0.02)
            buffered = sum(_bytes(result) for result in consumer._fetcher._records.values())
            self.most_buffered_bytes = max(self.most_buffered_bytes, buffered)
            self.members.add((consumer._coordinator.member_id, consumer._coordinator.generation))
        self.batches += 1
        self.most_records = max(self.most_records, len(records))
        self.places |= {(record.partition, record.offset) for record in records}


def _bytes(result: Any) -> int:
    held = result._partition_records
    return 0 if held is None else int(held._records.size_in_bytes())


async def test_memory_is_bounded_by_the_partitions_and_not_by_what_waits(
    kafka: KafkaSettings, metrics: Metrics, reading: Read
) -> None:
    if chosen_servers()["kafka"] == "embedded":
        pytest.skip("the embedded broker sends all it has, whatever it is asked for")
    topic = kafka.topic_order_completed
    for partition in range(PARTITIONS):
        await produce(kafka, topic, [b"x" * RECORD_BYTES] * RECORDS, partition=partition)
    ledger = SlowLedger()
    slow = kafka.model_copy(
        update={
            "partition_fetch_bytes": FETCH_BYTES,
            "max_batch_records": 20,
            "max_poll_interval_ms": 3000,  # much less than all of it takes
            "session_timeout_ms": 6000,
        }
    )
    tracemalloc.start()
    try:
        async with reading(_after_start(ledger), settings=slow) as at_work:
            await until(lambda: at_work.process.reading)
            ledger.consumer = at_work.subscriber._consumer
            await until(lambda: len(ledger.places) == PARTITIONS * RECORDS, seconds=120)
            group = at_work.subscriber.group
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ledger.most_records <= 20
    # A broker sends whole batches, and the first one of an answer whatever its size
    assert 0 < ledger.most_buffered_bytes <= PARTITIONS * (FETCH_BYTES + RECORD_BYTES)
    in_hand, ahead, answer = 20 * RECORD_BYTES, PARTITIONS * FETCH_BYTES, 3 * PARTITIONS * FETCH_BYTES
    assert most_bytes < in_hand + ahead + answer + 4_000_000
    assert len(ledger.members) == 1
    assert metric(metrics.registry, "commits_failed_total", topic=topic) == 0
    assert at_work.fatal == []
    assert await committed(kafka, group, topic) == dict.fromkeys(range(PARTITIONS), RECORDS)


def _after_start(ledger: SlowLedger) -> Any:
    """The handler, which waits until the test has shown it its consumer."""

    async def handle(records: Sequence[Record]) -> None:
        await until(lambda: ledger.consumer is not None)
        await ledger(records)

    return handle


async def test_a_batch_is_let_go_once_it_is_handled(kafka: KafkaSettings, metrics: Metrics, reading: Read) -> None:
    """Not when its cancelled timers would have been due, nor when the garbage collector comes by."""
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"%d" % number for number in range(200)], partition=0)
    batches: list[weakref.ref[Any]] = []
    most = 0

    async def handle(records: Sequence[Record]) -> None:
        nonlocal most
        async with asyncio.timeout(60):  # as every client of a server has them
            await asyncio.sleep(0)
        batches.append(weakref.ref(records[0]))
        most = max(most, sum(batch() is not None for batch in batches))

    gc.disable()
    try:
        async with reading(handle, settings=kafka.model_copy(update={"max_batch_records": 10})):
            await until(lambda: metric(metrics.registry, "commits_total", topic=topic) == 20)
    finally:
        gc.enable()
    assert most <= 2


async def test_a_record_larger_than_what_is_fetched_at_once_is_read(kafka: KafkaSettings, reading: Read) -> None:
    topic = kafka.topic_order_completed
    sizes = [10, 500_000, 20, 400_000]
    await produce(kafka, topic, [b"x" * size for size in sizes], partition=0)
    found: list[int] = []

    async def handle(records: Sequence[Record]) -> None:
        found.extend(len(record.value or b"") for record in records)

    async with reading(handle, settings=kafka.model_copy(update={"partition_fetch_bytes": 65_536})) as at_work:
        await until(lambda: found == sizes)
    assert at_work.fatal == []
