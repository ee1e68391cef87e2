"""A batch of records as FastStream hands it on: not parsed, not decoded, so that neither can fail.

FastStream passes over what its parser or decoder raises for.
"""

from typing import Any, Final

from aiokafka import TopicPartition
from faststream.kafka import KafkaMessage

from rewardpoints.events.records import Record


async def parse(records: tuple[Record, ...]) -> KafkaMessage:
    """The batch as one message."""
    return RawMessage(records)


async def decode(message: KafkaMessage) -> Any:
    """The records themselves."""
    return message.raw_message


class RawMessage(KafkaMessage):
    """Records as they came. Nothing of them is looked at, so nothing can fail."""

    def __init__(self, records: tuple[Record, ...]) -> None:
        super().__init__(raw_message=records, body=b"", consumer=_NO_CONSUMER)


class _NoConsumer:
    """Stands where FastStream keeps the consumer it commits with; ``RawSubscriber`` commits by itself."""

    async def commit(self) -> None:
        """Nothing."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Nothing."""


_NO_CONSUMER: Final = _NoConsumer()
