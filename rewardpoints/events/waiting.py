"""Waiting that a shutdown ends."""

import asyncio


async def pause(seconds: float, stopping: asyncio.Event) -> None:
    """Wait ``seconds``, or until ``stopping`` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        pass
