"""The raw subscriber on a real broker: nothing is passed over, nothing is committed that was not handled."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.events.records import Headers, Record
from rewardpoints.settings import KafkaSettings
from rewardpoints.telemetry import Metrics
from tests.events.conftest import Read
from tests.events.wire import committed, metric, order_bytes, produce, until


class Handler:
    """Remembers what it was given; does what ``before`` says first."""

    def __init__(self) -> None:
        self.batches: list[list[Record]] = []
        self.tries = 0
        self.failures: list[Exception] = []
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    async def __call__(self, records: Sequence[Record]) -> None:
        self.tries += 1
        self.entered.set()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        if self.down:
            raise LedgerUnavailable("away")
        self.batches.append(list(records))

    @property
    def values(self) -> list[bytes | None]:
        return [record.value for batch in self.batches for record in batch]


async def test_all_records_arrive_in_batches_and_exactly_these_are_committed(
    kafka: KafkaSettings, reading: Read, metrics: Metrics
) -> None:
    for partition in range(3):
        await produce(kafka, kafka.topic_order_completed, [b"%d" % n for n in range(100)], partition=partition)
    handler = Handler()
    async with reading(handler, settings=kafka.model_copy(update={"max_batch_records": 70})) as at_work:
        await until(lambda: len(handler.values) == 300)
        group = at_work.subscriber.group
        assert await at_work.process.kafka_ready()
    assert max(len(batch) for batch in handler.batches) <= 70
    assert len(handler.batches) < 20
    assert await committed(kafka, group, kafka.topic_order_completed) == {0: 100, 1: 100, 2: 100}
    assert metric(metrics.registry, "records_read_total", topic=kafka.topic_order_completed) == 300


async def test_a_restart_goes_on_after_the_last_commit(kafka: KafkaSettings, reading: Read) -> None:
    await produce(kafka, kafka.topic_order_completed, [b"1", b"2"], partition=0)
    first, second = Handler(), Handler()
    async with reading(first):
        await until(lambda: len(first.values) == 2)
    await produce(kafka, kafka.topic_order_completed, [b"3"], partition=0)
    async with reading(second):
        await until(lambda: second.values)
    assert second.values == [b"3"]


UNREADABLE: list[tuple[str, Headers, bytes | None]] = [
    ("a header that is not UTF-8", (("tenant", b"acme"), ("trace", b"\xff\xfe")), order_bytes()),
    ("a header without a value", (("tenant", b"acme"), ("trace", None)), order_bytes()),
    ("JSON announced and broken", (("tenant", b"acme"), ("content-type", b"application/json")), b'{"id": '),
    ("no value", (), None),
]


async def test_records_the_framework_cannot_parse_reach_the_handler(kafka: KafkaSettings, reading: Read) -> None:
    handler = Handler()
    for _, headers, value in UNREADABLE:
        await produce(kafka, kafka.topic_order_completed, [b"before"], partition=0)
        await produce(kafka, kafka.topic_order_completed, [value], headers=headers, partition=0, key=b"k")
        await produce(kafka, kafka.topic_order_completed, [b"after"], partition=0)
    async with reading(handler, settings=kafka.model_copy(update={"max_batch_records": 5})) as at_work:
        await until(lambda: len(handler.values) == 12)
        group = at_work.subscriber.group
    unreadable = [record for batch in handler.batches for record in batch if record.key == b"k"]
    assert [(record.headers, record.value) for record in unreadable] == [
        (headers, value) for _, headers, value in UNREADABLE
    ]
    assert await committed(kafka, group, kafka.topic_order_completed) == {0: 12}


async def test_an_unexpected_error_ends_the_process_and_nothing_is_committed_past_it(
    kafka: KafkaSettings, reading: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"%d" % n for n in range(40)], partition=0)
    handler = Handler()
    handler.gate.clear()
    async with reading(handler, settings=kafka.model_copy(update={"max_batch_records": 10})) as at_work:
        await handler.entered.wait()
        handler.failures = [KeyError("a bug")]
        handler.gate.set()
        await until(lambda: at_work.fatal)
        await produce(kafka, topic, [b"later"], partition=0)
        group = at_work.subscriber.group
    assert [type(error) for error in at_work.fatal] == [KeyError]
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "batch_failed_for_good" in line]
    assert "begins_at=['0/0']" in told
    assert handler.batches == []
    assert await committed(kafka, group, topic) == {}

    async with reading(handler):  # the restarted process
        await until(lambda: len(handler.values) == 41)
    assert handler.values == [*(b"%d" % n for n in range(40)), b"later"]


async def test_a_ledger_outage_is_waited_for_in_place(kafka: KafkaSettings, reading: Read, metrics: Metrics) -> None:
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"1", b"2"], partition=0)
    handler = Handler()
    handler.down = True
    async with reading(handler) as at_work:
        await until(lambda: handler.tries >= 3)
        assert await committed(kafka, at_work.subscriber.group, topic) == {}
        handler.down = False
        await until(lambda: len(handler.values) == 2)
        group = at_work.subscriber.group
    assert handler.values == [b"1", b"2"]
    assert at_work.fatal == []
    assert await committed(kafka, group, topic) == {0: 2}
    assert metric(metrics.registry, "batch_retries_total", topic=topic) >= 2


async def test_an_outage_costs_no_membership_however_long_it_is(
    kafka: KafkaSettings, reading: Read, metrics: Metrics
) -> None:
    """Where every worker waits for the ledger, handing partitions from one to the next would help nobody."""
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"1"], partition=0)
    handler = Handler()
    handler.down = True
    short = kafka.model_copy(update={"max_poll_interval_ms": 500, "session_timeout_ms": 6000})
    async with reading(handler, settings=short, retry_max_seconds=60) as at_work:
        await until(lambda: handler.tries)
        coordinator: Any = at_work.subscriber._consumer._coordinator
        member, since = (coordinator.member_id, coordinator.generation), time.monotonic()
        await until(lambda: time.monotonic() > since + 3)  # a heartbeat a second shows aiokafka how long it has been
        assert (coordinator.member_id, coordinator.generation) == member
        handler.down = False
        await until(lambda: _commits(metrics, topic) == 1)
        group = at_work.subscriber.group
    assert handler.values == [b"1"]
    assert metric(metrics.registry, "commits_failed_total", topic=topic) == 0
    assert await committed(kafka, group, topic) == {0: 1}


async def test_a_single_try_that_outlasts_the_membership_is_survived(
    kafka: KafkaSettings, reading: Read, metrics: Metrics
) -> None:
    """After ``max_poll_interval_ms`` aiokafka leaves the group and joins again at the next poll."""
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"1"], partition=0)
    handler = Handler()
    handler.gate.clear()
    short = kafka.model_copy(update={"max_poll_interval_ms": 500, "session_timeout_ms": 6000})
    async with reading(handler, settings=short) as at_work:
        await until(lambda: handler.tries)
        subscriber: Any = at_work.subscriber._subscriber
        await until(lambda: subscriber.consumer._coordinator.generation < 0)  # a member no more
        handler.gate.set()
        await until(lambda: handler.values)
        await produce(kafka, topic, [b"2"], partition=0)
        await until(lambda: b"2" in handler.values and _commits(metrics, topic) >= 1)
        group = at_work.subscriber.group
    assert at_work.fatal == []
    assert set(handler.values) == {b"1", b"2"}
    assert await committed(kafka, group, topic) == {0: 2}


async def test_one_by_one_a_retry_repeats_one_record(kafka: KafkaSettings, reading: Read) -> None:
    await produce(kafka, kafka.topic_order_completed, [b"1", b"2", b"3"], partition=0)
    handler = Handler()
    handler.gate.clear()
    async with reading(handler, one_by_one=True) as at_work:
        await handler.entered.wait()
        handler.gate.set()
        await until(lambda: handler.batches)
        handler.failures = [LedgerUnavailable("away")]
        await until(lambda: len(handler.values) == 3)
        group = at_work.subscriber.group
    assert handler.values == [b"1", b"2", b"3"]
    assert await committed(kafka, group, kafka.topic_order_completed) == {0: 3}


async def test_a_stop_finishes_and_commits_the_batch_in_flight(kafka: KafkaSettings, reading: Read) -> None:
    await produce(kafka, kafka.topic_order_completed, [b"1", b"2"], partition=0)
    handler = Handler()
    handler.gate.clear()
    async with reading(handler) as at_work:
        await handler.entered.wait()
        stop = asyncio.create_task(at_work.process.stop())
        await until(lambda: not at_work.process.reading)
        handler.gate.set()
        await stop
        group = at_work.subscriber.group
    assert handler.values == [b"1", b"2"]
    assert await committed(kafka, group, kafka.topic_order_completed) == {0: 2}


async def test_a_stop_during_an_outage_is_prompt_and_commits_nothing(kafka: KafkaSettings, reading: Read) -> None:
    await produce(kafka, kafka.topic_order_completed, [b"1"], partition=0)
    handler = Handler()
    handler.down = True
    async with reading(handler, retry_max_seconds=60) as at_work:
        await until(lambda: handler.tries >= 2)
        async with asyncio.timeout(20):  # a wait for the next try takes up to a minute
            await at_work.process.stop()
        group = at_work.subscriber.group
    assert await committed(kafka, group, kafka.topic_order_completed) == {}


async def test_a_batch_of_partitions_lost_meanwhile_is_not_committed_and_comes_again(
    kafka: KafkaSettings, reading: Read, metrics: Metrics
) -> None:
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"1"], partition=0)
    handler = Handler()
    handler.gate.clear()
    async with reading(handler) as at_work:
        await handler.entered.wait()
        group = at_work.subscriber.group
        # Another member joins while the batch is in hand: the generation it was read in is over.
        async with AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap_servers, group_id=group) as other:
            assert other.assignment()
            handler.gate.set()
            await until(
                lambda: metric(metrics.registry, "commits_failed_total", topic=topic) + _commits(metrics, topic)
            )
        await produce(kafka, topic, [b"2"], partition=1)
        await until(lambda: b"2" in handler.values)
    assert at_work.fatal == []
    assert set(handler.values) == {b"1", b"2"}


async def test_what_another_member_took_over_is_tried_no_more(kafka: KafkaSettings, reading: Read) -> None:
    """It is the other's now, who may be done with it: lots added again would come after a look at them."""
    topic = kafka.topic_order_completed
    for partition in range(3):
        await produce(kafka, topic, [b"1"], partition=partition)
    tried: list[set[int]] = []

    async def fail(records: Sequence[Record]) -> None:
        tried.append({record.partition for record in records})
        raise LedgerUnavailable("gone")

    async with reading(fail) as at_work:
        await until(lambda: set().union(*tried) == {0, 1, 2})
        group = at_work.subscriber.group
        async with AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap_servers, group_id=group) as other:
            theirs = {partition.partition for partition in other.assignment()}
            assert theirs
            began = len(tried)
            await until(lambda: len(tried) >= began + 5 and theirs.isdisjoint(set().union(*tried[-5:])))
    assert at_work.fatal == []


def _commits(metrics: Metrics, topic: str) -> float:
    return metric(metrics.registry, "commits_total", topic=topic)


async def test_two_members_share_a_topic(kafka: KafkaSettings, reading: Read) -> None:
    topic = kafka.topic_order_completed
    one, two = Handler(), Handler()
    async with reading(one), reading(two) as at_work:
        await until(lambda: at_work.process.reading)
        for partition in range(3):
            await produce(kafka, topic, [b"%d-%d" % (partition, n) for n in range(50)], partition=partition)
        await until(lambda: len(set(one.values + two.values)) == 150)
        await until(lambda: one.values and two.values)
        group = at_work.subscriber.group
    assert await committed(kafka, group, topic) == {0: 50, 1: 50, 2: 50}
