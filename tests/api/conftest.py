"""A server over the fakes and one over the ledger, each started once; every test has a tenant of its own on it."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pymongo
import pytest
from pydantic import SecretStr
from pymongo import MongoClient

from rewardpoints.api.ports import Ports
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import MongodbSettings, ServiceSettings, SiteSettingsSettings
from rewardpoints.telemetry import Metrics
from tests.api.fakes import RecordedCouponRequests, TestClock
from tests.api.harness import Api, Signer, TestServer, build_app, fake_server, serving


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer("RS256", "key-1")


@asynccontextmanager
async def _ledger_server(mongodb_uri: str, signer: Signer) -> AsyncIterator[TestServer]:
    database = f"test_{secrets.token_hex(8)}"
    clock = TestClock()
    ledger = Ledger.open(
        MongodbSettings(uri=SecretStr(mongodb_uri), database=database),
        ServiceSettings(),
        SiteSettingsSettings(cache_seconds=0),
        clock,
        Metrics(),
    )
    await ledger.ensure_indexes()
    requests = RecordedCouponRequests()
    ports = Ports(
        accounts=ledger.accounts,
        redemptions=ledger.redemptions,
        redeem_options=ledger.redeem_options,
        settings_store=ledger.site_settings,
        settings_reader=ledger.settings_reader,
        coupon_requests=requests,
    )
    try:
        yield TestServer(ports=ports, clock=clock, signer=signer, coupon_requests=requests)
    finally:
        await ledger.close()
        with pymongo.timeout(10), MongoClient[dict[str, Any]](mongodb_uri) as client:
            client.drop_database(database)


@pytest.fixture(scope="session", params=["fakes", "ledger"])
def ledger_uri(request: pytest.FixtureRequest) -> str | None:
    """Where the ledger keeps its data; None for the fakes, which need no server."""
    if request.param == "fakes":
        return None
    uri: str = request.getfixturevalue("mongodb_uri")
    return uri


@pytest.fixture(scope="session")
async def shared_server(ledger_uri: str | None, signer: Signer) -> AsyncIterator[TestServer]:
    """One running server for each kind of ports."""
    async with AsyncExitStack() as stack:
        if ledger_uri is None:
            server = fake_server(signer)
        else:
            server = await stack.enter_async_context(_ledger_server(ledger_uri, signer))
        yield await stack.enter_async_context(serving(server, build_app(server)))


@pytest.fixture(scope="session")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as opened:
        yield opened


@pytest.fixture
def api(shared_server: TestServer, client: httpx.AsyncClient) -> Iterator[Api]:
    """A client with a fresh tenant, on each kind of ports."""
    yield Api(shared_server, client, f"shop-{secrets.token_hex(4)}")
    shared_server.restore()


@pytest.fixture(scope="session")
async def fakes_server(signer: Signer) -> AsyncIterator[TestServer]:
    server = fake_server(signer)
    async with serving(server, build_app(server)):
        yield server


@pytest.fixture
def fake_api(fakes_server: TestServer, client: httpx.AsyncClient) -> Iterator[Api]:
    """A client of a server whose fakes are this test's own: for what the ledger has no part in."""
    fakes_server.empty()
    yield Api(fakes_server, client, "shop")
    fakes_server.restore()
