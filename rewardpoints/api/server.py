"""The HTTP server of a process: uvicorn, started and drained by its owner instead of by signals."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from rewardpoints.api.connection import BoundedConnection
from rewardpoints.domain.errors import RewardPointsError

BACKLOG: Final = 1024
KEEP_ALIVE_SECONDS: Final = 20


class AddressInUse(RewardPointsError):
    """The listening address cannot be had; the message names it."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: it has more to stop than this server."""
        yield


class HttpServer:
    """Serves ``app`` on ``host:port`` (0 takes a free port)."""

    def __init__(self, app: ASGIApp, *, host: str, port: int, drain_seconds: int) -> None:
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._server = _Server(
            uvicorn.Config(
                app,
                access_log=False,
                backlog=BACKLOG,
                date_header=True,
                http=BoundedConnection,
                lifespan="off",
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=drain_seconds,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                ws="none",
            )
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Bind and serve in the background.

        Raises:
            AddressInUse: the address is taken, or is not one of this machine's.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # asyncio turns Nagle's delay off only where the protocol is named; with it each answer takes 40 ms
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._host, self._port))
            listening.listen(BACKLOG)  # so that nobody is refused while the server's task begins
        except OSError as error:
            listening.close()
            raise AddressInUse(f"cannot listen on {self._host}:{self._port}: {error.strerror}") from error
        self._port = listening.getsockname()[1]
        self._socket = listening
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]), name="http")

    async def wait_ended(self) -> None:
        """Returns when the server has ended; raises what ended it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Stop accepting, let open requests finish for at most ``drain_seconds``, then close."""
        if self._task is None or self._socket is None:
            return
        self._server.should_exit = True
        await self._task
        self._socket.close()
        self._task = None
