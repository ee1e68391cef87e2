"""What the order consumer's group has committed, looked at from outside."""

from collections.abc import Mapping
from typing import Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from rewardpoints.events.connection import client_options, consumer_group
from rewardpoints.settings import KafkaSettings

ORDER_SUBSCRIBER: Final = "orders"


async def committed_orders(settings: KafkaSettings) -> Mapping[int, int]:
    """The offsets of the order topic up to which the ledger has everything, by partition; none where nobody read it.

    Raises:
        KafkaError, OSError: Kafka cannot be reached.
    """
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
        found: Mapping[TopicPartition, tuple[int, str]] = await admin.list_consumer_group_offsets(
            consumer_group(settings, ORDER_SUBSCRIBER)
        )
    finally:
        await admin.close()
    return {
        partition.partition: committed[0]
        for partition, committed in found.items()
        if partition.topic == settings.topic_order_completed and committed[0] >= 0
    }
