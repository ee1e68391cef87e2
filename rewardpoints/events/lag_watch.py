"""Lag watch: how far one consumer is behind on each of its partitions, kept as metrics from inside the process."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog
from aiokafka import TopicPartition

from rewardpoints.domain.ports import Clock
from rewardpoints.events.records import Record
from rewardpoints.events.waiting import pause
from rewardpoints.telemetry import Metrics

logger = structlog.get_logger(__name__)

LOOK_EVERY_SECONDS: Final = 15.0
LOOK_TIMEOUT_SECONDS: Final = 10.0


class LagWatch:
    """Keeps ``lag_records``, ``lag_seconds`` and ``topic_partitions`` of the topic one consumer reads.

    A look costs one request to each broker that leads a partition. What is waiting is counted from the first record
    that is not handled yet, so a batch that is retried counts. Its age is exact while its batch is in hand; between
    batches it is the age of the record before it or the time since nothing waited, whichever is less: the record that
    waits is hardly older. A partition that is taken away is shown no more; whoever has it now shows it.
    """

    def __init__(self, topic: str, metrics: Metrics, clock: Clock) -> None:
        self._topic = topic
        self._metrics = metrics
        self._clock = clock
        self._next: dict[int, int] = {}  # offset of the first record in hand that is not handled
        self._written: dict[int, float] = {}  # when what is next was written, at the earliest
        self._shown: set[int] = set()
        self._failing = False

    def take(self, records: Sequence[Record]) -> None:
        """These are in hand now."""
        for partition, first in {record.partition: record for record in reversed(records)}.items():
            self._next[partition] = first.offset
            self._written[partition] = first.timestamp / 1000

    def through(self, records: Sequence[Record]) -> None:
        """Of those in hand these are handled, in the order of their offsets."""
        for partition, last in {record.partition: record for record in records}.items():
            self._next[partition] = last.offset + 1
            self._written[partition] = last.timestamp / 1000

    def let_go(self) -> None:
        """Nothing is in hand any more: what comes next is where the consumer stands."""
        self._next.clear()

    async def run(self, consumer: Any, stopping: asyncio.Event) -> None:
        """Look every 15 seconds until ``stopping`` is set. A look that fails leaves the figures as they were."""
        while not stopping.is_set():
            try:
                async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                    await self.look(consumer)
                self._failing = False
            except Exception as error:  # noqa: BLE001 - a figure must never end the consumption it is about
                if not self._failing:
                    logger.warning("lag_unknown", topic=self._topic, error=type(error).__name__)
                self._failing = True
            await pause(LOOK_EVERY_SECONDS, stopping)

    async def look(self, consumer: Any) -> None:
        """Set the figures once.

        Raises:
            KafkaError: Kafka does not answer; nothing was changed.
        """
        looked_at = self._clock().timestamp()
        assigned: list[TopicPartition] = sorted(consumer.assignment())
        ends = await consumer.end_offsets(assigned) if assigned else {}
        positions = {one: await consumer.position(one) for one in assigned}
        for one in assigned:
            waiting = max(ends[one] - self._next.get(one.partition, positions[one]), 0)
            self._show(one.partition, waiting, looked_at)
        for partition in self._shown - {one.partition for one in assigned}:
            self._forget(partition)
        self._metrics.topic_partitions.labels(self._topic).set(len(consumer.partitions_for_topic(self._topic) or ()))

    def _show(self, partition: int, waiting: int, looked_at: float) -> None:
        if not waiting:
            self._written[partition] = max(looked_at, self._written.get(partition, looked_at))
        written = self._written.get(partition)
        labels = (self._topic, str(partition))
        self._shown.add(partition)
        self._metrics.lag_records.labels(*labels).set(waiting)
        if written is not None:
            self._metrics.lag_seconds.labels(*labels).set(max(looked_at - written, 0) if waiting else 0)

    def _forget(self, partition: int) -> None:
        self._shown.discard(partition)
        self._written.pop(partition, None)
        for gauge in (self._metrics.lag_records, self._metrics.lag_seconds):
            gauge.remove(self._topic, str(partition))
