"""What a scenario breaks, and how it is made whole again: one fault after the other, never two at once."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from rewardpoints.embedded import Server as EmbeddedServer
from rewardpoints.embedded import ServerStartFailed
from tests.e2e.stack import Server
from tests.faults.environment import pause

AWAY_SECONDS = (0.0, 4.0)
STOPPED_SECONDS = (3.0, 15.0)
START_ATTEMPTS = 5


class EndedByItself(Exception):
    """A process that nobody killed is not there."""


Fault = Callable[[random.Random], Awaitable[None]]


def kill_process(process: Server) -> Fault:
    """Kill -9; somebody starts it again at once, or some seconds later."""

    async def fault(chance: random.Random) -> None:
        if process.process.returncode is not None:  # is started again as an orchestrator would, but is told
            found = f"a process had ended with {process.process.returncode} by itself:\n{process.log[-2000:]}"
            await process.start()
            raise EndedByItself(found)
        await process.kill()
        await asyncio.sleep(chance.uniform(*AWAY_SECONDS))
        await process.start()

    return fault


def kill_server(server: EmbeddedServer) -> Fault:
    """Kill -9 of a server, back on the same data."""

    async def fault(chance: random.Random) -> None:
        await server.kill()
        await asyncio.sleep(chance.uniform(*AWAY_SECONDS))
        await start_again(server)

    return fault


async def start_again(server: EmbeddedServer) -> None:
    """Starts it as a supervisor would: on a machine busy enough it is up and answers too late, and is tried again."""
    for _ in range(START_ATTEMPTS - 1):
        with contextlib.suppress(ServerStartFailed):
            await server.start()
            return
    await server.start()


def freeze(processes: Sequence[Server]) -> Fault:
    """SIGSTOP of one of them for some seconds: it is there, but does nothing, and wakes up late for everything."""

    async def fault(chance: random.Random) -> None:
        process = chance.choice(processes).process
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(chance.uniform(*STOPPED_SECONDS))
        finally:
            process.send_signal(signal.SIGCONT)

    return fault


async def strike(
    faults: Mapping[str, Fault],
    chance: random.Random,
    every_seconds: float,
    enough: asyncio.Event,
    note: Callable[[str], None],
) -> list[str]:
    """One fault after the other until it is enough, one each ``every_seconds`` from beginning to beginning.

    Every kind comes once before one comes again. Answers what went wrong that nobody had asked for.
    """
    bag: list[str] = []
    problems: list[str] = []
    due = time.monotonic() + every_seconds
    while True:
        await pause(due - time.monotonic(), enough)
        if enough.is_set():
            return problems
        due = max(due + every_seconds, time.monotonic())
        if not bag:
            bag = sorted(faults)
            chance.shuffle(bag)
        kind = bag.pop()
        note(kind)
        try:
            await faults[kind](chance)
        except EndedByItself as ended:
            problems.append(str(ended))
