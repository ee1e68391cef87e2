"""A write to a transport that is closed comes out as a Kafka error, whatever the event loop raises."""

import asyncio
import socket
from typing import Any

import pytest
import uvloop
from aiokafka.errors import KafkaConnectionError, NotLeaderForPartitionError

from rewardpoints.events.lost_connections import tell_lost_connections


class Client:
    """Has the one method that is wrapped."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return node_id, request, options, self.outcome


async def _write_to_a_closed_transport() -> None:
    here, there = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=here)
    there.close()
    writer.transport.abort()
    await asyncio.sleep(0)
    writer.write(b"x")


def test_what_uvloop_raises_is_told() -> None:
    """It raises no ``OSError`` there, which is all that aiokafka expects."""

    async def send() -> None:
        client = Client(None)
        client.send = lambda *_, **__: _write_to_a_closed_transport()  # type: ignore[method-assign]
        tell_lost_connections(client)
        await client.send(1, None)

    with pytest.raises(KafkaConnectionError) as caught:
        uvloop.run(send())
    assert type(caught.value.__cause__) is RuntimeError


@pytest.mark.parametrize("error", [NotLeaderForPartitionError(), ValueError("a bug")], ids=["Kafka's", "another"])
async def test_other_errors_pass(error: Exception) -> None:
    client = Client(error)
    tell_lost_connections(client)
    with pytest.raises(type(error)) as caught:
        await client.send(1, None)
    assert caught.value is error


async def test_answers_pass() -> None:
    client = Client("answer")
    tell_lost_connections(client)
    assert await client.send(1, "request", group=2) == (1, "request", {"group": 2}, "answer")
