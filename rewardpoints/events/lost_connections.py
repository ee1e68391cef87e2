"""A write to a connection that is gone, told as the Kafka error it is."""

from typing import Any

from aiokafka.errors import KafkaConnectionError, KafkaError


def tell_lost_connections(client: Any) -> None:
    """Make ``client`` (an ``AIOKafkaClient``) raise ``KafkaConnectionError`` for a write to a closed transport.

    aiokafka expects an ``OSError`` there, as asyncio raises; uvloop raises a ``RuntimeError``, which ends the
    background task that wrote, and with it the consumer.
    """
    send = client.send

    async def telling_send(node_id: int, request: Any, **options: Any) -> Any:
        try:
            return await send(node_id, request, **options)
        except KafkaError:  # is a RuntimeError too
            raise
        except RuntimeError as error:
            raise KafkaConnectionError(f"the connection to node {node_id} is gone") from error

    client.send = telling_send
