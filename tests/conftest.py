"""Fixtures of every test: one pair of servers for each test process, started when a test first asks for one."""

import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import hypothesis
import pymongo
import pytest
from pymongo import MongoClient

from tests.servers import chosen_servers, running_kafka, running_mongodb

_DROP_SECONDS = 120.0

# how long an example takes is the machine's business
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")


def pytest_report_header() -> str:
    chosen = chosen_servers()
    return f"servers: MongoDB {_without_password(chosen['mongodb'])}, Kafka {chosen['kafka']}"


@pytest.fixture(scope="session")
async def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The connection string of a replica set that takes transactions; shared, so use ``database_name``."""
    async with running_mongodb(tmp_path_factory.mktemp("mongodb")) as uri:
        yield uri


@pytest.fixture(scope="session")
async def kafka_bootstrap_servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """``host:port`` of a broker; shared, so let topics and groups begin with ``topic_prefix``."""
    async with running_kafka(tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture(scope="session")
def cleaning_client(mongodb_uri: str) -> Iterator[MongoClient[dict[str, Any]] | None]:
    """Drops the databases of the tests on a server that outlives them; an embedded one goes with its folder."""
    if chosen_servers()["mongodb"] == "embedded":
        yield None
        return
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        yield client


@pytest.fixture
def database_name(cleaning_client: MongoClient[dict[str, Any]] | None) -> Iterator[str]:
    """The name of a database of this test's own."""
    name = f"test_{secrets.token_hex(8)}"
    yield name
    if cleaning_client is not None:
        with pymongo.timeout(_DROP_SECONDS):
            cleaning_client.drop_database(name)


@pytest.fixture
def topic_prefix() -> str:
    """The beginning of topic and group names of this test's own."""
    return f"test-{secrets.token_hex(8)}-"


def _without_password(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
