"""Servers of a scenario's own, to be killed, and the service as processes over them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from rewardpoints.embedded import Server, kafka_server, keep_reaping, mongodb_server
from rewardpoints.embedded.launcher import mongodb_uri
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import MongodbSettings, ServiceSettings, SiteSettingsSettings
from rewardpoints.telemetry import Metrics
from tests.e2e.stack import Stack, running_stack
from tests.e2e.test_redemptions import OPTION
from tests.secantusd_rs import is_secantusd, secantusd_server
from tests.servers import apache_kafka, chosen_servers

SERVER_SECONDS = 60.0
"""How long a killed server may take to come back: the MongoDB-wire server reads its journal first."""

PATIENCE_SECONDS = 1800

Say = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """What a scenario came to: figures to print, and every violation as a line."""

    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Environment:
    """A MongoDB-wire server and a broker, both to be broken, and the stack over them."""

    mongodb: Server
    kafka: Server
    apache: bool
    """Whether the broker is one of Apache Kafka, which keeps what it acknowledged when it is killed."""
    stack: Stack


@contextlib.asynccontextmanager
async def running_environment(folder: Path) -> AsyncIterator[Environment]:
    """Servers and topics are there; processes are started by the scenario. Everything ends with the context.

    The MongoDB-wire server is as ``REWARDPOINTS_TEST_MONGODB`` says, embedded or a ``secantusd-rs``; the broker as
    ``REWARDPOINTS_TEST_KAFKA`` says, embedded or apache.
    As ``rewardpoints dev`` does, a tiny transaction every few seconds ends what killed clients left open.
    """
    (folder / "service").mkdir(parents=True)
    apache = chosen_servers()["kafka"] == "apache"
    async with (
        _broker(folder / "kafka", apache=apache) as kafka,
        _mongodb(folder / "mongodb") as mongodb,
        running_stack(
            mongodb_uri=mongodb_uri(mongodb.address),
            kafka=kafka.address,
            database="faults",
            prefix="faults-",
            folder=folder / "service",
        ) as stack,
    ):
        reaping = asyncio.create_task(keep_reaping(stack.ledger.reap))
        try:
            yield Environment(mongodb, kafka, apache, stack)
        finally:
            reaping.cancel()
            await asyncio.gather(reaping, return_exceptions=True)


def _mongodb(folder: Path) -> Server:
    choice = chosen_servers()["mongodb"]
    if is_secantusd(choice):
        return secantusd_server(choice, folder, start_seconds=SERVER_SECONDS)
    return mongodb_server(folder, start_seconds=SERVER_SECONDS)


@contextlib.asynccontextmanager
async def _broker(folder: Path, *, apache: bool) -> AsyncIterator[Server]:
    if apache:
        async with apache_kafka(folder) as cluster:
            yield cluster.brokers[0]
    else:
        async with kafka_server(folder, start_seconds=SERVER_SECONDS) as server:
            yield server


@contextlib.asynccontextmanager
async def patient_ledger(stack: Stack) -> AsyncIterator[Ledger]:
    """The ledger, to be read as a whole: nothing is in a hurry, and the embedded server takes its time."""
    ledger = Ledger.open(
        MongodbSettings.model_construct(  # unchecked: longer than a service may wait
            uri=SecretStr(stack.mongodb_uri), database=stack.database, operation_timeout_seconds=PATIENCE_SECONDS
        ),
        ServiceSettings(),
        SiteSettingsSettings(cache_seconds=0),
        lambda: datetime.now(UTC),
        Metrics(),
    )
    try:
        yield ledger
    finally:
        await ledger.close()


async def redeem_option(stack: Stack, api_url: str, points: int) -> str:
    """A redeem option of ``points``; its id."""
    async with httpx.AsyncClient(base_url=api_url, timeout=20) as client:
        answer = await client.post(
            "/reward-points/shop/redeemOptions", json={**OPTION, "points": points}, headers=stack.employee()
        )
        assert answer.status_code == httpx.codes.OK, answer.text
        return str(answer.json()[-1]["id"])


async def pause(seconds: float, enough: asyncio.Event) -> None:
    """Wait, but no longer than until it is enough."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(enough.wait(), max(seconds, 0.001))
