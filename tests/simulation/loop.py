"""An event loop with a clock of its own and a seeded order, and processes on it that can be killed at any step.

Time passes only when nothing is ready to run. Of everything ready, a seeded choice runs next, so one seed is one order
of events. A process is whatever runs in a context that names it: once killed, nothing of it is ever run again - no
``finally``, no ``except`` - as with ``kill -9``.
"""

import asyncio
import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any


class Stuck(Exception):
    """Nothing is ready and nothing is scheduled, yet the simulation is not over."""


class TooLong(Exception):
    """The simulation takes more steps than any run should."""


class Process:
    """One process of the service: its tasks run in ``context`` until it is killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.steps = 0
        self.dies_at: int | None = None
        self.when_dead: list[Callable[[], None]] = []
        self.parked: list[Any] = []
        self.context: Context = copy_context()
        self.context.run(_PROCESS.set, self)

    def kill(self) -> None:
        """Run nothing of it from now on."""
        if self.alive:
            self.alive = False
            for told in self.when_dead:
                told()


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
MOST_STEPS = 2_000_000


class SimulationLoop(asyncio.BaseEventLoop):
    """See the module. ``note`` adds to the trace whose hash tells one run from another."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.set_debug(enabled=False)
        self.steps = 0
        self.root = copy_context()
        self._virtual = 0.0
        self._chance = random.Random(f"schedule {seed}")
        self._trace = hashlib.blake2b(digest_size=16)
        self._over = False
        self._ready: deque[Any] = deque()  # where the base class keeps what is to run
        self._made = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self.set_exception_handler(self._take_note)
        self.unexpected: list[str] = []
        self.processes: list[Process] = []

    def time(self) -> float:
        return self._virtual

    def note(self, event: str) -> None:
        """An event of the run."""
        self._trace.update(f"{self.steps} {self._virtual:.6f} {event}\n".encode())

    @property
    def trace(self) -> str:
        """A hash of everything noted so far."""
        return self._trace.hexdigest()

    def process(self, name: str) -> Process:
        """A new process."""
        made = Process(name)
        self.processes.append(made)
        return made

    def finish(self) -> None:
        """End all tasks, those of killed processes too, so that nothing is left for the garbage collector to find."""
        self._over = True
        for process in self.processes:
            self._ready.extend(process.parked)
            process.parked.clear()
        for _ in range(20):
            left = [task for task in asyncio.all_tasks(self) if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.wait(left, timeout=100))
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()

    def _take_note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not self._over and not isinstance(error, asyncio.CancelledError):
            self.unexpected.append(f"{context.get('message')}: {error!r}")

    def _run_once(self) -> None:
        ready = self._ready
        if not ready:
            self._let_time_pass()
        if len(ready) > 1:
            ready.rotate(-self._chance.randrange(len(ready)))
        handle = ready.popleft()
        if handle._cancelled:
            return
        process = handle._context.get(_PROCESS)
        if process is not None and not self._over:
            process.steps += 1
            if process.steps == process.dies_at:
                process.kill()
            if not process.alive:
                process.parked.append(handle)
                return
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise TooLong
        handle._run()

    def call_at(  # type: ignore[override]  # the types of the arguments do not matter here
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As any loop's; its timers are kept in a form that is compared quickly."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1
        heapq.heappush(self._timers, (when, self._made, timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing: it is passed over when its time comes."""

    def _let_time_pass(self) -> None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise Stuck
        self._virtual = max(self._virtual, timers[0][0])
        while timers and timers[0][0] <= self._virtual:
            self._ready.append(heapq.heappop(timers)[2])
