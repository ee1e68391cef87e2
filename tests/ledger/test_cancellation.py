"""A call of PyMongo that is cancelled ends, and leaves nothing locked behind."""

import asyncio
import contextlib
import random
from typing import Any, cast

import pymongo.lock
import pymongo.network_layer

from rewardpoints.ledger.cancellation import survive_cancellation
from rewardpoints.settings import MongodbDriver
from tests.contracts.ledgers import open_ledger

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


class Taken:
    """A connection that takes a message at once."""

    gettimeout = 5.0

    async def write(self, _message: bytes) -> None:
        return


async def test_a_cancellation_is_not_lost_when_the_message_has_just_been_sent() -> None:
    survive_cancellation()
    for steps in range(5):
        call = asyncio.create_task(pymongo.network_layer.async_sendall(cast("Any", Taken()), b"x"))
        for _ in range(steps):
            await asyncio.sleep(0)
        if call.cancel():
            await asyncio.wait([call], timeout=BOUND_SECONDS)
            assert call.cancelled(), steps


async def test_a_transaction_ends_when_it_is_cancelled(mongodb_uri: str, database_name: str) -> None:
    ledger = open_ledger(mongodb_uri, database_name, MongodbDriver.PYMONGO)
    chance, cancelled = random.Random(5), 0
    try:
        await ledger.reap()
        for _ in range(100):
            call = asyncio.create_task(ledger.reap())
            await asyncio.sleep(chance.random() * 0.004)
            if call.cancel():
                await asyncio.wait([call], timeout=BOUND_SECONDS)
                assert call.cancelled()
                cancelled += 1
    finally:
        await ledger.close()
    assert cancelled
