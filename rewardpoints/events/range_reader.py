"""Range reader: the records between two offsets of each partition, read without a group."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, UnknownTopicOrPartitionError

from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.replays import Bound, PartitionProgress
from rewardpoints.events.connection import client_options
from rewardpoints.events.raw_consumer import RawConsumer
from rewardpoints.events.records import Record, UndecodableRecord
from rewardpoints.events.salvage import salvage
from rewardpoints.settings import KafkaSettings

logger = structlog.get_logger(__name__)

POLL_MS: Final = 1000
STALLED_POLLS: Final = 2
"""Empty polls in a row after which the broker itself is asked: aiokafka also answers nothing while it is down."""


class RangeConsumer(RawConsumer):
    """A ``RawConsumer`` without a group: what it goes back to is what its user has noted in ``positions``."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(
            empty_fetch_pause_ms=settings.empty_fetch_pause_ms,
            on_broken=self._note_broken,
            **client_options(settings),
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=max(2 * settings.max_message_bytes, 1_048_576),
        )
        self.positions: dict[TopicPartition, int] = {}
        self._broken: Exception | None = None

    async def chunk(self, partition: TopicPartition, position: int) -> bytes:
        """The bytes of a partition from ``position`` on, straight from the broker."""
        return await self._chunk(partition, position)

    async def partitions_of(self, topic: str) -> list[int]:
        """The partitions of a topic. All topics are listed first: asking for one that is not there may create it.

        Raises:
            UnknownTopicOrPartitionError: there is no such topic.
        """
        if topic not in await self.topics():
            raise UnknownTopicOrPartitionError(f"there is no topic {topic}")
        await self._client.add_topic(topic)  # aiokafka has no public way without subscribing
        return sorted(self.partitions_for_topic(topic) or ())

    def check_whole(self) -> None:
        """Raise what ended a background task, if one has ended."""
        if self._broken is not None:
            raise KafkaError("the Kafka consumer broke down") from self._broken

    async def _rewind(self) -> None:
        for partition in self.assignment():
            self.seek(partition, self.positions[partition])

    def _note_broken(self, error: Exception) -> None:
        self._broken = error


class RangeReader:
    """Reads ranges of a topic's partitions, each record once, in order within its partition.

    Connects on entering its context. Records that the Kafka client cannot decode come as ``UndecodableRecord``.
    Nothing is committed and no group is touched. After a ``KafkaError`` from ``read``, read again.
    """

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self.topic = topic
        self._settings = settings
        self._consumer = RangeConsumer(settings)
        self._ends: dict[TopicPartition, int] = {}
        self._firsts: dict[TopicPartition, int] = {}
        self._empty_polls = 0
        self.gone = 0
        """Offsets of the ranges that retention deleted before they were read."""

    async def __aenter__(self) -> Self:
        try:
            await self._consumer.start()
        except BaseException:
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()

    async def ranges(self, begin: Bound, end: Bound, *, partition: int | None = None) -> tuple[PartitionProgress, ...]:
        """The offsets that hold every record from ``begin`` (included) to ``end`` (excluded), as they are now.

        By time a range may hold other records too: timestamps need not rise with offsets, so it reaches to the end of
        the partition, and whoever reads it looks at each timestamp.

        Raises:
            InvalidInput: offsets without a partition where there are several, an unknown partition, nothing in between.
            KafkaError: Kafka cannot be reached, or there is no such topic.
        """
        numbers = await self._consumer.partitions_of(self.topic)
        if partition is not None:
            if partition not in numbers:
                raise InvalidInput("partition", f"topic {self.topic} has no partition {partition}")
            numbers = [partition]
        if len(numbers) > 1 and (isinstance(begin, int) or isinstance(end, int)):
            raise InvalidInput("partition", "must be given with offsets: each partition counts its own")
        partitions = [TopicPartition(self.topic, number) for number in numbers]
        lows: Mapping[TopicPartition, int] = await self._consumer.beginning_offsets(partitions)
        highs: Mapping[TopicPartition, int] = await self._consumer.end_offsets(partitions)
        firsts = await self._firsts_of(begin, partitions, lows, highs)
        ranges = []
        for one in partitions:
            last = max(highs[one] if not isinstance(end, int) else min(end, highs[one]), lows[one])
            if end == "beginning":
                last = lows[one]
            first = min(max(firsts[one], lows[one]), last)
            ranges.append(PartitionProgress(partition=one.partition, first=first, end=last, position=first))
        return tuple(ranges)

    async def _firsts_of(
        self,
        begin: Bound,
        partitions: Sequence[TopicPartition],
        lows: Mapping[TopicPartition, int],
        highs: Mapping[TopicPartition, int],
    ) -> Mapping[TopicPartition, int]:
        if begin == "beginning":
            return lows
        if begin == "end":
            return highs
        if isinstance(begin, datetime):
            moment = int(begin.timestamp() * 1000)  # rather too early: whoever reads looks at each timestamp
            found = await self._consumer.offsets_for_times(dict.fromkeys(partitions, moment))
            return {one: found[one].offset if found.get(one) else highs[one] for one in partitions}
        return dict.fromkeys(partitions, begin)

    def assign(self, progress: Iterable[PartitionProgress]) -> None:
        """Read these ranges from their positions on."""
        ranges = {TopicPartition(self.topic, one.partition): one for one in progress}
        self._ends = {partition: one.end for partition, one in ranges.items()}
        self._firsts = {partition: one.first for partition, one in ranges.items()}
        self._consumer.positions = {partition: one.position for partition, one in ranges.items()}
        unread = [partition for partition in ranges if not self._is_done(partition)]
        if unread:
            self._consumer.assign(unread)
            for partition in unread:
                self._consumer.seek(partition, self._consumer.positions[partition])

    @property
    def progress(self) -> tuple[PartitionProgress, ...]:
        """The ranges, with the positions up to which ``read`` has handed records out."""
        positions = self._consumer.positions
        return tuple(
            PartitionProgress(
                partition=one.partition, first=self._firsts[one], end=self._ends[one], position=positions[one]
            )
            for one in sorted(positions)
        )

    async def read(self, max_records: int) -> Sequence[Record]:
        """The next records, or none when all ranges are read. Blocks until there is one or the other.

        Raises:
            KafkaError: Kafka cannot be read now; call again.
        """
        while any(not self._is_done(partition) for partition in self._ends):
            self._consumer.check_whole()
            try:
                found: Mapping[TopicPartition, Sequence[Record]] = await self._consumer.getmany(
                    timeout_ms=POLL_MS, max_records=max_records
                )
            except OffsetOutOfRangeError:
                await self._jump_over_deleted()
                continue
            if found:
                self._empty_polls = 0
            else:
                found = await self._asked_directly(max_records)
            records = self._within(found)
            await self._note_positions(found)
            if records:
                return records
        return []

    def _is_done(self, partition: TopicPartition) -> bool:
        return self._consumer.positions[partition] >= self._ends[partition]

    def _within(self, found: Mapping[TopicPartition, Sequence[Record]]) -> list[Record]:
        return [
            record
            for partition, records in found.items()
            for record in records
            if self._consumer.positions[partition] <= record.offset < self._ends[partition]
        ]

    async def _note_positions(self, found: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """Up to the client's own positions, which are past compacted and control records too."""
        positions = self._consumer.positions
        for partition in self._consumer.assignment():
            if self._is_done(partition):
                continue
            position = await self._consumer.position(partition)
            if partition in found:
                position = max(position, _after(found[partition][-1]))
            positions[partition] = min(max(position, positions[partition]), self._ends[partition])
            if self._is_done(partition):
                self._consumer.pause(partition)

    async def _asked_directly(self, max_records: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """Nothing, or after some empty polls what the broker has at the positions that are not done.

        Raises:
            KafkaError: it does not answer, or it has nothing where there should be something.
        """
        self._empty_polls += 1
        if self._empty_polls < STALLED_POLLS:
            return {}
        self._empty_polls = 0
        for partition in self._consumer.assignment():
            if self._is_done(partition):
                continue
            position = self._consumer.positions[partition]
            found = salvage(
                partition, await self._consumer.chunk(partition, position), position=position, max_records=max_records
            )
            if found.next_offset > position:
                self._consumer.seek(partition, found.next_offset)
                return {partition: found.records} if found.records else {}
            raise KafkaError(f"{self.topic}/{partition.partition} has no records from offset {position} on")
        return {}

    async def _jump_over_deleted(self) -> None:
        """On to the oldest records there are, counting what has gone."""
        unread = [partition for partition in self._ends if not self._is_done(partition)]
        lows: Mapping[TopicPartition, int] = await self._consumer.beginning_offsets(unread)
        for partition in unread:
            position = self._consumer.positions[partition]
            next_position = min(max(lows[partition], position), self._ends[partition])
            self.gone += next_position - position
            self._consumer.positions[partition] = next_position
            if self._is_done(partition):
                self._consumer.pause(partition)
            self._consumer.seek(partition, next_position)
        logger.warning("replay_records_gone", topic=self.topic, offsets=self.gone)


def _after(record: Any) -> int:
    return int(record.last_offset if isinstance(record, UndecodableRecord) else record.offset) + 1


def offsets_of(record: Record) -> int:
    """How many offsets a record stands for."""
    return _after(record) - record.offset
