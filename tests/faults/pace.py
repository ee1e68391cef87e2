"""How long a worker takes for records that are all there already."""

import signal
import time
from collections.abc import Awaitable
from dataclasses import dataclass

from tests.e2e.stack import Server, Stack
from tests.faults.sampler import lag

ROUND_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds from the first record to the last commit, and the longest time without a commit on the way."""

    seconds: float
    longest_wait: float


async def pace(stack: Stack, worker: Server, publishing: Awaitable[None]) -> Pace:
    """Publishes while the worker is stopped, then times it until the order group has committed everything."""
    worker.process.send_signal(signal.SIGSTOP)
    try:
        await publishing
    finally:
        worker.process.send_signal(signal.SIGCONT)
    began = moved = time.monotonic()
    longest, left = 0.0, None
    while left != 0:
        found = await lag(stack, "orders", stack.kafka.topic_order_completed)
        now = time.monotonic()
        if found is not None and (left is None or found < left):
            left, moved = found, now
        longest = max(longest, now - moved)
        assert now - began < ROUND_SECONDS, f"{found} records left after {ROUND_SECONDS} s:\n{worker.log[-2000:]}"
    return Pace(time.monotonic() - began, longest)
