"""A closed loop of GETs over kept connections, written by hand so that the load costs little itself."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast
from urllib.parse import urlsplit

_ANSWER_SECONDS = 60.0


class UnexpectedAnswer(Exception):
    """An answer with another status than the one that was waited for."""


@dataclass(slots=True)
class Load:
    """What a closed loop came to: answers, and the seconds each took."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds


def request_bytes(url: str, headers: Mapping[str, str]) -> bytes:
    """A GET as it goes over the wire."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {parts.netloc}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Connection(asyncio.Protocol):
    """One connection, one request at a time. Answers must name their length."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it

    def data_received(self, data: bytes) -> None:
        """A part of an answer, or all of it."""
        self._received += data
        head, separator, body = bytes(self._received).partition(b"\r\n\r\n")
        if not separator:
            return
        if len(body) < _length(head):
            return
        self._received.clear()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits learns of it."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(exc or ConnectionResetError("the connection was closed"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer; waits for at most a minute."""
        assert self._transport is not None  # noqa: S101 - made by ``connect``
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await self._waiting

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise UnexpectedAnswer("an answer without a length")


async def connect(url: str) -> Connection:
    """A connection to the server of a URL."""
    parts = urlsplit(url)
    _, connection = await asyncio.get_running_loop().create_connection(
        Connection, parts.hostname or "", parts.port or 80
    )
    return connection


async def closed_loop(url: str, requests: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    """Ask again as soon as an answer is there, on so many connections, for so long; the requests in turns.

    Raises:
        UnexpectedAnswer: one was not answered with 200.
    """
    load, turns = Load(), cycle(requests)
    opened = [await connect(url) for _ in range(connections)]
    began = time.perf_counter()
    until = began + seconds

    async def ask_on(connection: Connection) -> None:
        sent = time.perf_counter()
        while sent < until:
            status, body = await connection.ask(next(turns))
            now = time.perf_counter()
            if status != 200:  # noqa: PLR2004 - OK
                raise UnexpectedAnswer(f"{status}: {body[:300]!r}")
            load.latencies.append(now - sent)
            sent = now

    try:
        async with asyncio.TaskGroup() as tasks:
            for connection in opened:
                tasks.create_task(ask_on(connection))
    except* UnexpectedAnswer as errors:
        raise RuntimeError(str(errors.exceptions[0])) from errors
    finally:
        for connection in opened:
            connection.close()
    load.seconds = time.perf_counter() - began
    return load
