"""Looking into a topic by hand, without a group: what an operator, or somebody trying the service out, reads."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from rewardpoints.domain.errors import RecordRejected
from rewardpoints.domain.instants import format_instant
from rewardpoints.events.connection import client_options
from rewardpoints.events.records import Record, published_at
from rewardpoints.settings import KafkaSettings

KAFKA_ERRORS: Final = (KafkaError, OSError)
"""What a client of Kafka raises when the cluster cannot be reached or refuses."""

POLL_MS: Final = 500
EMPTY_POLLS: Final = 20
"""Polls without a record until what was promised by the end offsets is given up: compaction may have removed it."""


async def last_records(settings: KafkaSettings, topic: str, count: int) -> Sequence[Record]:
    """The newest ``count`` records of a topic over all partitions, oldest first. Blocks for a few seconds at most.

    Raises:
        KafkaError: Kafka cannot be reached, or there is no such topic.
    """
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in await partitions_of(consumer, topic)]
        first = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, max(first[partition], ends[partition] - count))
        records: list[Any] = []
        empty = 0
        while empty < EMPTY_POLLS and any([await consumer.position(part) < ends[part] for part in partitions]):
            found = await consumer.getmany(timeout_ms=POLL_MS)
            empty = 0 if found else empty + 1
            for some in found.values():
                records.extend(some)
    finally:
        await consumer.stop()
    records.sort(key=lambda record: (record.timestamp, record.partition, record.offset))
    return records[-count:]


async def record_at(settings: KafkaSettings, topic: str, partition: int, offset: int) -> Record | None:
    """The record at a place of a topic; None where there is none, or not any more. Blocks for a few seconds at most.

    Raises:
        KafkaError: Kafka cannot be reached, or there is no such topic or partition.
    """
    place = TopicPartition(topic, partition)
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    await consumer.start()
    try:
        if partition not in await partitions_of(consumer, topic):
            raise UnknownTopicOrPartitionError(f"topic {topic} has no partition {partition}")
        first = (await consumer.beginning_offsets([place]))[place]
        end = (await consumer.end_offsets([place]))[place]
        if not first <= offset < end:
            return None
        consumer.assign([place])
        consumer.seek(place, offset)
        for _ in range(EMPTY_POLLS):
            found: Sequence[Record] = (await consumer.getmany(timeout_ms=POLL_MS, max_records=1)).get(place, ())
            if found:
                return found[0] if found[0].offset == offset else None
        return None
    finally:
        await consumer.stop()


async def partitions_of(consumer: Any, topic: str) -> list[int]:
    """The partitions of a topic. All topics are listed first: asking for one that is not there may create it."""
    if topic not in await consumer.topics():
        raise UnknownTopicOrPartitionError(f"there is no topic {topic}")
    await consumer._client.add_topic(topic)  # noqa: SLF001 - aiokafka has no public way without subscribing
    return sorted(consumer.partitions_for_topic(topic) or ())


def describe(record: Record) -> dict[str, Any]:
    """A record as JSON values, for a person to read: JSON as such, other bytes as far as they are text."""
    try:
        at = format_instant(published_at(record))
    except RecordRejected:
        at = None
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": at,
        "key": _text(record.key),
        "headers": {name: _text(value) for name, value in record.headers},
        "value": _json_or_text(record.value),
    }


def _json_or_text(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return _text(value)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
