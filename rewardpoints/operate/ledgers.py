"""The ledger as a command opens it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rewardpoints.app.clock import utc_now
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import MongodbSettings, Settings
from rewardpoints.telemetry import Metrics


@asynccontextmanager
async def open_ledger(settings: Settings, mongodb: MongodbSettings | None = None) -> AsyncIterator[Ledger]:
    """The ledger of the settings, or one in another database, closed at the end.

    Raises:
        LedgerUnavailable: MongoDB does not answer.
    """
    ledger = Ledger.open(mongodb or settings.mongodb, settings.service, settings.site_settings, utc_now, Metrics())
    try:
        await ledger.ping()
        yield ledger
    finally:
        await ledger.close()
