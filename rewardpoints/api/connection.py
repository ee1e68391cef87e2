"""Connections: what a client sends is bounded in size and time before anything of this service looks at it."""

import asyncio
from enum import Enum
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rewardpoints.api.views import JSON, encode, resource_error

MAX_HEADER_BYTES: Final = 32_768
"""Longest head of a request, the request line included. Trailers have the same limit."""

ARRIVAL_SECONDS: Final = 20.0
"""Time a request has to arrive completely, from its first byte; a connection's first one from its opening."""


ACCEPT_SECONDS: Final = 30.0
ACCEPT_BYTES: Final = 32_768
"""A client that has this service wait must accept so much of the answer in so much time, or else all of it."""


class _Awaiting(Enum):
    """What of a request comes next."""

    HEAD = "head"
    REST = "rest"
    NOTHING = "nothing"


class BoundedConnection(HttpToolsProtocol):
    """Uvicorn's connection, which bounds neither the size of a head nor the time of arriving and of being accepted.

    A head that is too long is answered 431, and the connection closed; what is too slow is cut off.
    """

    _awaiting = _Awaiting.HEAD
    _unfinished_bytes = 0
    """Bytes since a head, a part of a body or a request was last complete: what the parser may be holding."""

    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _unread_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Wait for the first request, but not forever."""
        super().connection_made(transport)
        self._late = self.loop.call_later(ARRIVAL_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._in_time()
        self._accepted()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read what it asked for: hold the operation behind the answer, but not forever."""
        self._wait_until_accepted()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has read on."""
        self._accepted()
        self._end_soon()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """The answer is complete; where the connection ends with it, its rest has to be read soon."""
        super().on_response_complete()
        self._end_soon()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing has come for long."""
        super().timeout_keep_alive_handler()
        self._end_soon()

    def data_received(self, data: bytes) -> None:
        """Parse, never more at once than the limit leaves."""
        if self._awaiting is _Awaiting.NOTHING:
            self._awaiting = _Awaiting.HEAD
        while data and not self.transport.is_closing():
            room = MAX_HEADER_BYTES - self._unfinished_bytes
            if not room:
                self._refuse()
                return
            part, data = data[:room], data[room:]
            self._unfinished_bytes += len(part)
            super().data_received(part)
        if self._awaiting is not _Awaiting.NOTHING and self._late is None:
            self._late = self.loop.call_later(ARRIVAL_SECONDS, self.transport.abort)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._awaiting = _Awaiting.HEAD
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._awaiting, self._unfinished_bytes = _Awaiting.REST, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body; how long bodies may be is the operation's business."""
        self._unfinished_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has arrived."""
        self._awaiting, self._unfinished_bytes = _Awaiting.NOTHING, 0
        self._in_time()
        super().on_message_complete()

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end_soon(self) -> None:
        # closing waits for the client to read the rest
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._wait_until_accepted()

    def _wait_until_accepted(self) -> None:
        if self._unread is None:
            self._unread_bytes = self.transport.get_write_buffer_size()
            self._unread = self.loop.call_later(ACCEPT_SECONDS, self._check_accepted)

    def _check_accepted(self) -> None:
        self._unread = None
        if self.transport.get_write_buffer_size() > self._unread_bytes - ACCEPT_BYTES:
            self.transport.abort()
        else:
            self._wait_until_accepted()

    def _accepted(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _refuse(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self._awaiting is not _Awaiting.HEAD:
            self.transport.abort()  # an answer here would be taken for another request's
            return
        error = resource_error(431, "request_header_fields_too_large", "The request's headers are too long")
        body = encode(error)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", JSON.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[431] + lines + b"\r\n" + body)
        self.transport.close()
        self._end_soon()
