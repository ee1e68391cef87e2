"""The ledger under its contract: the same tests on every driver."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import MongodbDriver
from tests.contracts.ledgers import LedgerOpener, open_ledger


@pytest.fixture(params=list(MongodbDriver), ids=str)
def driver(request: pytest.FixtureRequest) -> MongodbDriver:
    chosen: MongodbDriver = request.param
    return chosen


@pytest.fixture
async def ledger(mongodb_uri: str, database_name: str, driver: MongodbDriver) -> AsyncIterator[Ledger]:
    """A ledger of this test's own, empty and with its indexes."""
    opened = open_ledger(mongodb_uri, database_name, driver)
    try:
        await opened.ensure_indexes()
        yield opened
    finally:
        await opened.close()


@pytest.fixture
def another(mongodb_uri: str, database_name: str, driver: MongodbDriver) -> LedgerOpener:
    """Opens further ledgers on the same database, as other processes would; with service settings as given."""

    @asynccontextmanager
    async def opener(**service: Any) -> AsyncIterator[Ledger]:
        opened = open_ledger(mongodb_uri, database_name, driver, **service)
        try:
            yield opened
        finally:
            await opened.close()

    return opener
