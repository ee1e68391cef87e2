"""A process from its start to its drained end."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import structlog

from rewardpoints.app.service import Parts, Service
from rewardpoints.settings import Settings

logger = structlog.get_logger(__name__)


@asynccontextmanager
async def stop_signals() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set. A second signal ends the process at once, without draining."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def ask() -> None:
        if asked.is_set():
            os._exit(1)
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)
    try:
        yield asked
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def until_first(*works: Coroutine[Any, Any, Any]) -> None:
    """Run the works side by side until one ends; the others are cancelled, and its exception is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _log_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What no task or callback handled. asyncio's own handler would show exceptions and arguments in full."""
    what = str(context.get("message", "")).partition("(")[0]
    logger.error("event_loop_error", what=what, exc_info=context.get("exception"))


async def serve(settings: Settings, parts: Parts) -> None:
    """Run a process until a signal, then drain.

    Raises:
        ProcessFailed, AddressInUse: it cannot go on, or cannot start.
    """
    asyncio.get_running_loop().set_exception_handler(_log_loop_error)
    async with stop_signals() as asked:
        service = Service(settings, parts)
        try:
            await service.start()
            logger.info("started", url=service.http.url, parts=[name for name, on in asdict(parts).items() if on])
            await until_first(asked.wait(), service.wait_failed())
        finally:
            await service.stop()
