"""The servers a comparison runs on. Each comparison has its own, with nothing of another's in them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rewardpoints.embedded import kafka_server, mongodb_server
from rewardpoints.embedded.launcher import mongodb_uri
from tests.apache_kafka import ApacheKafka, fetched_jars
from tests.secantusd_rs import NAME as SECANTUSD
from tests.secantusd_rs import is_secantusd, secantusd_server

EMBEDDED: Final = "embedded"
APACHE: Final = "apache"
EMPTY_FETCH_PAUSE_MS: Final = 10
START_SECONDS: Final = 120.0


class NoServer(Exception):
    """A server that was asked for cannot be had here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which servers: a kind, the path of a ``secantusd-rs``, or the address of a server that runs already."""

    mongodb: str = EMBEDDED
    kafka: str = EMBEDDED
    cache: str | None = None
    """Of a ``secantusd-rs``, as it takes it (``14G``); its own default where None."""

    @property
    def name(self) -> str:
        """The choice as the name of a file."""
        mongodb, kafka = self.mongodb_kind, self.kafka_kind
        return f"mongodb-{mongodb}-kafka-{kafka}"

    @property
    def mongodb_kind(self) -> str:
        """The kind of MongoDB server, without paths and addresses."""
        if self.mongodb.startswith("mongodb"):
            return "running"
        return SECANTUSD if is_secantusd(self.mongodb) else self.mongodb

    @property
    def kafka_kind(self) -> str:
        """The kind of Kafka broker, without addresses."""
        return "running" if ":" in self.kafka else self.kafka

    @property
    def is_fastest(self) -> bool:
        """Whether the client and not the server is meant to be the limit."""
        return self.mongodb_kind == SECANTUSD

    @property
    def empty_fetch_pause_ms(self) -> int:
        """The embedded broker answers empty fetches at once; others wait by themselves."""
        return EMPTY_FETCH_PAUSE_MS if self.kafka == EMBEDDED else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Addresses of running servers, and their processes where they were started here."""

    mongodb_uri: str
    kafka: str
    mongodb_pids: tuple[int, ...]
    kafka_pids: tuple[int, ...]


@contextlib.asynccontextmanager
async def running_servers(choice: Choice, folder: Path) -> AsyncIterator[Servers]:
    """Both servers, with empty data in ``folder``; what was started here ends with the context.

    Raises:
        NoServer, SecantusdNotHere, ApacheKafkaNotHere, EmbeddedError: one cannot be had.
    """
    async with contextlib.AsyncExitStack() as stack:
        uri, mongodb_pids = await _mongodb(choice, folder / "mongodb", stack)
        kafka, kafka_pids = await _kafka(choice.kafka, folder / "kafka", stack)
        yield Servers(mongodb_uri=uri, kafka=kafka, mongodb_pids=mongodb_pids, kafka_pids=kafka_pids)


async def _mongodb(choice: Choice, folder: Path, stack: contextlib.AsyncExitStack) -> tuple[str, tuple[int, ...]]:
    mongodb = choice.mongodb
    if mongodb.startswith("mongodb"):
        return mongodb, ()
    if mongodb == EMBEDDED:
        server = mongodb_server(folder, start_seconds=START_SECONDS)
    elif is_secantusd(mongodb):
        server = secantusd_server(mongodb, folder, cache=choice.cache, start_seconds=START_SECONDS)
    else:
        raise NoServer(f"--mongodb {mongodb}: not one of {EMBEDDED}, a URI, or a {SECANTUSD}")
    await stack.enter_async_context(server)
    return mongodb_uri(server.address), (server.pid,)


async def _kafka(choice: str, folder: Path, stack: contextlib.AsyncExitStack) -> tuple[str, tuple[int, ...]]:
    if ":" in choice:
        return choice, ()
    if choice == EMBEDDED:
        broker = await stack.enter_async_context(kafka_server(folder, start_seconds=START_SECONDS))
        return broker.address, (broker.pid,)
    if choice != APACHE:
        raise NoServer(f"--kafka {choice}: not one of {EMBEDDED}, {APACHE}, or an address host:port")
    jars = await asyncio.to_thread(fetched_jars)
    cluster = await stack.enter_async_context(ApacheKafka(jars, folder))
    return cluster.bootstrap_servers, tuple(broker.pid for broker in cluster.brokers)
