"""What a comparison is given: the choice of servers, the sizes, a folder, and a way to say how it goes."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from pymongo import AsyncMongoClient

from bench.measuring import Outcome
from bench.servers import EMBEDDED, Choice, Servers, running_servers
from bench.sizes import Sizes
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import MongodbSettings, ServiceSettings, SiteSettingsSettings
from rewardpoints.telemetry import Metrics
from tests.e2e.stack import Stack

PARTITIONS = 4
PATIENCE_SECONDS = 60
SETTINGS_CACHE_SECONDS = 900
"""As in production; the tests' stack reads the settings with every batch."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One run of the program."""

    choice: Choice
    sizes: Sizes
    folder: Path
    say: Say

    @contextlib.asynccontextmanager
    async def servers(self) -> AsyncIterator[Servers]:
        """Empty servers of the caller's own."""
        folder = self.folder / secrets.token_hex(4)
        folder.mkdir(parents=True)
        async with running_servers(self.choice, folder) as servers:
            yield servers

    @contextlib.asynccontextmanager
    async def stack(self, servers: Servers, *, topic: str | None = None) -> AsyncIterator[Stack]:
        """A database, groups and topics of the caller's own, ready for the service's processes.

        ``topic`` is an order topic that exists already. The database is dropped at the end, so that no side finds more
        in the server than the one before it did; but the embedded server takes longer for that than for all else, and
        ends with the comparison.
        """
        name = f"bench-{secrets.token_hex(4)}"
        folder = self.folder / name
        folder.mkdir()
        stack = Stack(
            mongodb_uri=servers.mongodb_uri, kafka=servers.kafka, database=name, prefix=f"{name}-", folder=folder
        )
        changes = {
            "topic_partitions": PARTITIONS,
            "empty_fetch_pause_ms": self.choice.empty_fetch_pause_ms,
            "topic_order_completed": topic or stack.kafka.topic_order_completed,
        }
        stack.kafka = stack.kafka.model_copy(update=changes)
        try:
            await stack.prepare()
            yield stack
        finally:
            own = [getattr(stack.kafka, field) for field in _TOPIC_FIELDS if getattr(stack.kafka, field) != topic]
            await stack.close()
            await _forget(servers, None if self.choice.mongodb == EMBEDDED else name, own)


_TOPIC_FIELDS = (
    "topic_order_completed",
    "topic_coupon_creation_requests",
    "topic_coupon_creation_results",
    "topic_chargebacks",
    "topic_dead_letter",
)


async def _forget(servers: Servers, database: str | None, topics: Sequence[str]) -> None:
    if database is not None:
        async with AsyncMongoClient[dict[str, Any]](servers.mongodb_uri) as client:
            await client.drop_database(database)
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    try:
        await admin.start()
        await admin.delete_topics(list(topics))
    finally:
        await admin.close()


def worker_settings() -> dict[str, str]:
    """What a measured process is set to beside the stack's own settings: as in production."""
    return {
        "SITE_SETTINGS_CACHE_SECONDS": str(SETTINGS_CACHE_SECONDS),
        "RELAY_POLL_SECONDS": "1",
        "LOG_LEVEL": "WARNING",
    }


@contextlib.asynccontextmanager
async def opened_ledger(stack: Stack, metrics: Metrics | None = None) -> AsyncIterator[Ledger]:
    """The product's ledger in this process, with connections of its own."""
    ledger = Ledger.open(
        MongodbSettings.model_validate(
            {"uri": stack.mongodb_uri, "database": stack.database, "operation_timeout_seconds": PATIENCE_SECONDS}
        ),
        ServiceSettings(),
        SiteSettingsSettings(cache_seconds=SETTINGS_CACHE_SECONDS),
        utc_now,
        metrics or Metrics(),
    )
    try:
        yield ledger
    finally:
        await ledger.close()


def utc_now() -> datetime:
    """The present instant, in the milliseconds MongoDB keeps."""
    return to_milliseconds(datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison: its name on the command line, what it compares, and how it is run."""

    name: str
    what: str
    run: Callable[[Bench], Awaitable[Outcome]]
