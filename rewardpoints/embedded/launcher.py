import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rewardpoints.embedded.errors import DataFolderInUse
from rewardpoints.embedded.lock import FolderLock
from rewardpoints.embedded.programs import kafka_server, mongodb_server
from rewardpoints.embedded.server import wait_died

_LOCK_POLL_SECONDS = 0.05
_REAP_LIMIT_SECONDS = 10.0

_log = logging.getLogger(__name__)


class EmbeddedServers:
    """A MongoDB-wire server and a Kafka-wire broker on loopback that live in one locked folder.

    ``folder`` gets ``lock``, ``mongodb/`` and ``kafka/``, each of the two with ``data/`` and ``server.log``. On Linux
    both end with this process even when it is killed; elsewhere they may outlive a kill, and the folder stays locked
    then. Start it from the main thread's event loop (see Server). Raises EmbeddedNotInstalled at construction.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mongodb_port: int | None = None,
        kafka_port: int | None = None,
        mongodb_options: Sequence[str] = (),
        kafka_options: Sequence[str] = (),
        test_commands: bool = False,
        start_seconds: float = 30.0,
        stop_seconds: float = 10.0,
    ) -> None:
        self._lock = FolderLock(folder)
        self._stop_seconds = stop_seconds
        self.mongodb = mongodb_server(
            folder / "mongodb",
            port=mongodb_port,
            test_commands=test_commands,
            options=mongodb_options,
            start_seconds=start_seconds,
            stop_seconds=stop_seconds,
        )
        self.kafka = kafka_server(
            folder / "kafka",
            port=kafka_port,
            options=kafka_options,
            start_seconds=start_seconds,
            stop_seconds=stop_seconds,
        )

    @property
    def mongodb_uri(self) -> str:
        """The connection string of the MongoDB-wire server. Raises RuntimeError before the first start."""
        return mongodb_uri(self.mongodb.address)

    @property
    def kafka_bootstrap_servers(self) -> str:
        """``host:port`` of the broker. Raises RuntimeError before the first start."""
        return self.kafka.address

    async def start(self) -> None:
        """Locks the folder, starts both servers side by side and returns when both answer.

        Raises DataFolderInUse where another process has the folder, ServerStartFailed (with the tail of the log) where
        a server does not come up in time; nothing runs and nothing is locked then.
        """
        await self._acquire()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self.mongodb.start(inherit=[self._lock.fd]))
                both.create_task(self.kafka.start(inherit=[self._lock.fd]))
        except BaseExceptionGroup as errors:
            await self.stop()
            raise errors.exceptions[0] from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stops both servers and releases the folder; harmless where they do not run.

        Waits for at most ``stop_seconds``, then kills. When this returns, or is cancelled, both are gone.
        """
        try:
            await asyncio.gather(self.mongodb.stop(), self.kafka.stop())
        finally:
            self._lock.release()

    async def wait_died(self) -> str:
        """Returns once a server has ended although nobody asked it to: its name, how it ended and the tail of its log.

        Waits for ever while both run. A server that was stopped, killed or restarted through its methods did not die.
        """
        return await wait_died(self.mongodb, self.kafka)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _acquire(self) -> None:
        """Takes the lock. Servers of a launcher that was killed hold it for a moment longer: that is waited out."""
        deadline = time.monotonic() + self._stop_seconds
        while True:
            try:
                self._lock.acquire()
            except DataFolderInUse as in_use:
                if in_use.pid is None or _alive(in_use.pid) or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_LOCK_POLL_SECONDS)
            else:
                return


def mongodb_uri(address: str) -> str:
    """The connection string for a one-node server at ``host:port``, without a search for other members."""
    return f"mongodb://{address}/?directConnection=true"


async def keep_reaping(reap: Callable[[], Awaitable[None]], *, every_seconds: float = 5.0) -> None:
    """Calls ``reap`` every few seconds until cancelled.

    ``reap`` runs a tiny transaction: the embedded MongoDB-wire server ends a transaction that a killed client left open
    60 s after its last statement, but only when another transaction does something; until then plain writes to its
    documents hang. The errors of ``reap``, and a call that takes longer than 10 s, are logged (once for as long as they
    last) and tried again; they never end the loop.
    """
    failing = False
    while True:
        try:
            async with asyncio.timeout(_REAP_LIMIT_SECONDS):
                await reap()
        except Exception as error:  # noqa: BLE001  # whatever the store raises: the next round tries again
            if not failing:
                _log.warning("reaping open transactions failed and is tried again: %r", error)
            failing = True
        else:
            failing = False
        await asyncio.sleep(every_seconds)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
