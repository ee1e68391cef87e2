"""The servers the tests run against, chosen by the environment.

- ``REWARDPOINTS_TEST_MONGODB``: ``embedded`` (default), ``testcontainers`` (MongoDB 8, one-node replica set) or the
  path of a ``secantusd-rs`` (see ``secantusd_rs.py``).
- ``REWARDPOINTS_TEST_KAFKA``: ``embedded`` (default), ``apache`` (Apache Kafka 4 as a child process, its jars from
  Maven, see ``apache_kafka.py``) or ``testcontainers`` (the same in a container).
- ``REWARDPOINTS_TEST_MONGODB_URI``, ``REWARDPOINTS_TEST_KAFKA_BOOTSTRAP``: a running server; goes before the choice.

A choice that cannot be had on this machine skips the tests that need it, with the reason.
"""

import asyncio
import contextlib
import gc
import os
import warnings
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from rewardpoints.embedded import kafka_server, mongodb_server
from rewardpoints.embedded.launcher import mongodb_uri
from rewardpoints.embedded.ports import HOST, free_port
from rewardpoints.embedded.probes import NotReady, probe_kafka
from tests.apache_kafka import ApacheKafka, ApacheKafkaNotHere, fetched_jars
from tests.secantusd_rs import is_secantusd, secantusd_server

MONGODB_IMAGE = "mongo:8.0"
KAFKA_IMAGE = "apache/kafka:4.0.0"

_MONGODB_PORT, _KAFKA_PORT = 27017, 9092
_CONTAINER_SECONDS = 120.0
_POLL_SECONDS = 0.2


def chosen_servers() -> dict[str, str]:
    """What the environment chose, by kind of server: an address, or the name of a choice."""
    return {
        "mongodb": os.environ.get("REWARDPOINTS_TEST_MONGODB_URI")
        or os.environ.get("REWARDPOINTS_TEST_MONGODB", "embedded"),
        "kafka": os.environ.get("REWARDPOINTS_TEST_KAFKA_BOOTSTRAP")
        or os.environ.get("REWARDPOINTS_TEST_KAFKA", "embedded"),
    }


@contextlib.asynccontextmanager
async def running_mongodb(folder: Path) -> AsyncIterator[str]:
    """The connection string of the chosen MongoDB; one that is started here ends with the context."""
    match chosen_servers()["mongodb"]:
        case "embedded":
            async with mongodb_server(folder, test_commands=True) as server:
                yield mongodb_uri(server.address)
        case "testcontainers":
            async with _running(_mongodb_container()) as container:
                port = container.get_exposed_port(_MONGODB_PORT)
                uri = mongodb_uri(f"{container.get_container_host_ip()}:{port}")
                await _until_primary(uri)
                yield uri
        case uri if uri.startswith("mongodb"):
            yield uri
        case program if is_secantusd(program):
            async with secantusd_server(program, folder) as server:
                yield mongodb_uri(server.address)
        case other:
            raise pytest.UsageError(f"REWARDPOINTS_TEST_MONGODB={other}: not one of embedded, testcontainers")


@contextlib.asynccontextmanager
async def running_kafka(folder: Path) -> AsyncIterator[str]:
    """``host:port`` of the chosen broker; one that is started here ends with the context."""
    match chosen_servers()["kafka"]:
        case "embedded":
            async with kafka_server(folder) as server:
                yield server.address
        case "testcontainers":
            port = free_port()  # must be known beforehand: a broker tells its clients where it is
            async with _running(_kafka_container(port)) as container:
                host = container.get_container_host_ip()
                await _until_broker(host, port)
                yield f"{host}:{port}"
        case "apache":
            async with apache_kafka(folder) as cluster:
                yield cluster.bootstrap_servers
        case address if ":" in address:
            yield address
        case other:
            raise pytest.UsageError(f"REWARDPOINTS_TEST_KAFKA={other}: not one of embedded, testcontainers, apache")


@contextlib.asynccontextmanager
async def apache_kafka(
    folder: Path, *, brokers: int = 1, scram_users: Mapping[str, str] | None = None, **settings: str
) -> AsyncIterator[ApacheKafka]:
    """A cluster of Apache Kafka of the caller's own; skips the test, with the reason, where it cannot be had.

    ``settings`` are the brokers', with underscores for dots.
    """
    try:
        jars = await asyncio.to_thread(fetched_jars)
    except ApacheKafkaNotHere as reason:
        pytest.skip(str(reason))
    named = {name.replace("_", "."): value for name, value in settings.items()}
    async with ApacheKafka(jars, folder, brokers=brokers, settings=named, scram_users=scram_users) as cluster:
        yield cluster


async def abort_open_transactions(uri: str) -> None:
    """Ends every open transaction of the server; one that a killed client left open would block others for a minute."""
    async with AsyncMongoClient[dict[str, Any]](uri) as client:
        await client.admin.command("killAllSessions", [])


def _mongodb_container() -> DockerContainer:
    _need_docker()
    return (
        DockerContainer(MONGODB_IMAGE)
        .with_command("--replSet rs0 --bind_ip_all --setParameter enableTestCommands=1")
        .with_exposed_ports(_MONGODB_PORT)
    )


def _kafka_container(port: int) -> DockerContainer:
    _need_docker()
    container = DockerContainer(KAFKA_IMAGE)
    container.with_bind_ports(_KAFKA_PORT, port)
    settings = {
        "NODE_ID": "1",
        "PROCESS_ROLES": "broker,controller",
        "LISTENERS": f"PLAINTEXT://:{_KAFKA_PORT},CONTROLLER://:9093",
        "ADVERTISED_LISTENERS": f"PLAINTEXT://{container.get_docker_client().host()}:{port}",
        "LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    return container.with_envs(**{f"KAFKA_{name}": value for name, value in settings.items()})


def _need_docker() -> None:
    """Skips the test where no Docker engine answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a refused client leaves its socket to the collector
        try:
            DockerClient().client.close()
        except Exception as error:  # noqa: BLE001  # whatever the client raises, there is no engine to use
            reason = f"no Docker engine answers: {error}"
        else:
            return
        gc.collect()
    pytest.skip(reason)


@contextlib.asynccontextmanager
async def _running(container: DockerContainer) -> AsyncIterator[DockerContainer]:
    try:
        await asyncio.to_thread(container.start)
        yield container
    finally:
        await asyncio.to_thread(container.stop)


async def _until_primary(uri: str) -> None:
    """Makes the server a replica set of one and waits until it takes writes."""
    members = [{"_id": 0, "host": f"{HOST}:{_MONGODB_PORT}"}]
    async with (
        asyncio.timeout(_CONTAINER_SECONDS),
        AsyncMongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=2000) as client,
    ):
        while True:
            with contextlib.suppress(PyMongoError):  # not up yet, or initiated a moment ago
                hello = await client.admin.command("hello")
                if hello.get("isWritablePrimary"):
                    return
                if "setName" not in hello:
                    await client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
            await asyncio.sleep(_POLL_SECONDS)


async def _until_broker(host: str, port: int) -> None:
    async with asyncio.timeout(_CONTAINER_SECONDS):
        while True:
            with contextlib.suppress(OSError, EOFError, NotReady):
                return await probe_kafka(host, port)
            await asyncio.sleep(_POLL_SECONDS)
