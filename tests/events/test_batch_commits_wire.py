"""Commits beside the next batch, on a real broker: in order, waited for where they must be, harmless when they fail."""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError, IllegalStateError, RequestTimedOutError

from rewardpoints.events.raw_consumer import RawConsumer
from rewardpoints.events.records import Record
from rewardpoints.settings import KafkaSettings
from rewardpoints.telemetry import Metrics
from tests.events.conftest import Read
from tests.events.wire import committed, metric, produce, until


class Handler:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []

    async def __call__(self, records: Sequence[Record]) -> None:
        self.values += [record.value for record in records]

    def holds(self, count: int) -> bool:
        return len(self.values) == count


async def test_a_commit_that_fails_is_counted_and_harmless(
    kafka: KafkaSettings, reading: Read, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = kafka.topic_order_completed
    commit = RawConsumer.commit
    failures: list[Exception] = [CommitFailedError(), IllegalStateError("not assigned"), ValueError("anything else")]

    async def failing(self: RawConsumer, offsets: Any) -> None:
        if failures:
            raise failures.pop(0)
        await commit(self, offsets)

    monkeypatch.setattr(RawConsumer, "commit", failing)
    handler = Handler()
    async with reading(handler) as at_work:
        for number in range(4):
            await produce(kafka, topic, [b"%d" % number], partition=0)
            await until(partial(handler.holds, number + 1))
        await until(lambda: metric(metrics.registry, "commits_total", topic=topic) == 1)
        group = at_work.subscriber.group
    assert metric(metrics.registry, "commits_failed_total", topic=topic) == 3
    assert at_work.fatal == []
    assert await committed(kafka, group, topic) == {0: 4}


class HeldCommits:
    """Commits of aiokafka's that are sent when the test says so, one after another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self._may_go = asyncio.Semaphore(0)
        commit = AIOKafkaConsumer.commit

        async def held(consumer: AIOKafkaConsumer, offsets: dict[Any, int]) -> None:
            self.begun.extend(offsets.values())
            await self._may_go.acquire()
            await commit(consumer, offsets)
            self.ended.extend(offsets.values())

        monkeypatch.setattr(AIOKafkaConsumer, "commit", held)

    def let_go(self, count: int = 1) -> None:
        for _ in range(count):
            self._may_go.release()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> HeldCommits:
    return HeldCommits(monkeypatch)


async def _is_held_up(stopping: asyncio.Task[None]) -> bool:
    await asyncio.wait([stopping], timeout=0.5)
    return not stopping.done()


async def test_a_stop_waits_for_the_commit_under_way(kafka: KafkaSettings, reading: Read, commits: HeldCommits) -> None:
    topic = kafka.topic_order_completed
    handler = Handler()
    async with reading(handler) as at_work:
        await produce(kafka, topic, [b"0"], partition=0)
        await until(lambda: commits.begun == [1])
        stopping = asyncio.create_task(at_work.process.stop())
        assert await _is_held_up(stopping)
        commits.let_go()
        await stopping
        assert commits.ended == [1]


async def test_a_slow_commit_does_not_hold_up_the_next_batch_and_the_next_commit_waits_for_it(
    kafka: KafkaSettings, reading: Read, commits: HeldCommits
) -> None:
    topic = kafka.topic_order_completed
    handler = Handler()
    async with reading(handler) as at_work:
        for number in range(2):
            await produce(kafka, topic, [b"%d" % number], partition=0)
            await until(partial(handler.holds, number + 1))
        group = at_work.subscriber.group
        stopping = asyncio.create_task(at_work.process.stop())
        assert await _is_held_up(stopping)
        assert commits.begun == [1]
        commits.let_go()
        await until(lambda: commits.begun == [1, 2])
        assert await _is_held_up(stopping)
        commits.let_go()
        await stopping
        assert commits.ended == [1, 2]
    assert await committed(kafka, group, topic) == {0: 2}


async def test_going_back_waits_for_the_commit_under_way(
    kafka: KafkaSettings, reading: Read, commits: HeldCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = kafka.topic_order_completed
    getmany = AIOKafkaConsumer.getmany
    failures: list[Exception] = []

    async def failing(self: AIOKafkaConsumer, *partitions: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return await getmany(self, *partitions, **options)

    going_back = asyncio.Event()
    rewind = RawConsumer._rewind

    async def noted(self: RawConsumer) -> None:
        going_back.set()
        await rewind(self)

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", failing)
    monkeypatch.setattr(RawConsumer, "_rewind", noted)
    handler = Handler()
    async with reading(handler) as at_work:
        await produce(kafka, topic, [b"0"], partition=0)
        await until(lambda: commits.begun == [1])
        failures.append(RequestTimedOutError())
        await until(going_back.is_set)
        await produce(kafka, topic, [b"1"], partition=0)
        with contextlib.suppress(TimeoutError):  # who does not wait has gone back, and has read both again
            async with asyncio.timeout(0.5):
                await until(partial(handler.holds, 2))
        commits.let_go(2)
        await until(partial(handler.holds, 2))
        await until(lambda: commits.ended == [1, 2])
    assert at_work.fatal == []
    assert handler.values == [b"0", b"1"]
