import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rewardpoints.embedded.errors import PortTaken, ServerStartFailed
from rewardpoints.embedded.ports import HOST, free_port, nudge
from rewardpoints.embedded.probes import NotReady

_PORT_ATTEMPTS = 8

_POLL_SECONDS = 0.02
_DEATH_POLL_SECONDS = 0.2
_PROBE_SECONDS = 2.0
_TAIL_BYTES, _TAIL_LINES = 8_192, 20
_TETHER = Path(__file__).with_name("tether.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What differs between the servers that can be started.

    ``command`` gets the data folder and the port. ``listening`` is what the server logs once it has the port, with
    ``{address}`` for host:port: asking the port alone could be answered by another process that had it first.
    ``death_signal`` is what the server gets when the process that started it ends without stopping it.
    """

    name: str
    command: Callable[[Path, int], list[str]]
    listening: str
    probe: Callable[[str, int], Awaitable[None]]
    death_signal: signal.Signals


class Server:
    """One embedded server: a child process on loopback with a folder of its own.

    Everything in ``folder`` is the server's: its data in ``data``, its log in ``server.log``. Not for use from several
    threads. Start it from a thread that lives as long as the server should (an event loop's, not a pool's): Linux
    counts the end of the thread that started a child as the end of the parent.
    """

    def __init__(
        self,
        program: Program,
        folder: Path,
        *,
        port: int | None = None,
        options: Sequence[str] = (),
        start_seconds: float = 30.0,
        stop_seconds: float = 10.0,
    ) -> None:
        self._program = program
        self._folder = folder.absolute()
        self._port = port
        self._port_is_fixed = port is not None
        self._options = tuple(options)
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._inherited: tuple[int, ...] = ()
        self._log_start = 0

    @property
    def name(self) -> str:
        """The server's name as it stands in messages."""
        return self._program.name

    @property
    def port(self) -> int:
        """The port; stays the same once the server has run. Raises RuntimeError before the first start."""
        if self._port is None:
            raise RuntimeError(f"the {self.name} was not started yet, so it has no port")
        return self._port

    @property
    def address(self) -> str:
        """``host:port``. Raises RuntimeError before the first start."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The server's own process id. Raises RuntimeError while it is not started."""
        if self._process is None:
            raise RuntimeError(f"the {self.name} is not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """The file that everything the server prints goes to."""
        return self._folder / "server.log"

    async def start(self, *, inherit: Sequence[int] = ()) -> None:
        """Starts the server and returns when it answers in its own protocol.

        ``inherit`` are open descriptors the server keeps, so that what they lock stays locked while it lives. Raises
        ServerStartFailed, with the tail of the log, where it ends or does not answer in the time given at construction;
        no process is left then. A port that was not given is chosen anew where another process was faster.
        """
        if self._process is not None:
            raise RuntimeError(f"the {self.name} is started already")
        self._inherited = tuple(inherit)
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            port = self._port if self._port_is_fixed and self._port is not None else free_port()
            try:
                await self._start_on(port)
            except PortTaken:
                if self._port_is_fixed or attempt == _PORT_ATTEMPTS:
                    raise
            else:
                self._port, self._port_is_fixed = port, True
                return

    async def stop(self) -> None:
        """Asks the server to end, waits for at most ``stop_seconds``, then kills it; harmless where it is not started.

        When this returns, or is cancelled, the process is gone.
        """
        process, self._process = self._process, None
        if process is not None:
            await self._end(process, signal.SIGTERM)

    async def kill(self) -> None:
        """Ends the server as a crash would (SIGKILL) and waits until it is gone. ``wait_died`` does not report it."""
        process, self._process = self._process, None
        if process is not None:
            await self._end(process, signal.SIGKILL)

    async def restart(self, *, options: Sequence[str] | None = None) -> None:
        """Stops the server where it runs and starts it on the same port and data, with new ``options`` where given.

        Raises what ``start`` raises.
        """
        await self.stop()
        if options is not None:
            self._options = tuple(options)
        await self.start(inherit=self._inherited)

    def death(self) -> str | None:
        """What to tell a person where the server ended although nobody asked it to, else None."""
        if self._process is None or self._process.poll() is None:
            return None
        return self._describe(f"ended unexpectedly ({_status(self._process.returncode)})")

    async def wait_died(self) -> str:
        """Returns what ``death`` says once the server has ended unexpectedly; waits for ever while it has not."""
        return await wait_died(self)

    def log_tail(self) -> str:
        """The last lines the server printed since its last start; empty where there are none."""
        return "\n".join(self._log()[-_TAIL_BYTES:].decode(errors="replace").splitlines()[-_TAIL_LINES:])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _start_on(self, port: int) -> None:
        process = self._spawn(port)
        try:
            async with asyncio.timeout(self._start_seconds):
                await self._until_ready(process, port)
        except BaseException as error:
            await self._end(process, signal.SIGKILL)
            if isinstance(error, TimeoutError):
                text = self._describe(f"did not answer on port {port} within {self._start_seconds:g} s")
                raise ServerStartFailed(text) from None
            raise
        self._process = process

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        command = [*self._program.command(data, port), *self._options]
        if sys.platform == "linux":
            tether = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), str(int(self._program.death_signal))]
            command = [*tether, *command]
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            return subprocess.Popen(  # noqa: S603  # our own command line, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                pass_fds=self._inherited,
                start_new_session=True,  # Ctrl-C is for the launcher: it stops the servers after their clients
            )

    async def _until_ready(self, process: subprocess.Popen[bytes], port: int) -> None:
        listening = self._program.listening.format(address=f"{HOST}:{port}").encode()
        while True:
            if process.poll() is not None:
                error = PortTaken if b"already in use" in self._log() else ServerStartFailed
                raise error(self._describe(f"ended while starting on port {port} ({_status(process.returncode)})"))
            if listening in self._log() and await self._answers(port):
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _answers(self, port: int) -> bool:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._program.probe(HOST, port)
        except (OSError, EOFError, NotReady):  # a TimeoutError is an OSError
            return False
        return True

    async def _end(self, process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        """Signals the process and waits until it is gone; kills it when it takes too long or the wait is cancelled."""
        process.send_signal(how)  # does nothing where the process has ended
        deadline = time.monotonic() + self._stop_seconds
        try:
            while process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(_POLL_SECONDS)
                if how is signal.SIGTERM and self._port is not None:
                    nudge(self._port)
        finally:
            process.kill()
            process.wait()

    def _log(self) -> bytes:
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._log_start)
                return log.read()
        except FileNotFoundError:  # the folder was removed while the server ran
            return b""

    def _describe(self, what: str) -> str:
        tail = self.log_tail() or "(nothing)"
        return f"the {self.name} {what}; the end of {self.log_path}:\n{tail}"


async def wait_died(*servers: Server) -> str:
    """Returns what ``death`` says of the first of ``servers`` that ended unexpectedly; waits for ever while none has.

    Asks every 0.2 s instead of awaiting the process: that depends on no event loop, so a server may be used from one
    after another, and needs no thread.
    """
    while True:
        for server in servers:
            if (death := server.death()) is not None:
                return death
        await asyncio.sleep(_DEATH_POLL_SECONDS)


def _status(code: int) -> str:
    """An exit status in words; negative ones are signals."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
