"""Waiting that a shutdown ends."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def pause(seconds: float, stopping: asyncio.Event) -> None:
    """Wait ``seconds``, or until ``stopping`` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        pass


async def cut_short(work: Coroutine[Any, Any, None], stopping: asyncio.Event, *, grace_seconds: float) -> None:
    """Run ``work`` to its end, or for ``grace_seconds`` after ``stopping`` is set; then it is cancelled.

    Raises whatever ``work`` raises.
    """
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait([task], timeout=grace_seconds)
    finally:
        stopped.cancel()
        task.cancel()  # nothing to one that is done
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
