"""Commits of what was handled, one at a time and in order, while the next batch is read and handled."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from aiokafka import TopicPartition

from rewardpoints.events.records import Record, UndecodableRecord
from rewardpoints.telemetry import Metrics

logger = structlog.get_logger(__name__)

COMMIT_TIMEOUT_SECONDS: Final = 10.0


class BatchCommits:
    """A subscriber's commits of a topic. A broker takes its time for one, which the next batch need not wait for.

    One that fails is counted and logged, and nothing else: the records come again, and are applied once. aiokafka may
    still carry out one that was given up, also after a later one; that too only means that records come again.
    """

    def __init__(self, topic: str, metrics: Metrics) -> None:
        self._topic = topic
        self._metrics = metrics
        self._under_way: asyncio.Task[None] | None = None
        for counter in (metrics.commits, metrics.commits_failed):
            counter.labels(topic)

    async def begin(self, consumer: Any, handled: Sequence[Record]) -> None:
        """Begin to commit up to the last of each partition; waits for the commit before, which could undo this one."""
        await self.settled()
        if consumer is None or not handled:
            return
        lasts = {TopicPartition(record.topic, record.partition): record for record in handled}
        offsets = {
            partition: (last.last_offset if isinstance(last, UndecodableRecord) else last.offset) + 1
            for partition, last in lasts.items()
        }
        self._under_way = asyncio.create_task(self._commit(consumer, offsets))

    async def settled(self) -> None:
        """Until the commit now under way has ended or was given up, after ``COMMIT_TIMEOUT_SECONDS`` at most."""
        if self._under_way is not None:
            await asyncio.wait([self._under_way])

    async def _commit(self, consumer: Any, handled: Mapping[TopicPartition, int]) -> None:
        assigned = consumer.assignment()  # aiokafka refuses the whole commit when one of it is not
        offsets = {partition: offset for partition, offset in handled.items() if partition in assigned}
        if not offsets:  # all were taken over by another member meanwhile
            self._metrics.commits_failed.labels(self._topic).inc()
            return
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_SECONDS):
                await consumer.commit(offsets)
        except Exception as error:  # noqa: BLE001 - whatever failed, the records come again and are applied once
            self._metrics.commits_failed.labels(self._topic).inc()
            logger.warning("commit_failed", topic=self._topic, error=type(error).__name__)
        else:
            self._metrics.commits.labels(self._topic).inc()
