"""A process from its start to its drained end."""

import asyncio
import gc
from dataclasses import asdict
from typing import Any

import structlog

from rewardpoints.app.service import Parts, Service
from rewardpoints.app.stopping import stop_signals, until_first
from rewardpoints.settings import Settings

logger = structlog.get_logger(__name__)


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
            gc.freeze()  # what the start made stays: the collector need not walk over it again
            logger.info("started", url=service.http.url, parts=[name for name, on in asdict(parts).items() if on])
            await until_first(asked.wait(), service.wait_failed())
        finally:
            await service.stop()
