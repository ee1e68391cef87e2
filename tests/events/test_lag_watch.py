"""How far a consumer is behind, as it says itself: instant by instant on a stand-in, and on a broker."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from rewardpoints.events import lag_watch
from rewardpoints.events.lag_watch import LagWatch
from rewardpoints.events.records import Record
from rewardpoints.settings import KafkaSettings
from rewardpoints.telemetry import Metrics
from tests.events.conftest import Read
from tests.events.wire import FakeRecord, produce, until

TOPIC = "orders"
START = datetime(2026, 5, 1, 12, tzinfo=UTC)


class StandIn:
    """A consumer at known positions of a topic of four partitions."""

    def __init__(self, positions: dict[int, int], ends: dict[int, int]) -> None:
        self.positions = positions
        self.ends = ends
        self.down = False

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(TopicPartition(TOPIC, number) for number in self.positions)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self.down:
            raise KafkaConnectionError("away")
        return {one: self.ends[one.partition] for one in partitions}

    async def position(self, one: TopicPartition) -> int:
        return self.positions[one.partition]

    def partitions_for_topic(self, topic: str) -> set[int]:
        assert topic == TOPIC
        return {0, 1, 2, 3}


class Watching:
    """A watch whose clock is moved by hand."""

    def __init__(self) -> None:
        self.now = START
        self.metrics = Metrics()
        self.watch = LagWatch(TOPIC, self.metrics, lambda: self.now)

    def shown(self, name: str, partition: int) -> float | None:
        labels = {"topic": TOPIC, "partition": str(partition)}
        return self.metrics.registry.get_sample_value(f"rewardpoints_lag_{name}", labels)

    def lag(self, partition: int) -> tuple[float | None, float | None]:
        return self.shown("records", partition), self.shown("seconds", partition)


@pytest.fixture
def watching() -> Watching:
    return Watching()


def record(offset: int, *, age: timedelta = timedelta(), partition: int = 0) -> FakeRecord:
    written = START - age
    return FakeRecord(b"", topic=TOPIC, partition=partition, offset=offset, timestamp=int(written.timestamp() * 1000))


async def test_a_batch_in_hand_waits_since_its_first_record_was_written(watching: Watching) -> None:
    consumer = StandIn({0: 10}, {0: 30})
    watching.watch.take([record(5, age=timedelta(minutes=7)), record(9, age=timedelta(minutes=2))])
    watching.now += timedelta(seconds=30)  # retried all the time
    await watching.watch.look(consumer)
    assert watching.lag(0) == (25, 7 * 60 + 30)
    watching.watch.through([record(5, age=timedelta(minutes=7))])
    await watching.watch.look(consumer)
    assert watching.shown("records", 0) == 24
    watching.watch.let_go()
    await watching.watch.look(consumer)
    assert watching.shown("records", 0) == 20


async def test_what_came_after_a_quiet_time_is_no_older_than_that_time(watching: Watching) -> None:
    consumer = StandIn({0: 10}, {0: 10})
    watching.watch.take([record(9, age=timedelta(hours=3))])
    watching.watch.through([record(9, age=timedelta(hours=3))])
    watching.watch.let_go()
    await watching.watch.look(consumer)
    assert watching.lag(0) == (0, 0)
    watching.now += timedelta(hours=5)
    await watching.watch.look(consumer)
    watching.now += timedelta(seconds=15)
    consumer.ends[0] = 12
    await watching.watch.look(consumer)
    assert watching.lag(0) == (2, 15)


async def test_an_age_that_cannot_be_known_yet_is_not_shown(watching: Watching) -> None:
    await watching.watch.look(StandIn({0: 0}, {0: 5}))
    assert watching.lag(0) == (5, None)


async def test_markers_of_transactions_are_no_lag(watching: Watching) -> None:
    watching.watch.take([record(9)])
    watching.watch.through([record(9)])
    watching.watch.let_go()
    await watching.watch.look(StandIn({0: 11}, {0: 11}))  # the client passes over the marker at 10 by itself
    assert watching.lag(0) == (0, 0)


async def test_a_partition_that_is_taken_away_is_shown_no_more(watching: Watching) -> None:
    await watching.watch.look(StandIn({0: 1, 3: 1}, {0: 1, 3: 1}))
    assert watching.lag(3) == (0, 0)
    await watching.watch.look(StandIn({0: 1}, {0: 1}))
    assert (watching.lag(0), watching.lag(3)) == ((0, 0), (None, None))
    assert watching.metrics.registry.get_sample_value("rewardpoints_topic_partitions", {"topic": TOPIC}) == 4
    await watching.watch.look(StandIn({}, {}))
    assert watching.lag(0) == (None, None)


async def test_a_look_that_fails_changes_no_figure_and_ends_nothing(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag_watch, "LOOK_EVERY_SECONDS", 0.01)
    consumer, stopping = StandIn({0: 10}, {0: 30}), asyncio.Event()
    running = asyncio.create_task(watching.watch.run(consumer, stopping))
    await until(lambda: watching.shown("records", 0) == 20)
    consumer.down, consumer.ends[0] = True, 31
    await asyncio.sleep(0.05)
    assert (watching.shown("records", 0), running.done()) == (20, False)
    consumer.down = False
    await until(lambda: watching.shown("records", 0) == 21)
    stopping.set()
    await running


async def test_a_process_shows_how_far_it_is_behind(
    kafka: KafkaSettings, reading: Read, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag_watch, "LOOK_EVERY_SECONDS", 0.05)
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"%d" % n for n in range(40)], partition=1)

    def lag(partition: int) -> float | None:
        labels = {"topic": topic, "partition": str(partition)}
        return metrics.registry.get_sample_value("rewardpoints_lag_records", labels)

    gate = asyncio.Event()

    async def handle(_records: Sequence[Record]) -> None:
        await gate.wait()

    async with reading(handle, settings=kafka.model_copy(update={"max_batch_records": 10})):
        await until(lambda: lag(1) == 40)
        await produce(kafka, topic, [b"more"], partition=1)
        await until(lambda: lag(1) == 41)
        assert [lag(0), lag(2)] == [0, 0]
        age = metrics.registry.get_sample_value("rewardpoints_lag_seconds", {"topic": topic, "partition": "1"})
        assert age is not None
        assert 0 < age < 300
        gate.set()
        await until(lambda: lag(1) == 0)
    assert metrics.registry.get_sample_value("rewardpoints_topic_partitions", {"topic": topic}) == 3
