"""A Kafka consumer that loses no record when reading fails half-way, and that is quiet while there is nothing."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    CorruptRecordException,
    KafkaError,
    NoError,
    UnsupportedCodecError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest

from rewardpoints.events.lost_connections import tell_lost_connections
from rewardpoints.events.paced_fetches import pace_empty_fetches
from rewardpoints.events.records import Record
from rewardpoints.events.salvage import salvage

logger = structlog.get_logger(__name__)

IDLE_WAIT_MS: Final = 1000
"""Least time an empty poll waits. Records end the wait at once, so this costs no latency."""

REWIND_TIMEOUT_SECONDS: Final = 30.0
SALVAGE_TIMEOUT_SECONDS: Final = 60.0
LEAVE_TIMEOUT_SECONDS: Final = 5.0
"""How long a stop waits for a rebalance under way, and once more for the connections to close."""
_FETCH_WAIT_MS: Final = 100
_DECODING: Final = (CorruptRecordException, UnsupportedCodecError)
"""Errors of Kafka's that may be about what a record or a batch holds, besides those that are not of Kafka."""


class ConsumerBroken(Exception):
    """A background task of the consumer has ended; it will never deliver another record."""


class RawConsumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka ships no types
    """``AIOKafkaConsumer`` with seven differences.

    * When ``getmany`` fails, records of other partitions may have been taken and dropped with their positions moved
      on (aiokafka's ``Fetcher.fetched_records``), and a record larger than the fetch size is stepped over. Before the
      next read every position goes back to what is committed, which is exactly what was handled.
    * aiokafka decodes header names and decompresses batches while it hands records out, and stops for good at what it
      cannot. Such a place is read again by ``salvage``, and an ``UndecodableRecord`` handed out for what is lost.
    * ``commit`` may go on beside reading: going back waits for it.
    * An empty poll waits for at least ``IDLE_WAIT_MS``: FastStream sleeps after each empty poll, records or not.
    * ``stop`` is bounded: aiokafka's waits for a rebalance under way, which takes as long as other members like.
    * A write to a connection that is gone is a ``KafkaError`` (see ``lost_connections``), not the consumer's end.
    * With ``empty_fetch_pause_ms`` > 0 empty fetches are paced (see ``paced_fetches``).

    ``on_broken`` is called, once, when a background task has died and only a restart can help.
    """

    def __init__(
        self, *topics: str, empty_fetch_pause_ms: int, on_broken: Callable[[Exception], None], **options: Any
    ) -> None:
        super().__init__(*topics, **options)
        self._on_broken = on_broken
        self._must_rewind = False
        self._committing = asyncio.Lock()
        tell_lost_connections(self._client)
        if empty_fetch_pause_ms:
            pace_empty_fetches(self._client, pause_seconds=empty_fetch_pause_ms / 1000)

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, Sequence[Record]]:
        """As aiokafka's, but blocks for at least ``IDLE_WAIT_MS`` while there is nothing.

        Raises:
            KafkaError: reading failed; nothing is lost, call again.
        """
        try:
            if self._must_rewind:
                async with asyncio.timeout(REWIND_TIMEOUT_SECONDS):
                    await self._rewind()
                self._must_rewind = False
            records: dict[TopicPartition, Sequence[Record]] = await super().getmany(
                *partitions, timeout_ms=max(timeout_ms, IDLE_WAIT_MS), max_records=max_records
            )
        except ConsumerStoppedError:
            raise
        except Exception as error:
            self._must_rewind = True
            self._check_alive()
            if isinstance(error, KafkaError) and not isinstance(error, _DECODING):
                raise
            return await self._salvaged(error, max_records)
        if not records:
            self._check_alive()
        return records

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """As aiokafka's. It may go on beside ``getmany``, which goes back to nothing before it is through."""
        async with self._committing:
            await super().commit(offsets)

    async def stop(self) -> None:
        """Leave the group and disconnect, within twice ``LEAVE_TIMEOUT_SECONDS``."""
        leaving = asyncio.create_task(super().stop())  # waited for, not timed out: aiokafka may swallow a cancellation
        done, _ = await asyncio.wait([leaving], timeout=LEAVE_TIMEOUT_SECONDS)
        if done:
            leaving.result()
            return
        logger.warning("kafka_group_left_in_haste", group=self._group_id)
        hanging_up = asyncio.create_task(self._hang_up())
        done, late = await asyncio.wait([leaving, hanging_up], timeout=LEAVE_TIMEOUT_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*done, return_exceptions=True)  # what fails in closing is of no interest any more

    async def _hang_up(self) -> None:
        for task in (self._coordinator._coordination_task, self._coordinator._heartbeat_task):  # noqa: SLF001 - no public way
            if task is not None:
                task.cancel()
        await self._coordinator._stop_commit_offsets_refresh_task()  # noqa: SLF001 - as above
        await self._fetcher.close()
        await self._client.close()

    def stay_in_group(self) -> None:
        """Say that the records handed out are being worked on: ``max_poll_interval_ms`` counts from now."""
        with self._subscription.fetch_context():
            pass

    def read_again(self) -> None:
        """Hand out again, from the next read on, everything that is not committed."""
        self._must_rewind = True

    async def _salvaged(self, error: Exception, max_records: int | None) -> dict[TopicPartition, Sequence[Record]]:
        """The records from the committed offset on of a partition that aiokafka cannot read.

        Raises:
            KafkaError: there is none, or it cannot be told now. FastStream rests after a ``KafkaError`` only; after
                anything else it calls again at once, for ever.
        """
        try:
            async with asyncio.timeout(SALVAGE_TIMEOUT_SECONDS):
                await self._rewind()
                for partition in self.assignment():
                    position = await self.position(partition)
                    chunk = await self._chunk(partition, position)
                    found = salvage(partition, chunk, position=position, max_records=max_records)
                    if found.broken:
                        self.seek(partition, found.next_offset)
                        self._must_rewind = False
                        return {partition: found.records}
        except (KafkaError, ConsumerStoppedError):
            raise
        except Exception as failure:
            raise KafkaError(f"salvaging after {type(error).__name__} failed") from failure
        raise KafkaError(f"reading failed, and no record is to blame: {type(error).__name__}") from error

    async def _chunk(self, partition: TopicPartition, position: int) -> bytes:
        """The bytes of a partition from the batch on that holds ``position``, as many as a fetch brings."""
        node = self._client.cluster.leader_for_partition(partition)
        size = self._max_partition_fetch_bytes
        wanted = [(partition.topic, [(partition.partition, position, size)])]
        response = await self._client.send(node, FetchRequest(_FETCH_WAIT_MS, 1, size, 0, wanted))
        ((_, ((_, error_code, *_, chunk),)),) = response.topics
        error = for_code(error_code)
        if error is not NoError:
            raise error(partition)
        return chunk or b""

    async def _rewind(self) -> None:
        """Every assigned partition back to its committed offset; aiokafka's ``seek_to_committed`` skips offset 0."""
        async with self._committing:  # what is being committed was handled
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
