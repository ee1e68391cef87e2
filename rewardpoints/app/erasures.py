"""Finishing erasures that were interrupted: by a kill, a lost ledger, a caller who did not ask again."""

import asyncio
import contextlib
from typing import Final

import structlog

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.ledger.accounts import Accounts

logger = structlog.get_logger(__name__)

POLL_SECONDS: Final = 15.0
BATCH: Final = 100


async def finish_erasures(accounts: Accounts, stopping: asyncio.Event) -> None:
    """Every 15 seconds look for interrupted erasures and finish them, until ``stopping`` is set. Several may run.

    An unreachable ledger is waited for.
    """
    while not stopping.is_set():
        finished = 0
        try:
            finished = await accounts.finish_erasures(limit=BATCH)
        except LedgerUnavailable as error:
            logger.warning("unfinished_erasures_wait", error=str(error))
        if finished:
            logger.warning("erasures_finished", accounts=finished)
        if finished < BATCH:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), POLL_SECONDS)
