"""What the command line does to the servers without running a process."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Self

from rewardpoints.app.clock import utc_now
from rewardpoints.domain.errors import RewardPointsError
from rewardpoints.events import topics
from rewardpoints.events.inspection import KAFKA_ERRORS, describe, last_records, record_at
from rewardpoints.events.producer import EventProducer
from rewardpoints.events.records import Message
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import KafkaSettings, Settings
from rewardpoints.telemetry import Metrics


async def create_topics(kafka: KafkaSettings) -> Sequence[str]:
    """Create the missing topics; returns their names.

    Raises:
        ServerRefused: Kafka cannot be reached, or refuses one.
    """
    with kafka_errors():
        return await topics.create_topics(kafka)


async def create_indexes(settings: Settings) -> Sequence[str]:
    """Create the missing collections, indexes and validators; returns the names of all indexes.

    Raises:
        LedgerUnavailable: MongoDB cannot be reached.
    """
    ledger = Ledger.open(settings.mongodb, settings.service, settings.site_settings, utc_now, Metrics())
    try:
        return await ledger.ensure_indexes()
    finally:
        await ledger.close()


async def read_topic(kafka: KafkaSettings, topic: str, count: int) -> list[dict[str, Any]]:
    """The newest records of a topic as JSON values, oldest first.

    Raises:
        ServerRefused: Kafka cannot be reached, or there is no such topic.
    """
    with kafka_errors():
        return [describe(record) for record in await last_records(kafka, topic, count)]


async def read_record(kafka: KafkaSettings, topic: str, partition: int, offset: int) -> dict[str, Any]:
    """The record at a place of a topic as JSON values.

    Raises:
        ServerRefused: Kafka cannot be reached, or there is no such record.
    """
    with kafka_errors():
        record = await record_at(kafka, topic, partition, offset)
    if record is None:
        raise ServerRefused(f"there is no record {topic}/{partition}/{offset}, or not any more")
    return describe(record)


class TopicWriter:
    """Publishes records by hand, outside any process of the service."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._producer = EventProducer(kafka)

    async def write(
        self, topic: str, records: Sequence[tuple[bytes | None, bytes]], *, headers: Sequence[tuple[str, bytes]] = ()
    ) -> int:
        """Publish key and value pairs and wait for the broker; returns how many it acknowledged.

        Raises:
            ServerRefused: Kafka cannot be reached.
        """
        messages = [Message(topic, key, value, tuple(headers)) for key, value in records]
        with kafka_errors():
            outcomes = await self._producer.publish_all(messages)
        return sum(outcome is None for outcome in outcomes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._producer.stop()


async def publish_record(
    kafka: KafkaSettings, topic: str, value: bytes, *, key: str | None = None, headers: Sequence[tuple[str, bytes]] = ()
) -> None:
    """Publish one record and wait for its acknowledgement.

    Raises:
        ServerRefused: it was not acknowledged.
    """
    async with TopicWriter(kafka) as writer:
        if not await writer.write(topic, [(key.encode() if key else None, value)], headers=headers):
            raise ServerRefused(f"Kafka did not take the record for topic {topic}")


class ServerRefused(RewardPointsError):
    """Kafka cannot be reached, or refuses what was asked."""


@contextlib.contextmanager
def kafka_errors() -> Iterator[None]:
    """Raise ``ServerRefused`` for what a client of Kafka raises."""
    try:
        yield
    except KAFKA_ERRORS as error:
        raise ServerRefused(f"Kafka: {str(error) or type(error).__name__}") from error
