"""A call of PyMongo that is cancelled while it waits leaves nothing locked behind."""

import asyncio
import contextlib
from typing import Any

import pymongo.lock

from rewardpoints.ledger.cancellation import survive_cancellation

BOUND_SECONDS = 5.0


async def a_caller_whose_time_is_over(lock: Any) -> asyncio.Task[None]:
    """A task that waits for a condition as PyMongo does; its time is over, and it wants the lock, which is held."""
    condition = pymongo.lock._async_create_condition(lock)

    async def wait() -> None:
        async with lock:
            await pymongo.lock._async_cond_wait(condition, 0.01)

    caller = asyncio.create_task(wait())
    async with asyncio.timeout(BOUND_SECONDS):
        while not condition._waiters:  # noqa: ASYNC110 - the lock's inside tells nobody
            await asyncio.sleep(0)
        await lock.acquire()
        while condition._waiters or not lock._waiters:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.001)
    return caller


async def test_a_caller_cancelled_when_its_time_is_over_leaves_the_lock_to_others() -> None:
    survive_cancellation()
    lock = pymongo.lock._async_create_lock()
    caller = await a_caller_whose_time_is_over(lock)
    caller.cancel()
    lock.release()
    with contextlib.suppress(asyncio.CancelledError):
        await caller
    async with asyncio.timeout(BOUND_SECONDS), lock:
        pass


async def test_a_cancelled_caller_does_not_take_the_lock_from_its_holder() -> None:
    survive_cancellation()
    lock = pymongo.lock._async_create_lock()
    caller = await a_caller_whose_time_is_over(lock)
    caller.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert lock.locked()
    assert not caller.done()  # it has to have the lock before it can leave
    lock.release()
    with contextlib.suppress(asyncio.CancelledError):
        await caller
    assert not lock.locked()
