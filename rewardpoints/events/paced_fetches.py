"""Pacing of empty fetches, for a broker that answers them at once.

A Kafka broker holds a fetch that finds nothing for ``fetch_max_wait_ms``, and aiokafka relies on it: it fetches again
as soon as an answer is there. A broker that answers at once (the embedded one does) makes both sides spin. Here an
empty answer is held back on the client's side instead. The hook is the one call every fetch goes through,
``AIOKafkaClient.send``; everything else is passed on untouched.
"""

import asyncio
from typing import Any, Final

from aiokafka.protocol.fetch import FetchRequest

FIRST_PAUSE_SECONDS: Final = 0.005


def pace_empty_fetches(client: Any, *, pause_seconds: float) -> None:
    """Make ``client`` (an ``AIOKafkaClient``) hold back empty fetch answers.

    The pause starts small after records and doubles up to ``pause_seconds``, which bounds the latency it can add.
    """
    send = client.send
    pauses: dict[int, float] = {}

    async def paced_send(node_id: int, request: Any, **options: Any) -> Any:
        response = await send(node_id, request, **options)
        if not isinstance(request, FetchRequest):
            return response
        if _has_records(response):
            pauses.pop(node_id, None)
            return response
        pause = min(pauses.get(node_id, FIRST_PAUSE_SECONDS), pause_seconds)
        pauses[node_id] = pause * 2
        await asyncio.sleep(pause)
        return response

    client.send = paced_send


def _has_records(response: Any) -> bool:
    return any(partition[-1] for _, partitions in response.topics for partition in partitions)
