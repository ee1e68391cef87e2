"""What a client may send before anything is known of it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from rewardpoints.api.connection import MAX_HEADER_BYTES
from rewardpoints.api.server import HttpServer

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\n"
LONG_BYTES = 16 * 1024 * 1024
CHUNKED = REQUEST + b"Transfer-Encoding: chunked\r\n\r\n"
PATIENCE_SECONDS = 10


async def length_of_body(request: Request) -> Response:
    return Response(str(len(await request.body())))


async def early(_request: Request) -> Response:
    return Response("early")


async def never(_request: Request) -> Response:
    await asyncio.Event().wait()
    return Response("never")


endless_ended = asyncio.Event()


async def endless(_request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        try:
            while True:
                await asyncio.sleep(0)
                yield b"x" * 65_536
        finally:
            endless_ended.set()

    return StreamingResponse(chunks())


async def long(_request: Request) -> Response:
    return Response(b"x" * LONG_BYTES)


APP = Starlette(
    routes=[
        Route("/", length_of_body, methods=["POST"]),
        Route("/early", early, methods=["POST"]),
        Route("/never", never, methods=["POST"]),
        Route("/endless", endless, methods=["POST"]),
        Route("/long", long, methods=["POST"]),
    ]
)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[HttpServer]:
    server = HttpServer(APP, host="127.0.0.1", port=0, drain_seconds=1)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def port(server: HttpServer) -> int:
    return int(server.url.rpartition(":")[2])


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def exchange(port: int, *parts: bytes) -> bytes:
    """All the server sends until it closes."""
    received = b""
    async with connected(port) as (reader, writer):
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            while chunk := await reader.read(65_536):
                received += chunk
        except ConnectionError:
            pass  # closed with something of ours unread
    return received


def head(length: int) -> bytes:
    """A head of exactly so many bytes, that asks to close the connection."""
    start, end = REQUEST + b"Connection: close\r\nX: ", b"\r\n\r\n"
    return start + b"a" * (length - len(start) - len(end)) + end


async def test_the_longest_head_is_served_and_a_longer_one_refused(port: int) -> None:
    longest = await exchange(port, head(MAX_HEADER_BYTES))
    longer = await exchange(port, head(MAX_HEADER_BYTES + 1))

    assert longest.startswith(b"HTTP/1.1 200 ")
    answer, _, body = longer.partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"\r\ncontent-type: application/json" in answer
    assert b"\r\nconnection: close" in answer
    refusal = json.loads(body)
    assert refusal.pop("message")
    assert refusal == {"type": "request_header_fields_too_large", "status": 431}


@pytest.mark.parametrize(
    "endless",
    [b"a" * 1000, b"a" * 1000 + b"\r\nX: "],
    ids=["one header", "many headers"],
)
async def test_an_endless_head_is_cut(port: int, endless: bytes) -> None:
    # the connection is never closed from here: without a limit this would wait for ever
    received = await exchange(port, REQUEST + b"X: ", *[endless] * 2000)
    assert received == b"" or received.startswith(b"HTTP/1.1 431 ")


async def test_a_long_request_line_is_refused(port: int) -> None:
    received = await exchange(port, b"POST /" + b"a" * MAX_HEADER_BYTES)
    assert received.startswith(b"HTTP/1.1 431 ")


async def test_the_limit_is_each_requests_own(port: int) -> None:
    kept = head(20_000).replace(b"Connection: close", b"Content-Length: 0")
    received = await exchange(port, kept, kept, head(20_000))
    assert received.count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize("chunk", [b"x", b"x" * 300_000], ids=["small chunks", "large chunks"])
async def test_bodies_are_not_heads(port: int, chunk: bytes) -> None:
    count = 600_000 // len(chunk) if len(chunk) > 1 else 20_000
    framed = b"%x\r\n%b\r\n" % (len(chunk), chunk) * count
    start = CHUNKED.replace(b"Host: x", b"Host: x\r\nConnection: close")
    received = await exchange(port, start + framed + b"0\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"%d" % (len(chunk) * count))


@pytest.mark.parametrize("after", [b"0\r\nX: ", b"1;x="], ids=["trailers", "chunk extensions"])
async def test_endless_framing_is_cut(port: int, after: bytes) -> None:
    received = await exchange(port, CHUNKED + b"1\r\nx\r\n" + after, *[b"a" * 1000] * 2000)
    assert b"431" not in received


async def test_no_refusal_is_taken_for_another_requests_answer(port: int) -> None:
    waiting = REQUEST.replace(b"POST /", b"POST /never") + b"Content-Length: 0\r\n\r\n"
    received = await exchange(port, waiting, REQUEST + b"X: " + b"a" * 3 * MAX_HEADER_BYTES)
    assert received == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"POST",
        REQUEST,
        REQUEST + b"Content-Length: 5\r\n\r\nxx",
        CHUNKED + b"1\r\nx\r\n",
        REQUEST + b"Content-Length: 0\r\n\r\n" + REQUEST,
        REQUEST + b"Content-Length: 0\r\n\r\n" + REQUEST + b"Content-Length: 5\r\n\r\nxx",
    ],
)
async def test_what_does_not_arrive_in_time_is_cut(port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardpoints.api.connection.ARRIVAL_SECONDS", 0.2)
    # far below uvicorn's own time-out of idle connections
    received = await exchange(port, sent)
    assert received.count(b"HTTP/1.1 200 ") == sent.count(b"Content-Length: 0")


async def test_dripping_gains_no_time(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardpoints.api.connection.ARRIVAL_SECONDS", 0.2)
    async with connected(port) as (reader, writer):
        writer.write(REQUEST + b"X: ")
        received = None
        while received is None:
            writer.write(b"a")
            try:
                received = await asyncio.wait_for(reader.read(1), 0.01)
            except TimeoutError:
                continue
            except ConnectionError:
                received = b""
    assert received == b""


async def test_the_time_of_the_answer_is_not_the_requests(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardpoints.api.connection.ARRIVAL_SECONDS", 0.05)
    async with connected(port) as (reader, writer):
        writer.write(REQUEST.replace(b"POST /", b"POST /never") + b"Content-Length: 0\r\n\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - connections have no event to wait for; the caller bounds the time
        await asyncio.sleep(0.01)


async def deaf(port: int, *requests: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has asked and reads nothing, with little room of its own for what comes."""
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=client, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # every stream's transport can read
    writer.write(b"".join(requests))
    await writer.drain()
    return reader, writer


def asking(path: bytes, *, close: bool = False) -> bytes:
    headers = b"Content-Length: 0\r\n" + (b"Connection: close\r\n" if close else b"")
    return REQUEST.replace(b"POST /", b"POST " + path) + headers + b"\r\n"


async def test_an_answer_nobody_reads_ends(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardpoints.api.connection.ACCEPT_SECONDS", 0.3)
    endless_ended.clear()
    async with asyncio.timeout(PATIENCE_SECONDS):
        _, writer = await deaf(port, asking(b"/endless"))
        await endless_ended.wait()  # what is behind the answer is let go
        writer.close()


@pytest.mark.parametrize("close", [True, False])
async def test_the_rest_of_an_answer_nobody_reads_is_dropped(
    server: HttpServer, port: int, monkeypatch: pytest.MonkeyPatch, *, close: bool
) -> None:
    monkeypatch.setattr("rewardpoints.api.connection.ACCEPT_SECONDS", 0.3)
    received = 0
    connections = server._server.server_state.connections
    others = set(connections)
    async with asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await deaf(port, asking(b"/long", close=close))
        await until(lambda: bool(connections - others))
        await until(lambda: not connections - others)
        writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
        try:
            while chunk := await reader.read(65_536):
                received += len(chunk)
        except ConnectionError:
            pass
        writer.close()
    assert 0 < received < LONG_BYTES


async def test_a_slow_reader_is_served(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardpoints.api.connection.ACCEPT_SECONDS", 0.5)
    received = 0
    async with asyncio.timeout(3 * PATIENCE_SECONDS):
        reader, writer = await deaf(port, asking(b"/long", close=True))
        writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
        while chunk := await reader.read(1_048_576):
            received += len(chunk)
        writer.close()
    assert received > LONG_BYTES
