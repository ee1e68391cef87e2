"""One small question to each server, in its own protocol, written by hand: this module may import no driver."""

import asyncio
import struct

_HEADER_SIZE = 4  # both protocols begin a message with its length
_MAX_ANSWER = 1_000_000

_KAFKA_API_VERSIONS = 18
_KAFKA_CORRELATION = 0x5EED
_KAFKA_CLIENT = b"rewardpoints-probe"

_MONGODB_OP_MSG = 2013
_MONGODB_REQUEST = 0x5EED
_MONGODB_PRIMARY = b"\x08isWritablePrimary\x00\x01"


class NotReady(Exception):
    """The server answered, but not (yet) as a server that takes work."""


async def probe_kafka(host: str, port: int) -> None:
    """Asks a broker for its API versions.

    Raises NotReady where the answer is not that of a broker, OSError or EOFError where there is none. Waits for as long
    as the server takes; the caller sets the limit.
    """
    request = struct.pack(">hhih", _KAFKA_API_VERSIONS, 0, _KAFKA_CORRELATION, len(_KAFKA_CLIENT)) + _KAFKA_CLIENT
    answer = await _exchange(host, port, struct.pack(">i", len(request)) + request, length=">i", counts_itself=False)
    if len(answer) < struct.calcsize(">ihi") or struct.unpack_from(">ih", answer) != (_KAFKA_CORRELATION, 0):
        raise NotReady(f"{host}:{port} did not answer as a Kafka broker: {answer[:20]!r}")


async def probe_mongodb(host: str, port: int) -> None:
    """Says hello to a MongoDB server.

    Raises NotReady where the server is not a primary that takes writes, OSError or EOFError where there is no answer.
    Waits for as long as the server takes; the caller sets the limit.
    """
    body = b"\x10hello\x00" + struct.pack("<i", 1) + b"\x02$db\x00" + struct.pack("<i", 6) + b"admin\x00"
    document = struct.pack("<i", _HEADER_SIZE + len(body) + 1) + body + b"\x00"
    message = struct.pack("<iiiib", _MONGODB_REQUEST, 0, _MONGODB_OP_MSG, 0, 0) + document
    answer = await _exchange(
        host, port, struct.pack("<i", _HEADER_SIZE + len(message)) + message, length="<i", counts_itself=True
    )
    if _MONGODB_PRIMARY not in answer:
        raise NotReady(f"{host}:{port} did not answer as a MongoDB primary: {answer[:200]!r}")


async def _exchange(host: str, port: int, message: bytes, *, length: str, counts_itself: bool) -> bytes:
    """Sends one message on a connection of its own and returns the body of the answer."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(message)
        (size,) = struct.unpack(length, await reader.readexactly(_HEADER_SIZE))
        if counts_itself:
            size -= _HEADER_SIZE
        if not 0 < size < _MAX_ANSWER:
            raise NotReady(f"{host}:{port} answered with a message of {size} bytes")
        return await reader.readexactly(size)
    finally:
        writer.transport.abort()  # nothing is left to be sent, so there is nothing to wait for
