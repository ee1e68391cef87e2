"""The consumer beneath the subscribers: failed reads, the cost of idling, and starting without Kafka."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException

from rewardpoints.embedded import kafka_server
from rewardpoints.embedded.ports import free_port
from rewardpoints.events.producer import EventProducer
from rewardpoints.events.raw_consumer import ConsumerBroken, RawConsumer
from rewardpoints.events.records import Record
from rewardpoints.events.topics import create_topics
from rewardpoints.settings import KafkaSettings
from tests.events.conftest import Read
from tests.events.wire import committed, produce, until


class Collector:
    """Keeps what it is given, and when it came."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.came_at: list[float] = []

    async def __call__(self, records: Sequence[Record]) -> None:
        self.records += records
        self.came_at += [time.monotonic()] * len(records)

    @property
    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records]


@pytest.mark.parametrize(
    "error", [CorruptRecordException("bad CRC"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")]
)
async def test_a_read_that_fails_halfway_loses_no_record_of_another_partition(
    kafka: KafkaSettings, reading: Read, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """aiokafka drops what it took of other partitions, with their positions moved on; FastStream polls on."""
    topic = kafka.topic_order_completed
    for partition in range(3):
        await produce(kafka, topic, [b"%d-%d" % (partition, n) for n in range(20)], partition=partition)
    getall = FetchResult.getall
    failures = [error, error]
    taken = 0

    def failing(self: Any, max_records: int | None = None) -> Any:
        nonlocal taken
        if taken and failures:  # records of one partition are taken, the next one's are unreadable
            taken = 0
            raise failures.pop()
        found = getall(self, max_records)
        taken += len(found)
        return found

    monkeypatch.setattr(FetchResult, "getall", failing)
    monkeypatch.setattr("anyio.sleep", lambda _: asyncio.sleep(0))  # FastStream rests 5 s after a Kafka error
    collector = Collector()
    async with reading(collector, settings=kafka.model_copy(update={"max_batch_records": 100})) as at_work:
        await until(lambda: len(set(collector.values)) == 60)
        group = at_work.subscriber.group
    assert failures == []
    assert at_work.fatal == []
    assert await committed(kafka, group, topic) == {0: 20, 1: 20, 2: 20}


async def test_a_consumer_whose_background_task_died_ends_the_process(
    kafka: KafkaSettings, reading: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(Collector()) as at_work:
        await until(lambda: at_work.process.reading)
        fetcher = _consumer(at_work.subscriber)._fetcher
        fetcher._fetch_task.cancel()
        await until(lambda: at_work.fatal)
    assert isinstance(at_work.fatal[0], ConsumerBroken)


@pytest.mark.parametrize("left_to_finish", ["_coordination_task", "_heartbeat_task"])
async def test_a_stop_does_not_wait_for_a_rebalance_that_does_not_end(
    kafka: KafkaSettings, reading: Read, monkeypatch: pytest.MonkeyPatch, left_to_finish: str
) -> None:
    monkeypatch.setattr("rewardpoints.events.raw_consumer.LEAVE_TIMEOUT_SECONDS", 0.3)
    never = asyncio.Event()

    async def stubborn() -> None:
        while not never.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await never.wait()

    task = asyncio.create_task(stubborn())
    async with reading(Collector()) as at_work:
        await until(lambda: at_work.process.reading)
        coordinator = _consumer(at_work.subscriber)._coordinator
        getattr(coordinator, left_to_finish).cancel()
        monkeypatch.setattr(coordinator, left_to_finish, task)
        async with asyncio.timeout(20):
            await at_work.process.stop()
    never.set()
    await task


def _all_hold(collectors: Sequence[Collector], count: int) -> bool:
    return all(len(collector.values) == count for collector in collectors)


def _consumer(subscriber: Any) -> RawConsumer:
    consumer = subscriber._subscriber.consumer
    assert isinstance(consumer, RawConsumer)
    return consumer


async def test_three_idle_consumers_are_quiet_and_an_event_is_fast(kafka: KafkaSettings, reading: Read) -> None:
    """The embedded broker answers empty fetches at once: unpaced, each consumer would spin at a full core."""
    settings = kafka.model_copy(update={"empty_fetch_pause_ms": 100, "linger_ms": 20})
    collectors = {name: Collector() for name in ("one", "two", "three")}
    topic = settings.topic_order_completed
    async with (
        reading(collectors["one"], settings=settings, name="one") as one,
        reading(collectors["two"], settings=settings, name="two") as two,
        reading(collectors["three"], settings=settings, name="three") as three,
    ):
        await until(lambda: one.process.reading and two.process.reading and three.process.reading)
        await asyncio.sleep(1)  # the pause has grown to its full length
        cpu, wall = time.process_time(), time.monotonic()
        await asyncio.sleep(3)
        share = (time.process_time() - cpu) / (time.monotonic() - wall)
        delays = []
        for number in range(5):
            await asyncio.sleep(0.5)
            sent_at = time.monotonic()
            await produce(settings, topic, [b"%d" % number], partition=0)
            await until(partial(_all_hold, list(collectors.values()), number + 1))
            delays += [collector.came_at[number] - sent_at for collector in collectors.values()]
    assert share < 0.10
    assert statistics.median(delays) < 0.5  # an unpaced or overlong pause moves all of them, a busy machine one


async def test_pacing_leaves_a_consumer_that_has_work_alone(kafka: KafkaSettings, reading: Read) -> None:
    """With the longest pause there is, a backlog is read without a pause between fetches."""
    settings = kafka.model_copy(update={"empty_fetch_pause_ms": 1000, "max_batch_records": 100})
    for _ in range(10):
        await produce(settings, settings.topic_order_completed, [b"x" * 100_000] * 20, partition=0)
    collector = Collector()
    async with reading(collector, settings=settings):
        await until(lambda: len(collector.values) == 200)
    assert collector.came_at[-1] - collector.came_at[0] < 10  # some 20 fetches: 20 s with a pause after each


async def test_everything_starts_without_kafka_and_recovers_by_itself(
    kafka: KafkaSettings, reading: Read, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port = free_port()
    settings = kafka.model_copy(update={"bootstrap_servers": f"127.0.0.1:{port}"})
    collector = Collector()
    async with reading(collector, settings=settings) as at_work:
        assert not await at_work.process.kafka_ready()
        async with kafka_server(tmp_path_factory.mktemp("late"), port=port):
            await create_topics(settings)
            await produce(settings, settings.topic_order_completed, [b"1"])
            await until(lambda: collector.values == [b"1"])
            assert await at_work.process.kafka_ready()
            assert at_work.fatal == []
            await at_work.process.stop()


async def test_a_stop_while_kafka_was_never_there_is_prompt(kafka: KafkaSettings, reading: Read) -> None:
    settings = kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    async with asyncio.timeout(20), reading(Collector(), settings=settings) as at_work:
        assert not at_work.process.reading


async def test_the_producer_recovers_after_its_broker_was_away(
    kafka: KafkaSettings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port, folder = free_port(), tmp_path_factory.mktemp("away")
    settings = kafka.model_copy(update={"bootstrap_servers": f"127.0.0.1:{port}"})
    producer = EventProducer(settings, ack_timeout_seconds=2)
    async with kafka_server(folder, port=port):
        assert await producer.ready()
    assert not await producer.ready()
    async with kafka_server(folder, port=port):
        await until_ready(producer)
        await producer.stop()


async def until_ready(producer: EventProducer) -> None:
    async with asyncio.timeout(20):
        while not await producer.ready():  # noqa: ASYNC110 - what is waited for happens on a server
            await asyncio.sleep(0.05)
