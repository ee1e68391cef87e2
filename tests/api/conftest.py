"""A server over the fakes and one over the ledger, each started once; every test has a tenant of its own on it."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.api.harness import Api, Signer, TestServer, build_app, fake_server, ledger_server, serving


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer("RS256", "key-1")


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
            server = await stack.enter_async_context(ledger_server(ledger_uri, signer))
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
