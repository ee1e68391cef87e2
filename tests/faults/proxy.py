"""A TCP proxy of the tests, to put between the service and a server: cut, reset, refused, slow, held or half open."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from rewardpoints.embedded.ports import HOST, free_port

_CHUNK_BYTES = 65_536
_CHUNKS_UNDER_WAY = 1000
_LENGTH = struct.Struct(">i")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Read = Callable[[asyncio.StreamReader], Awaitable[bytes]]


class Way(Enum):
    """The two ways of a connection."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


BOTH_WAYS = frozenset(Way)


@dataclass(eq=False, slots=True)
class _Link:
    """A client's connection and the one made to the server for it. What is dead passes nothing, not even an end."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    dead: set[Way] = field(default_factory=set)

    @property
    def ends(self) -> tuple[asyncio.StreamWriter, asyncio.StreamWriter]:
        return self.client, self.server


class Proxy:
    """Passes connections on to ``target`` (host:port). ``address`` stays the same for its life.

    A fault holds for connections there are and for new ones, until ``heal``. A connection that anything was swallowed
    of stays dead after it, without a word to either side: what a client makes of that is its own business.
    """

    def __init__(self, target: str, *, read_answers: Callable[["Proxy"], Read] | None = None) -> None:
        self._host, _, port = target.rpartition(":")
        self._target_port = int(port)
        self.port = free_port()
        self._read: dict[Way, Read] = dict.fromkeys(Way, _some_bytes)
        if read_answers is not None:
            self._read[Way.TO_CLIENT] = read_answers(self)
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        self._delay_seconds = 0.0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._swallowed: frozenset[Way] = frozenset()
        self.accepted = 0
        """Connections so far."""

    @property
    def address(self) -> str:
        """``host:port`` to connect to."""
        return f"{HOST}:{self.port}"

    @property
    def target_port(self) -> int:
        """The server's own port."""
        return self._target_port

    @property
    def connections(self) -> int:
        """Connections there are now."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._deafen()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Faults

    def cut(self) -> None:
        """End every connection in order, for both sides."""
        for link in list(self._links):
            for end in link.ends:
                end.close()

    def reset(self) -> None:
        """Break every connection off: both sides get a reset."""
        for link in list(self._links):
            for end in link.ends:
                _reset(end)

    def refuse(self) -> None:
        """Refuse new connections; those there are stay."""
        self._deafen()

    def delay(self, seconds: float) -> None:
        """Everything takes so much longer, each way."""
        self._delay_seconds = seconds

    def hold(self) -> None:
        """Nothing arrives until ``heal``; then everything does, in order."""
        self._flowing.clear()

    def swallow(self, ways: frozenset[Way] = BOTH_WAYS) -> None:
        """Half open: what is sent these ways never arrives, and neither does a connection's end."""
        self._swallowed = ways
        for link in self._links:
            link.dead |= ways

    async def heal(self) -> None:
        """No fault any more, but for connections that something was swallowed of."""
        self._swallowed = frozenset()
        self._delay_seconds = 0.0
        self._flowing.set()
        if self._listening is None:
            await self._listen()

    # The way through

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._accept, HOST, self.port)

    def _deafen(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._serve(from_client, to_client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(self._host, self._target_port)
        except OSError:
            _reset(to_client)  # the server is away: as close to a refusal as an accepted connection can come
            return
        link = _Link(to_client, to_server, set(self._swallowed))
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(Way.TO_SERVER, link, from_client, to_server))
                both.create_task(self._pass(Way.TO_CLIENT, link, from_server, to_client))
        finally:
            self._links.discard(link)
            for end in link.ends:
                end.close()

    async def _pass(
        self, way: Way, link: _Link, source: asyncio.StreamReader, destination: asyncio.StreamWriter
    ) -> None:
        """Until the source ends. What is read waits in a queue, so that a delay costs time and not bandwidth."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_UNDER_WAY)
        sending = asyncio.create_task(self._send(way, link, queue, destination))
        now = asyncio.get_running_loop().time
        try:
            data = b"more"
            while data:
                try:
                    data = await self._read[way](source)
                except (OSError, EOFError):
                    data = b""
                await queue.put((now() + self._delay_seconds, data))
            await sending
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(
        self, way: Way, link: _Link, queue: asyncio.Queue[tuple[float, bytes]], destination: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await self._flowing.wait()
            if way in link.dead:
                if not data:
                    await loop.create_future()  # the end is swallowed too: this side stays open until the proxy goes
                continue
            with contextlib.suppress(OSError):
                if not data:
                    destination.close()
                    return
                destination.write(data)
                await destination.drain()


def kafka_proxy(target: str) -> Proxy:
    """A proxy for one broker: where its answers name its address, they name the proxy's, so that clients stay with it.

    Metadata and group coordinators are told as host and port, one after the other, in every version of the protocol;
    the proxy's are as long as the broker's.
    """

    def read_answers(proxy: Proxy) -> Read:
        broker, instead = (HOST.encode() + _LENGTH.pack(port) for port in (proxy.target_port, proxy.port))

        async def answer(source: asyncio.StreamReader) -> bytes:
            head = await source.readexactly(_LENGTH.size)
            body = await source.readexactly(_LENGTH.unpack(head)[0])
            return head + body.replace(broker, instead)

        return answer

    return Proxy(target, read_answers=read_answers)


@contextlib.asynccontextmanager
async def healed_after(proxy: Proxy) -> AsyncIterator[None]:
    """The fault set in the context ends with it."""
    try:
        yield
    finally:
        await proxy.heal()


async def _some_bytes(source: asyncio.StreamReader) -> bytes:
    return await source.read(_CHUNK_BYTES)


def _reset(end: asyncio.StreamWriter) -> None:
    connection: socket.socket = end.get_extra_info("socket")
    with contextlib.suppress(OSError):  # closed meanwhile
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    end.transport.abort()
