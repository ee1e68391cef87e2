"""Profiles: where a process of the service spends its CPU, by library and by function, under ``cProfile``.

It makes calls dearer than they are, small Python functions most of all: read shares, not times.
"""

import asyncio
import contextlib
import cProfile
import os
import pstats
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from bench.context import Bench, opened_ledger, utc_now, worker_settings
from bench.http_load import closed_loop, request_bytes
from bench.lots import customer_lots, insert
from bench.orders import real, small
from bench.reads import BALANCE, BALANCE_CONNECTIONS, BALANCE_CUSTOMERS, BALANCE_LOTS, connected
from bench.topics import Progress, filled_topic
from rewardpoints import cli
from rewardpoints.embedded.ports import free_port
from rewardpoints.events.connection import consumer_group
from tests.e2e.stack import Stack

MOST_FUNCTIONS: Final = 40
STOP_SECONDS: Final = 60.0
_WAITING: Final = ("select.epoll", "uvloop.loop", "<method 'poll'", "run_until_complete", "_asyncio")


async def profile_worker(bench: Bench, *, of_real_orders: bool = False) -> str:
    """The worker over orders of 300 bytes, or over the two real ones."""
    feeds = real() if of_real_orders else (small(),)
    events = bench.sizes.real_events if of_real_orders else bench.sizes.events
    name = f"bench-profile-{secrets.token_hex(4)}"
    async with (
        bench.servers() as servers,
        filled_topic(servers.kafka, name, feeds, events) as topic,
        bench.stack(servers, topic=topic) as stack,
    ):
        async with (
            _profiled(stack, "worker") as (_, report),
            Progress(servers.kafka, topic, consumer_group(stack.kafka, "orders")) as progress,
        ):
            await progress.until(lambda mark: mark.total >= events, what="every order applied", check=lambda: None)
        return report()


async def profile_balance(bench: Bench) -> str:
    """The API under GETs of balances."""
    customers = [f"reader-{number}" for number in range(BALANCE_CUSTOMERS)]
    async with bench.servers() as servers, bench.stack(servers) as stack:
        async with opened_ledger(stack) as ledger:
            for customer in customers:
                await insert(ledger, customer_lots(customer, BALANCE_LOTS, utc_now()))
        async with _profiled(stack, "api") as (url, report):
            requests = [request_bytes(f"{url}{BALANCE}", stack.customer(customer)) for customer in customers]
            await closed_loop(url, requests, connections=BALANCE_CONNECTIONS, seconds=3 * bench.sizes.http_seconds)
        return report()


PROFILES: Final[Mapping[str, Callable[[Bench], Awaitable[str]]]] = {
    "worker": profile_worker,
    "worker-real": lambda bench: profile_worker(bench, of_real_orders=True),
    "balance": profile_balance,
}


@contextlib.asynccontextmanager
async def _profiled(stack: Stack, command: str) -> AsyncIterator[tuple[str, Callable[[], str]]]:
    """A command of the service under cProfile: its URL, and what answers the report once the context has ended."""
    port, file = free_port(), stack.folder / f"{command}.profile"
    settings = {
        **worker_settings(),
        "HTTP_PORT": str(port),
        "HTTP_WORKER_PORT": str(port),
        "KAFKA_GROUP_INSTANCE_ID": "profiled",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.profiles", str(file), command),
        env={**_own_environment(), **stack.environment(**settings)},
        stdin=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        (await connected(url, process)).close()
        yield url, lambda: _report(file)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()


def main() -> None:
    """``python -m bench.profiles FILE COMMAND``: run a command of the service and leave its profile in a file.

    CPU is counted, not time: where the process waits nothing is spent. Importing is over before it begins.
    """
    file, command = sys.argv[1:]
    profile = cProfile.Profile(time.process_time)
    sys.argv = ["rewardpoints", command]
    try:
        profile.runcall(cli.main)
    finally:
        profile.dump_stats(file)


def _own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("REWARDPOINTS")}


def _report(file: Path) -> str:
    # pstats ships no types for what it read
    stats: Mapping[tuple[str, int, str], tuple[int, int, float, float, object]] = pstats.Stats(str(file)).stats  # type: ignore[attr-defined]
    spent = Counter[tuple[str, int, str]]()
    libraries = Counter[str]()
    for place, (_, _, own_seconds, _, _) in stats.items():
        if place[2].startswith("<module>") or any(waiting in place[2] for waiting in _WAITING):
            continue
        spent[place] += own_seconds  # type: ignore[assignment]  # typeshed counts in whole numbers only
        libraries[library_of(place[0], place[2])] += own_seconds  # type: ignore[assignment]  # as above
    total = sum(spent.values()) or 1.0
    lines = ["share  where", *(f"{seconds / total:5.1%}  {name}" for name, seconds in libraries.most_common(15)), ""]
    lines += ["share   calls  function"]
    for place, seconds in spent.most_common(MOST_FUNCTIONS):
        lines.append(f"{seconds / total:5.1%} {stats[place][1]:7}  {_short(place)}")
    return "\n".join(lines) + "\n"


def library_of(file: str, function: str) -> str:
    """Whose code a function is: a room of the service, a library, or Python's own."""
    parts = Path(file).parts
    if file == "~":
        return "built in (C)" if "<built-in" in function or "<method" in function else function
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    if "rewardpoints" in parts:
        return ".".join(parts[len(parts) - 1 - parts[::-1].index("rewardpoints") :][:2]).removesuffix(".py")
    return "Python's library"


def _short(place: tuple[str, int, str]) -> str:
    file, line, function = place
    if file == "~":
        return function
    return f"{library_of(file, function)}: {Path(file).name}:{line} {function}"


if __name__ == "__main__":
    main()
