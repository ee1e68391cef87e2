"""The ledger under its contract: the same tests on every driver, and on the database that the simulation runs on.

Only what no simulation can show asks for the real server alone: ``test_ledger_hot_queries`` (plans and times).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import MongodbDriver
from tests.contracts.ledgers import Driver, LedgerOpener, open_ledger
from tests.contracts.simulated import FailingServer
from tests.servers import abort_open_transactions


@pytest.fixture(params=[*MongodbDriver, "simulated"], ids=str)
def driver(request: pytest.FixtureRequest) -> Driver:
    """The driver to reach the server with; or a server of the simulation, which is its own."""
    chosen: MongodbDriver | str = request.param
    return chosen if isinstance(chosen, MongodbDriver) else FailingServer()


@pytest.fixture
def end_transactions(mongodb_uri: str, driver: Driver) -> Callable[[], Awaitable[None]]:
    """Ends every open transaction, as the server does by itself a minute later."""

    async def end() -> None:
        if isinstance(driver, FailingServer):
            driver.abort_all()
        else:
            await abort_open_transactions(mongodb_uri)

    return end


@pytest.fixture
async def ledger(mongodb_uri: str, database_name: str, driver: Driver) -> AsyncIterator[Ledger]:
    """A ledger of this test's own, empty and with its indexes."""
    opened = open_ledger(mongodb_uri, database_name, driver)
    try:
        await opened.ensure_indexes()
        yield opened
    finally:
        await opened.close()


@pytest.fixture
def another(mongodb_uri: str, database_name: str, driver: Driver) -> LedgerOpener:
    """Opens further ledgers on the same database, as other processes would; with service settings as given."""

    @asynccontextmanager
    async def opener(**service: Any) -> AsyncIterator[Ledger]:
        opened = open_ledger(mongodb_uri, database_name, driver, **service)
        try:
            yield opened
        finally:
            await opened.close()

    return opener
