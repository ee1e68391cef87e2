"""Looking at erasures again: those that were interrupted, and once at those that ended."""

import asyncio
from typing import Final

import structlog

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.events.waiting import pause
from rewardpoints.ledger.accounts import Accounts
from rewardpoints.telemetry import Metrics

logger = structlog.get_logger(__name__)

POLL_SECONDS: Final = 15.0
BATCH: Final = 100


async def look_at_erasures(accounts: Accounts, metrics: Metrics, stopping: asyncio.Event) -> None:
    """Every 15 seconds look at the erasures that are due, until ``stopping`` is set. Several may run.

    An unreachable ledger is waited for. Also keeps the metrics of what is still due after a look.
    """
    while not stopping.is_set():
        looked = 0
        try:
            try:
                looked = await accounts.look_again(limit=BATCH)
            finally:  # one erasure that cannot be looked at does not hide that it is due
                due = await accounts.erasures_due()
                metrics.erasures_due.set(due.count)
                metrics.erasures_due_oldest_seconds.set(due.oldest_seconds)
        except LedgerUnavailable as error:
            logger.warning("erasure_looks_wait", error=str(error))
        if looked < BATCH:
            await pause(POLL_SECONDS, stopping)
