"""The topics of the service, and creating them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from rewardpoints.events.connection import client_options
from rewardpoints.settings import KafkaSettings

DEAD_LETTER_RETENTION_DAYS: Final = 90
BATCH_OVERHEAD_BYTES: Final = 128
"""What a batch of one record adds to the record, generously."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as ``rewardpoints topics create`` makes it. ``incoming``: others write it and this service reads."""

    name: str
    partitions: int
    replication_factor: int
    incoming: bool
    config: dict[str, str] = field(default_factory=dict)


def topics(settings: KafkaSettings) -> list[Topic]:
    """Every topic the service reads or writes, under the configured names."""
    size = {"max.message.bytes": str(settings.max_message_bytes + BATCH_OVERHEAD_BYTES)}
    kept = {"retention.ms": str(DEAD_LETTER_RETENTION_DAYS * 86_400_000)}
    named = [
        (settings.topic_order_completed, True, {}),
        (settings.topic_coupon_creation_requests, False, size),
        (settings.topic_coupon_creation_results, True, {}),
        (settings.topic_chargebacks, True, {}),
        (settings.topic_dead_letter, False, {**size, **kept}),
    ]
    return [
        Topic(name, settings.topic_partitions, settings.topic_replication_factor, incoming, config)
        for name, incoming, config in named
        if name is not None
    ]


async def create_topics(settings: KafkaSettings) -> Sequence[str]:
    """Create the topics that are missing and return their names; those that exist are left as they are.

    Raises:
        KafkaError: Kafka cannot be reached, or refuses a topic; the message names it. Running again completes the rest.
    """
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
        response = await admin.create_topics(
            [
                NewTopic(topic.name, topic.partitions, topic.replication_factor, topic_configs=topic.config)
                for topic in topics(settings)
            ],
            timeout_ms=settings.request_timeout_ms,
        )
    finally:
        await admin.close()
    created = []
    for name, code, *_ in response.topic_errors:
        error = for_code(code)
        if code == 0:
            created.append(name)
        elif error is not TopicAlreadyExistsError:
            raise KafkaError(f"topic {name} was not created: {error.__name__}")
    return created
