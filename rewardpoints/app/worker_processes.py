"""Several worker processes under one parent, which starts, restarts, watches and stops them."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
import structlog

from rewardpoints.api.server import HttpServer
from rewardpoints.app.service import ProcessFailed
from rewardpoints.app.stopping import stop_signals, until_first
from rewardpoints.app.worker_monitoring import create_monitoring_app
from rewardpoints.embedded import tether
from rewardpoints.events.waiting import pause
from rewardpoints.settings import PREFIX, Settings, SettingsInvalid
from rewardpoints.telemetry import Metrics

logger = structlog.get_logger(__name__)

MOST_PROCESSES: Final = 64
HIGHEST_PORT: Final = 65_535
FIRST_BACKOFF_SECONDS: Final = 1.0
MOST_BACKOFF_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""A process that lived this long did its work: its end is the first one again."""

MOST_ENDS: Final = 5
"""In a row, each soon after its start; with the next one the whole ends, and whoever runs it sees that."""

STOP_SECONDS: Final = 50.0
"""How long a process may take to stop, besides its open requests: its commit, batch, publishes, leaving its groups."""

WORKER: Final = (sys.executable, "-m", "rewardpoints.cli", "worker")


class WorkerProcess:
    """One of the processes, in a slot that keeps its number, its port and its place in the consumer groups."""

    def __init__(
        self,
        number: int,
        settings: Settings,
        metrics: Metrics,
        *,
        stopping: asyncio.Event,
        command: Sequence[str] = WORKER,
    ) -> None:
        self.name = str(number)
        self._port = settings.http.worker_port + number
        self._restarts = metrics.process_restarts.labels(str(number))  # at 0, so that the first one is an increase too
        self._stopping = stopping
        self._command = _tethered(command)
        self._changes = {f"{PREFIX}HTTP_HOST": "127.0.0.1", f"{PREFIX}HTTP_WORKER_PORT": str(self._port)}
        if settings.kafka.group_instance_id:
            self._changes[f"{PREFIX}KAFKA_GROUP_INSTANCE_ID"] = f"{settings.kafka.group_instance_id}-{number}"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where its health and metrics are, on this machine only."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def run(self) -> None:
        """Keep a process running in the slot until ``stopping`` is set, with a growing pause after each early end.

        Raises:
            ProcessFailed: it ended ``MOST_ENDS`` times in a row soon after its start, and then once more.
        """
        ends = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            status = await self._run_once()
            if self._stopping.is_set():
                return
            ends = 1 if time.monotonic() - began >= STEADY_SECONDS else ends + 1
            self._restarts.inc()
            logger.error("worker_process_ended", process=self.name, status=status, ends_in_a_row=ends)
            if ends > MOST_ENDS:
                raise ProcessFailed(
                    f"worker process {self.name} ended {ends} times in a row, last with status {status}"
                )
            await pause(min(FIRST_BACKOFF_SECONDS * 2 ** (ends - 1), MOST_BACKOFF_SECONDS), self._stopping)

    async def _run_once(self) -> int:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env={**os.environ, **self._changes},
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C goes to the parent alone, which passes it on once
        )
        logger.info("worker_process_started", process=self.name, pid=self._process.pid, url=self.url)
        if self._stopping.is_set():
            self.signal(signal.SIGTERM)
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, where it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


class WorkerProcesses:
    """``count`` workers that behave as one: one port for health and metrics, one signal to stop them."""

    def __init__(self, settings: Settings, count: int, *, command: Sequence[str] = WORKER) -> None:
        base = settings.http.worker_port
        if base == 0 or base + count > HIGHEST_PORT:
            raise SettingsInvalid(
                f"{PREFIX}HTTP_WORKER_PORT: several processes need a fixed one, with {count} free ones above it"
            )
        self._stopping = asyncio.Event()
        self._stop_seconds = settings.http.drain_seconds + STOP_SECONDS
        self._client = httpx.AsyncClient(timeout=5)
        metrics = Metrics()
        self.processes = tuple(
            WorkerProcess(number, settings, metrics, stopping=self._stopping, command=command)
            for number in range(1, count + 1)
        )
        self._http = HttpServer(
            create_monitoring_app(self.processes, metrics, self._client),
            host=settings.http.host,
            port=base,
            drain_seconds=settings.http.drain_seconds,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start listening, then every process.

        Raises:
            AddressInUse: the port is taken; nothing was started.
        """
        await self._http.start()
        self._tasks = [asyncio.create_task(one.run(), name=f"worker process {one.name}") for one in self.processes]

    async def wait_failed(self) -> None:
        """Wait for what must end the whole.

        Raises:
            ProcessFailed: it has happened. Never returns otherwise.
        """
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        raise ProcessFailed("no worker process is left")

    async def stop(self) -> None:
        """Ask every process to stop, wait for all of them within one bound, and kill those that take longer.

        Raises:
            ProcessFailed: one had to be killed; what it had not finished was not committed.
        """
        self._stopping.set()
        for one in self.processes:
            one.signal(signal.SIGTERM)
        late: set[asyncio.Task[None]] = set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._stop_seconds)
            for one in self.processes:
                one.signal(signal.SIGKILL)  # nothing where it has ended
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.stop()
        await self._client.aclose()
        if late:
            raise ProcessFailed(f"{len(late)} worker processes did not stop in {self._stop_seconds:.0f} s")


async def serve_processes(settings: Settings, count: int) -> None:
    """Run ``count`` worker processes until a signal, then stop them.

    Raises:
        ProcessFailed, AddressInUse, SettingsInvalid: it cannot go on, or cannot start.
    """
    async with stop_signals() as asked:
        processes = WorkerProcesses(settings, count)
        try:
            await processes.start()
            await until_first(asked.wait(), processes.wait_failed())
        finally:
            await processes.stop()


def _tethered(command: Sequence[str]) -> tuple[str, ...]:
    """The command, told to stop when its parent is gone without having said so. Only Linux knows how."""
    if not sys.platform.startswith("linux"):
        return tuple(command)
    program = str(Path(tether.__file__))
    return (sys.executable, "-I", "-S", program, str(os.getpid()), str(int(signal.SIGTERM)), *command)
