"""Cancellation: PyMongo's waits on Python 3.11, which a cancelled call could otherwise leave locked for good."""

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

import pymongo.lock

Result = TypeVar("Result")


def survive_cancellation() -> None:
    """Let a call of PyMongo be cancelled at any moment; does nothing on Python 3.12 and later, or when done already.

    While PyMongo has no server, or no free connection, it waits for a condition by ``asyncio.wait_for``. Before Python
    3.12 that runs the wait in a task of its own. A caller cancelled while that task, its time being over, queues for
    the lock again, leaves without it: the caller releases a lock it does not hold, the task then takes it, and nobody
    ever gives it back. Every later call of the client hangs, its time-outs too. Deadlines cancel calls exactly when
    servers fail, so it takes minutes of kills to see. Python 3.12 waits in the caller's own task, and so does this.
    """
    if sys.version_info < (3, 12):
        pymongo.lock.wait_for = _wait_for  # type: ignore[assignment, attr-defined]  # as Python 3.12's, for coroutines


async def _wait_for(awaitable: Awaitable[Result], timeout: float | None) -> Result:  # noqa: ASYNC109 - asyncio's own name
    async with asyncio.timeout(timeout):
        return await awaitable
