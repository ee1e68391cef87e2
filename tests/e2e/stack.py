"""The service as operators run it: its own commands as processes, over servers of the tests."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx

from rewardpoints.app.commands import TopicWriter, create_topics
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.site_settings import SettingsVersion, parse_site_settings
from rewardpoints.embedded.ports import free_port
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.verify import violations
from rewardpoints.settings import KafkaSettings, MongodbSettings, ServiceSettings, SiteSettingsSettings
from rewardpoints.telemetry import Metrics
from rewardpoints.trial.tokens import MANAGEMENT_SCOPES, TrialTokens

TENANT = "shop"
OTHER_TENANT = "rival"
START_SECONDS = 90.0
STOP_SECONDS = 30.0
OBSERVER_TIMEOUT_SECONDS = 60.0


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float, what: str) -> None:
    """Poll a condition; the bound is for a broken build, not for a slow machine.

    A look that takes long is repeated less often: counting lots would otherwise be most of what the server does.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if await condition():
            return
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(min(max(0.05, 4 * (now - began)), 5))


def _environment_without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("REWARDPOINTS")}


class Process:
    """One ``rewardpoints`` command."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path) -> None:
        self._arguments = arguments
        self._environment = environment
        self._log = log
        self._cwd = cwd
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "rewardpoints.cli",
                *self._arguments,
                env={
                    **{name: value for name, value in os.environ.items() if "REWARDPOINTS" not in name},
                    **self._environment,
                },
                cwd=self._cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM; answers the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self.process.wait()
            except TimeoutError:
                await self.kill()
                raise AssertionError(f"did not drain on SIGTERM:\n{self.log[-3000:]}") from None
        assert self.process.returncode is not None
        return self.process.returncode

    async def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Until it ends by itself; answers the exit status."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()


class Server(Process):
    """A worker or an API, with its health over HTTP."""

    def __init__(self, url: str, *rest: Any) -> None:
        super().__init__(*rest)
        self.url = url

    async def readiness(self) -> httpx.Response | None:
        async with httpx.AsyncClient(base_url=self.url, timeout=5) as client:
            with contextlib.suppress(httpx.HTTPError):
                return await client.get("/readyz")
        return None

    async def ready(self) -> Self:
        async def is_ready() -> bool:
            assert self.process.returncode is None, f"ended with {self.process.returncode}:\n{self.log[-3000:]}"
            answer = await self.readiness()
            if answer is None or answer.status_code != httpx.codes.OK:
                return False
            return all(check["status"] == "up" for check in answer.json()["checks"].values())

        await until(is_ready, seconds=START_SECONDS, what=f"{self.url} ready")
        return self


class Stack:
    """Servers, names of its own on them, and the processes started over them."""

    def __init__(
        self, *, mongodb_uri: str, kafka: str, database: str, prefix: str, folder: Path, replicas: int = 1
    ) -> None:
        self.folder = folder
        self.tokens = TrialTokens(folder / "keys")
        self.tokens.ensure_key()
        self.mongodb_uri = mongodb_uri
        self.kafka = KafkaSettings(
            bootstrap_servers=kafka,
            topic_order_completed=f"{prefix}order-completed",
            topic_coupon_creation_requests=f"{prefix}coupon-creation-requests",
            topic_coupon_creation_results=f"{prefix}coupon-creation-results",
            topic_chargebacks=f"{prefix}chargebacks",
            topic_dead_letter=f"{prefix}dead-letter",
            topic_partitions=4,
            topic_replication_factor=replicas,
            group_id=f"{prefix}group",
            empty_fetch_pause_ms=10,
        )
        self.database = database
        self.ledger = Ledger.open(
            # The tests' own looks may take as long as a slow machine likes; the processes have their defaults
            MongodbSettings.model_validate(
                {"uri": mongodb_uri, "database": database, "operation_timeout_seconds": OBSERVER_TIMEOUT_SECONDS}
            ),
            ServiceSettings(),
            SiteSettingsSettings(cache_seconds=0),
            lambda: datetime.now(UTC),
            Metrics(),
        )
        self.writer = TopicWriter(self.kafka)
        self._processes: list[Process] = []

    async def prepare(self) -> None:
        await create_topics(self.kafka)
        await self.ledger.ensure_indexes()
        await self.settings_version("main", {"orderValueToRewardPointsFactor": 1, "codePrefix": "SHOP"})

    async def close(self) -> None:
        for process in self._processes:
            if process.process.returncode is None:
                await process.kill()
        await self.writer.__aexit__()
        await self.ledger.close()

    async def settings_version(self, site: str, content: dict[str, Any], *, tenant: str = TENANT) -> None:
        at = to_milliseconds(datetime.now(UTC) - timedelta(days=3000))
        appended = await self.ledger.site_settings.append(
            SettingsVersion(
                tenant=tenant,
                site_code=site,
                version=1,
                saved_at=at,
                effective_at=at,
                settings=parse_site_settings(content),
                content=content,
            )
        )
        assert appended

    def environment(self, **changes: str) -> dict[str, str]:
        kafka = self.kafka
        variables = {
            "MONGODB_URI": self.mongodb_uri,
            "MONGODB_DATABASE": self.database,
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC_ORDER_COMPLETED": kafka.topic_order_completed,
            "KAFKA_TOPIC_COUPON_CREATION_REQUESTS": kafka.topic_coupon_creation_requests,
            "KAFKA_TOPIC_COUPON_CREATION_RESULTS": kafka.topic_coupon_creation_results or "",
            "KAFKA_TOPIC_CHARGEBACKS": kafka.topic_chargebacks,
            "KAFKA_TOPIC_DEAD_LETTER": kafka.topic_dead_letter,
            "KAFKA_GROUP_ID": kafka.group_id,
            "KAFKA_EMPTY_FETCH_PAUSE_MS": str(kafka.empty_fetch_pause_ms),
            "JWKS_FILE": str(self.tokens.jwks_file),
            "SITE_SETTINGS_CACHE_SECONDS": "0",
            "RELAY_POLL_SECONDS": "0.2",
            **changes,
        }
        return {f"REWARDPOINTS_{name}": value for name, value in variables.items()}

    async def worker(self, slot: str = "w1", **changes: str) -> Server:
        """A worker; ``slot`` is its stable name in the group."""
        port = str(free_port())
        changes = {"HTTP_WORKER_PORT": port, "KAFKA_GROUP_INSTANCE_ID": slot, **changes}
        return await self._start(["worker"], slot, f"http://127.0.0.1:{port}", changes)

    async def api(self, slot: str = "a1", **changes: str) -> Server:
        """An API, with the consumers of chargebacks and results."""
        port = str(free_port())
        changes = {"HTTP_PORT": port, "KAFKA_GROUP_INSTANCE_ID": slot, **changes}
        return await self._start(["api"], slot, f"http://127.0.0.1:{port}", changes)

    async def _start(self, arguments: Sequence[str], slot: str, url: str, changes: Mapping[str, str]) -> Server:
        log = self.folder / f"{slot}.log"
        server = Server(url, arguments, self.environment(**changes), log, self.folder)
        await server.start()
        self._processes.append(server)
        return server

    def customer(self, customer_id: str, *, tenant: str = TENANT) -> dict[str, str]:
        """Headers of a customer."""
        return {"Authorization": f"Bearer {self.tokens.issue(tenant=tenant, customer_id=customer_id)}"}

    def employee(self, *, tenant: str = TENANT) -> dict[str, str]:
        """Headers of an employee with every scope."""
        return {"Authorization": f"Bearer {self.tokens.issue(tenant=tenant, scopes=MANAGEMENT_SCOPES)}"}

    async def publish(self, topic: str, *values: bytes | dict[str, Any], tenant: str | None = TENANT) -> None:
        headers = [("tenant", tenant.encode())] if tenant else []
        records = [
            (None, value if isinstance(value, bytes) else json.dumps(value, default=str).encode()) for value in values
        ]
        assert await self.writer.write(topic, records, headers=headers) == len(records)

    async def publish_orders(self, *values: bytes | dict[str, Any], tenant: str | None = TENANT) -> None:
        await self.publish(self.kafka.topic_order_completed, *values, tenant=tenant)

    async def lots(self, **wanted: Any) -> list[dict[str, Any]]:
        return await self.ledger.database.lots.find(wanted).to_list(None)

    async def lot_count(self) -> int:
        return await self.ledger.database.lots.count_documents({})

    async def assert_true(self) -> None:
        """Every invariant the ledger alone can tell."""
        assert [violation async for violation in violations(self.ledger.database, lambda: datetime.now(UTC))] == []


def an_order(order_id: str, customer_id: str, total: float = 10, **fields: Any) -> dict[str, Any]:
    return {
        "id": order_id,
        "status": "COMPLETED",
        "customer": {"id": customer_id},
        "totalPrice": total,
        "completed": datetime.now(UTC).isoformat(),
        **fields,
    }


@contextlib.asynccontextmanager
async def running_stack(**names: Any) -> AsyncIterator[Stack]:
    stack = Stack(**names)
    try:
        await stack.prepare()
        yield stack
    finally:
        await stack.close()
