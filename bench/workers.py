"""Workers as processes, fed from a topic that was filled before, timed from commit to commit."""

import asyncio
import contextlib
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import httpx

from bench.context import Bench, worker_settings
from bench.measuring import Figures
from bench.orders import Feed
from bench.processes import most_resident_megabytes, used
from bench.servers import Servers
from bench.topics import PATIENCE_SECONDS, POLL_SECONDS, Progress, fill
from rewardpoints.events.connection import consumer_group
from tests.e2e.stack import Server, Stack

WARM_UP_ORDERS = 400


async def worker_rate(bench: Bench, servers: Servers, topic: str, events: int) -> Figures:
    """Events a second, CPU per event and memory of the product's worker over a topic of ``events`` orders.

    The database, the group and the process are new. Timed from its first commit to its last, so that starting and
    joining do not count. Memory is the most that it ever held.
    """
    async with bench.stack(servers, topic=topic) as stack, _started(stack, 1) as workers:
        async with _progress(stack) as progress:
            await progress.until(lambda mark: mark.total > 0, what="a first commit", check=_alive(workers))
            figures = await _timed(progress, workers, events)
        await _check_lots(stack, events)
        return figures


async def joint_rate(bench: Bench, servers: Servers, feed: Feed, events: int, *, workers: int) -> Figures:
    """The same of several workers in one group, together. They are held still while the topic is filled for them.

    Before that each of them has applied orders, so that all have joined and none is about to.
    """
    async with bench.stack(servers) as stack, _started(stack, workers) as processes:
        kafka, topic = stack.kafka.bootstrap_servers, stack.kafka.topic_order_completed
        before = await _all_joined(stack, processes, feed)
        async with _progress(stack) as progress:
            await progress.until(lambda mark: mark.total == before, what="the first orders", check=_alive(processes))
            with _held_still(processes):
                await fill(kafka, topic, [feed], events, first=before)
            figures = await _timed(progress, processes, before + events)
        await _check_lots(stack, before + events)
        return figures


async def _timed(progress: Progress, workers: Sequence[Server], events: int) -> Figures:
    """From what is committed now until ``events`` are."""
    pids = [worker.process.pid for worker in workers]
    before, first = used(*pids), await progress.mark()
    last = await progress.until(lambda mark: mark.total >= events, what="every order applied", check=_alive(workers))
    after, done = used(*pids), last.total - first.total
    if not done:
        raise RuntimeError(f"{events} orders were applied at once: too few to be timed")
    return {
        "per_second": done / (last.at - first.at),
        "cpu_us": (after.cpu_seconds - before.cpu_seconds) / done * 1e6,
        "megabytes": max(most_resident_megabytes(pid) for pid in pids),
    }


def _progress(stack: Stack) -> Progress:
    group = consumer_group(stack.kafka, "orders")
    return Progress(stack.kafka.bootstrap_servers, stack.kafka.topic_order_completed, group)


def _alive(workers: Sequence[Server]) -> Callable[[], None]:
    def check() -> None:
        for worker in workers:
            if worker.process.returncode is not None:
                raise RuntimeError(f"a worker ended:\n{worker.log[-2000:]}")

    return check


async def _check_lots(stack: Stack, orders: int) -> None:
    found = await stack.lot_count()
    if found != orders:
        raise RuntimeError(f"{found} lots of {orders} orders")


async def _all_joined(stack: Stack, workers: Sequence[Server], feed: Feed) -> int:
    """Publishes orders until every worker has applied some; returns how many there are now."""
    published, deadline = 0, time.monotonic() + PATIENCE_SECONDS
    for worker in workers:
        await worker.ready()
    async with httpx.AsyncClient(timeout=30) as http:
        while True:
            topic = stack.kafka.topic_order_completed
            await fill(stack.kafka.bootstrap_servers, topic, [feed], WARM_UP_ORDERS, first=published)
            published += WARM_UP_ORDERS
            while await stack.lot_count() < published:
                _alive(workers)()
                await asyncio.sleep(POLL_SECONDS)
            if all([await _added_by(worker, http) for worker in workers]):
                return published
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(workers)} workers did not share the topic")


async def _added_by(worker: Server, http: httpx.AsyncClient) -> int:
    text = (await http.get(f"{worker.url}/metrics")).raise_for_status().text
    found = re.search(r"^rewardpoints_lots_added_total (\S+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


@contextlib.contextmanager
def _held_still(workers: Sequence[Server]) -> Iterator[None]:
    for worker in workers:
        worker.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            worker.process.send_signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def _started(stack: Stack, workers: int) -> AsyncIterator[Sequence[Server]]:
    settings = {**worker_settings(), "KAFKA_SESSION_TIMEOUT_MS": "60000"}  # held still, they send no heartbeats
    processes = [await stack.worker(f"w{number}", **settings) for number in range(1, workers + 1)]
    try:
        yield processes
    finally:
        for process in processes:
            await process.stop()


async def plain_rate(servers: Servers, topic: str, database: str, events: int) -> Figures:
    """The same of the plain worker (``bench.plain_worker``), which measures itself; it stops after ``events``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.plain_worker", servers.mongodb_uri, database),
        *(servers.kafka, topic, f"{database}-plain", str(events)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"the plain worker failed:\n{err.decode()[-2000:]}")
    figures: dict[str, float] = json.loads(out.splitlines()[-1])
    return figures
