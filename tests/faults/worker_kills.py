"""Worker kills: workers killed -9 again and again while 200,000 events, one in ten twice, go through them.

Kills fall evenly over the load, each a random moment after its share of the events was committed, so that they meet a
batch in every phase: polled, half written, written and not committed. Nothing may be lost, nothing doubled.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.stack import Server, Stack
from tests.events.wire import end_of
from tests.faults.environment import Outcome, Say, running_environment
from tests.faults.load import OrderLoad, Orders
from tests.faults.model import compare_orders, nothing_refused, verify
from tests.faults.sampler import progress
from tests.faults.shop import drained

SHARE_SECONDS = 600.0
"""How long one share of the load may take between two kills."""

_AHEAD = 6000
_PUBLISHED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerKillsOptions:
    """``orders`` with ``duplicate_share`` more deliveries; ``kills`` over ``workers`` in turn."""

    orders: int = 200_000
    kills: int = 50
    workers: int = 2
    duplicate_share: float = 0.1
    customers: int = 5000
    verify: bool = True
    seed: int = 1


async def worker_kills(options: WorkerKillsOptions, folder: Path, say: Say) -> Outcome:
    """Run it; the figures and every violation."""
    outcome, chance = Outcome(), random.Random(options.seed)
    async with running_environment(folder) as environment:
        stack = environment.stack
        orders = Orders(options.customers)
        load = OrderLoad(stack, orders, chance, duplicate_share=options.duplicate_share)
        workers = [await stack.worker(f"w{number}") for number in range(1, options.workers + 1)]
        for worker in workers:
            await worker.ready()
        began = time.monotonic()
        publishing = asyncio.create_task(_publish(stack, load, options.orders))
        try:
            lags = await _kill(stack, workers, options, publishing, say)
            await publishing
        finally:
            publishing.cancel()
        await drained(stack, "orders", stack.kafka.topic_order_completed)
        for worker in workers:  # one that is just starting ends at SIGTERM as any process does
            await worker.ready()
        seconds = time.monotonic() - began
        outcome.figures |= {
            "kills": len(lags),
            "of these with records unread or uncommitted": sum(one > 0 for one in lags),
            "events": await end_of(stack.kafka, stack.kafka.topic_order_completed),
            "of these duplicates": load.duplicates,
            "seconds of load": round(seconds, 1),
        }
        say("comparing with the model")
        await compare_orders(stack, orders, load.accepted, outcome)
        if options.verify:
            await verify(stack, outcome)
        await nothing_refused(stack, workers, outcome)
    return outcome


async def _publish(stack: Stack, load: OrderLoad, total: int) -> None:
    """All of them, but never much more ahead than the workers take in some seconds: kills shall meet a live topic."""
    while load.accepted < total:
        await load.publish(min(_PUBLISHED_AT_ONCE, total - load.accepted))
        while (await _progress(stack))[1] > _AHEAD:  # noqa: ASYNC110 - what is waited for is on a server
            await asyncio.sleep(0.5)


async def _kill(
    stack: Stack, workers: Sequence[Server], options: WorkerKillsOptions, publishing: asyncio.Task[None], say: Say
) -> list[int]:
    """The lag at each kill."""
    lags, chance = [], random.Random(options.seed)
    events = options.orders * (1 + options.duplicate_share)
    for number in range(options.kills):
        share = int(events * (number + 0.5) / options.kills)
        deadline = time.monotonic() + SHARE_SECONDS
        while (committed := (await _progress(stack))[0]) < share:
            assert time.monotonic() < deadline, f"{committed} of {share} committed within {SHARE_SECONDS} s"
            if publishing.done():
                await publishing
            await asyncio.sleep(0.1)
        await asyncio.sleep(chance.uniform(0, 0.5))
        worker = workers[number % len(workers)]
        assert worker.process.returncode is None, f"ended with {worker.process.returncode}:\n{worker.log[-3000:]}"
        await worker.kill()
        committed, left = await _progress(stack)
        lags.append(left)
        await worker.start()
        say(f"kill {number + 1} of {options.kills}: {committed} events committed, lag {left}")
    return lags


async def _progress(stack: Stack) -> tuple[int, int]:
    """Events committed, and those left. Counting lots instead would keep the embedded server busy."""
    while (found := await progress(stack, "orders", stack.kafka.topic_order_completed)) is None:  # noqa: ASYNC110 - Kafka says when
        await asyncio.sleep(0.1)
    committed, end = found
    return committed, end - committed
