"""A Kafka consumer that loses no record when reading fails half-way, and that is quiet while there is nothing."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError

from rewardpoints.events.paced_fetches import pace_empty_fetches

IDLE_WAIT_MS: Final = 1000
"""Least time an empty poll waits. Records end the wait at once, so this costs no latency."""

REWIND_TIMEOUT_SECONDS: Final = 30.0


class ConsumerBroken(Exception):
    """A background task of the consumer has ended; it will never deliver another record."""


class RawConsumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka ships no types
    """``AIOKafkaConsumer`` with three differences.

    * When ``getmany`` fails, records of other partitions may have been taken and dropped with their positions moved
      on (aiokafka's ``Fetcher.fetched_records``), and a record larger than the fetch size is stepped over. Before the
      next read every position goes back to what is committed, which is exactly what was handled.
    * An empty poll waits for at least ``IDLE_WAIT_MS``: FastStream sleeps after each empty poll, records or not.
    * With ``empty_fetch_pause_ms`` > 0 empty fetches are paced (see ``paced_fetches``).

    ``on_broken`` is called, once, when a background task has died and only a restart can help.
    """

    def __init__(
        self, *topics: str, empty_fetch_pause_ms: int, on_broken: Callable[[Exception], None], **options: Any
    ) -> None:
        super().__init__(*topics, **options)
        self._on_broken = on_broken
        self._must_rewind = False
        if empty_fetch_pause_ms:
            pace_empty_fetches(self._client, pause_seconds=empty_fetch_pause_ms / 1000)

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """As aiokafka's, but blocks for at least ``IDLE_WAIT_MS`` while there is nothing.

        Raises:
            KafkaError: reading failed; nothing is lost, call again.
        """
        try:
            if self._must_rewind:
                async with asyncio.timeout(REWIND_TIMEOUT_SECONDS):
                    await self._rewind()
                self._must_rewind = False
            records: dict[TopicPartition, list[ConsumerRecord]] = await super().getmany(
                *partitions, timeout_ms=max(timeout_ms, IDLE_WAIT_MS), max_records=max_records
            )
        except ConsumerStoppedError:
            raise
        except Exception:
            self._must_rewind = True
            self._check_alive()
            raise
        if not records:
            self._check_alive()
        return records

    async def _rewind(self) -> None:
        """Every assigned partition back to its committed offset; aiokafka's ``seek_to_committed`` skips offset 0."""
        for partition in self.assignment():
            committed = await self.committed(partition)
            if committed is None:
                await self.seek_to_beginning(partition)
            else:
                self.seek(partition, committed)

    def _check_alive(self) -> None:
        # aiokafka shows neither task publicly, and a consumer without them waits for records for ever
        tasks = (
            getattr(self._fetcher, "_fetch_task", None),
            getattr(self._coordinator, "_coordination_task", None),
        )
        if self._closed or not any(task is not None and task.done() for task in tasks):
            return
        self._on_broken(ConsumerBroken("a background task of the Kafka consumer ended"))
