"""Cancellation: PyMongo's waits on Python 3.11, which could otherwise lose a cancellation, or a lock for good."""

import asyncio
import sys
from collections.abc import Awaitable
from types import ModuleType
from typing import TypeVar

import pymongo.lock
import pymongo.network_layer
import pymongo.pool_shared

Result = TypeVar("Result")


def survive_cancellation() -> None:
    """Let a call of PyMongo be cancelled at any moment; does nothing on Python 3.12 and later, or when done already.

    Before Python 3.12 ``asyncio.wait_for`` runs what it waits for in a task of its own.

    - A caller cancelled when that task has just ended gets its result, and the cancellation is lost. PyMongo sends
      every message so: one cancellation in four had no effect. The deadlines of requests cancel, and so does a stop.
    - While PyMongo has no server, or no free connection, it waits for a condition so. A caller cancelled while that
      task, its time being over, queues for the lock again, leaves without it: the caller releases a lock it does not
      hold, the task then takes it, and nobody ever gives it back. Every later call of the client hangs, its time-outs
      too. Deadlines cancel calls exactly when servers fail, so it takes minutes of kills to see.

    Python 3.12 waits in the caller's own task, and so does this. Only PyMongo's modules see it.
    """
    if sys.version_info < (3, 12):
        pymongo.lock.wait_for = _wait_for  # type: ignore[assignment, attr-defined]  # as Python 3.12's, for coroutines
        for module in (pymongo.network_layer, pymongo.pool_shared):
            module.asyncio = _asyncio  # type: ignore[attr-defined]  # they call it by ``asyncio.wait_for``


async def _wait_for(awaitable: Awaitable[Result], timeout: float | None) -> Result:  # noqa: ASYNC109 - asyncio's own name
    async with asyncio.timeout(timeout):
        return await awaitable


_asyncio = ModuleType("asyncio", "The library's own, but for ``wait_for``.")
vars(_asyncio).update({**vars(asyncio), "wait_for": _wait_for})
