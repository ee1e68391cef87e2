"""The proxy does to connections what it says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.faults.proxy import Proxy, Way

SECONDS = 10.0
SILENCE_SECONDS = 0.3


class Echo:
    """A server that answers what it gets, and keeps it."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = asyncio.Event()
        self.address = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                self.got += data
                writer.write(data)
                await writer.drain()
        self.ended.set()
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    async with await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        echo.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield echo


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    async with Proxy(echo.address) as proxy:
        yield proxy


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.read(1000)

    async def hears_nothing(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SILENCE_SECONDS):
                await self.reader.read(1000)
                return False
        return True


@contextlib.asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    try:
        client.send(b"hello")
        assert await client.read() == b"hello"
        yield client
    finally:
        client.writer.close()


async def test_an_end_reaches_the_other_side(proxy: Proxy, echo: Echo) -> None:
    async with connected(proxy) as client:
        client.writer.close()
        async with asyncio.timeout(SECONDS):
            await echo.ended.wait()


async def test_a_cut_connection_ends_in_order(proxy: Proxy, echo: Echo) -> None:
    async with connected(proxy) as client:
        proxy.cut()
        assert await client.read() == b""
    async with connected(proxy):
        assert proxy.accepted == 2


async def test_a_reset_connection_is_broken_off(proxy: Proxy, echo: Echo) -> None:
    async with connected(proxy) as client:
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await client.read()
    async with asyncio.timeout(SECONDS):
        await echo.ended.wait()


async def test_refused_until_healed(proxy: Proxy) -> None:
    async with connected(proxy) as client:
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        client.send(b"still")
        assert await client.read() == b"still"
        await proxy.heal()
        async with connected(proxy):
            pass


async def test_a_delay_costs_time_and_keeps_the_order(proxy: Proxy) -> None:
    async with connected(proxy) as client:
        proxy.delay(0.2)
        began = asyncio.get_running_loop().time()
        for part in (b"a", b"b", b"c"):
            client.send(part)
            await asyncio.sleep(0)
        answer = b""
        while len(answer) < 3:
            answer += await client.read()
        assert answer == b"abc"
        assert asyncio.get_running_loop().time() - began >= 0.4


async def test_what_is_held_arrives_later(proxy: Proxy, echo: Echo) -> None:
    async with connected(proxy) as client:
        proxy.hold()
        client.send(b"late")
        assert await client.hears_nothing()
        assert echo.got == b"hello"
        await proxy.heal()
        assert await client.read() == b"late"


@pytest.mark.parametrize("way", Way)
async def test_half_open(proxy: Proxy, echo: Echo, way: Way) -> None:
    async with connected(proxy) as client:
        proxy.swallow(frozenset({way}))
        client.send(b"lost")
        assert await client.hears_nothing()
        assert echo.got == (b"hello" if way is Way.TO_SERVER else b"hellolost")
        await proxy.heal()
        client.send(b"still lost")
        assert await client.hears_nothing()
        async with connected(proxy):  # a new connection is whole
            pass
        client.writer.close()
        async with asyncio.timeout(SECONDS):
            if way is Way.TO_CLIENT:
                await echo.ended.wait()
    assert proxy.connections >= (way is Way.TO_SERVER)


async def test_a_server_that_is_away(echo: Echo) -> None:
    async with Proxy("127.0.0.1:1") as proxy:
        client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        with pytest.raises(ConnectionResetError):
            await client.read()
        client.writer.close()
