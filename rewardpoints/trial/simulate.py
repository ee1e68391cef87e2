"""A load of realistic orders, offered at a fixed rate whatever the service does, and what became of it.

Open loop: orders are due by the clock, not by the answers, so a slow service shows as latency, not as a smaller load.
"""

import asyncio
import itertools
import random
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import httpx

from rewardpoints.app.commands import TopicWriter
from rewardpoints.trial.environment import TrialEnvironment
from rewardpoints.trial.samples import TENANT, TENANT_HEADER, SampleOrder, sample_order
from rewardpoints.trial.tokens import MANAGEMENT_SCOPES

TICK_SECONDS: Final = 0.01
MAX_IN_FLIGHT: Final = 50_000
"""Orders sent and not yet acknowledged; beyond it further ones are counted as dropped, not queued without bound."""

PROBES_PER_SECOND: Final = 20
PROBE_POLL_SECONDS: Final = 0.005
PROBE_TIMEOUT_SECONDS: Final = 30.0

Publish = Callable[[Sequence[SampleOrder]], Awaitable[int]]
"""Publishes records and waits for the broker; answers how many it acknowledged."""

ReadBalance = Callable[[str], Awaitable[int | None]]
"""The balance of a customer; None while there is no account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to offer. Shares are of the orders offered; a duplicate or bad record comes on top of them."""

    orders_per_second: float
    seconds: float
    customers: int = 1000
    duplicate_share: float = 0.0
    bad_share: float = 0.0
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class Report:
    """What became of a load. Latencies are seconds from the instant an order was due."""

    seconds: float = 0.0
    offered: int = 0
    duplicates: int = 0
    bad: int = 0
    accepted: int = 0
    refused: int = 0
    dropped: int = 0
    probes: int = 0
    probes_unseen: int = 0
    probes_wrong: int = 0
    accepted_latencies: list[float] = field(default_factory=list)
    visible_latencies: list[float] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every record was accepted and every probe became visible with exactly its points."""
        return not (self.refused or self.dropped or self.probes_unseen or self.probes_wrong)

    def as_dict(self) -> dict[str, object]:
        """The report as JSON values; latencies in milliseconds."""
        return {
            "seconds": round(self.seconds, 3),
            "offered": self.offered,
            "offeredPerSecond": round(self.offered / self.seconds, 1) if self.seconds else 0,
            "duplicates": self.duplicates,
            "bad": self.bad,
            "accepted": self.accepted,
            "acceptedPerSecond": round(self.accepted / self.seconds, 1) if self.seconds else 0,
            "refused": self.refused,
            "dropped": self.dropped,
            "probes": {"sent": self.probes, "unseen": self.probes_unseen, "wrong": self.probes_wrong},
            "acceptedMs": _spread(self.accepted_latencies),
            "visibleMs": _spread(self.visible_latencies),
        }


class Simulation:
    """One run of a load. ``publish`` and ``read_balance`` reach the service; ``run_id`` keeps runs apart."""

    def __init__(self, load: Load, *, publish: Publish, read_balance: ReadBalance, run_id: str) -> None:
        self._load = load
        self._publish = publish
        self._read_balance = read_balance
        self._run_id = run_id
        self._random = random.Random(load.seed)  # noqa: S311 - a repeatable load, nothing secret
        self._numbers = itertools.count(1)
        self._in_flight = 0
        self._next_probe_at = 0.0
        self.report = Report()

    async def run(self, *, on_tick: Callable[[Report], None] | None = None) -> Report:
        """Offer the load, then wait for the last acknowledgement and the last probe."""
        started = time.perf_counter()
        offered = 0
        async with asyncio.TaskGroup() as tasks:
            while (elapsed := time.perf_counter() - started) < self._load.seconds:
                due = int(elapsed * self._load.orders_per_second) - offered
                if due > 0:
                    offered += due
                    self._offer(due, started + elapsed, tasks)
                if on_tick:
                    self.report.seconds = elapsed
                    on_tick(self.report)
                await asyncio.sleep(TICK_SECONDS)
            self.report.seconds = time.perf_counter() - started
        return self.report

    def _offer(self, due: int, now: float, tasks: asyncio.TaskGroup) -> None:
        records: list[SampleOrder] = []
        for _ in range(due):
            order = self._next_order(now, tasks)
            records.append(order)
            if self._random.random() < self._load.duplicate_share:
                records.append(order)
                self.report.duplicates += 1
            if self._random.random() < self._load.bad_share:
                records.append(self._bad_record(order))
                self.report.bad += 1
        self.report.offered += due
        if self._in_flight + len(records) > MAX_IN_FLIGHT:
            self.report.dropped += len(records)
            return
        self._in_flight += len(records)
        tasks.create_task(self._send(records, now))

    def _next_order(self, now: float, tasks: asyncio.TaskGroup) -> SampleOrder:
        number = next(self._numbers)
        is_probe = now >= self._next_probe_at
        customer = f"probe-{self._run_id}-{number}" if is_probe else f"S{self._random.randrange(self._load.customers)}"
        order = sample_order(
            f"SIM-{self._run_id}-{number}", customer, completed=datetime.now(UTC), seed=self._load.seed
        )
        if is_probe:
            self._next_probe_at = now + 1 / PROBES_PER_SECOND
            self.report.probes += 1
            tasks.create_task(self._watch(order, now))
        return order

    def _bad_record(self, order: SampleOrder) -> SampleOrder:
        bad_values = (b"{not json", b"\xff\xfe", b'{"status":"COMPLETED"}', order.value[: len(order.value) // 2])
        return SampleOrder(order.key, self._random.choice(bad_values), order.customer_id, 0)

    async def _send(self, records: Sequence[SampleOrder], due_at: float) -> None:
        try:
            acknowledged = await self._publish(records)
        finally:
            self._in_flight -= len(records)
        self.report.accepted += acknowledged
        self.report.refused += len(records) - acknowledged
        self.report.accepted_latencies.append(time.perf_counter() - due_at)

    async def _watch(self, order: SampleOrder, due_at: float) -> None:
        while (waited := time.perf_counter() - due_at) < PROBE_TIMEOUT_SECONDS:
            balance = await self._read_balance(order.customer_id)
            if balance is not None:
                self.report.visible_latencies.append(time.perf_counter() - due_at)
                self.report.probes_wrong += balance != order.points
                return
            await asyncio.sleep(PROBE_POLL_SECONDS if waited < 1 else 10 * PROBE_POLL_SECONDS)
        self.report.probes_unseen += 1


def _spread(latencies: Sequence[float]) -> dict[str, float] | None:
    """Median, 95th and 99th percentile and maximum in milliseconds; None without measurements."""
    if not latencies:
        return None
    ordered = sorted(latencies)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2)

    return {"p50": round(statistics.median(ordered) * 1000, 2), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)}


async def simulate(
    environment: TrialEnvironment, load: Load, *, on_tick: Callable[[Report], None] | None = None
) -> Report:
    """Offer a load to the running trial environment.

    Raises:
        NotRunning: none runs in the folder.
        ServerRefused, httpx.HTTPError: it stopped answering.
    """
    settings = environment.running_settings()
    token = environment.tokens.issue(tenant=TENANT, scopes=MANAGEMENT_SCOPES)
    topic = settings.kafka.topic_order_completed
    api = httpx.AsyncClient(
        base_url=environment.addresses().api, headers={"Authorization": f"Bearer {token}"}, timeout=10
    )
    async with TopicWriter(settings.kafka) as writer, api:

        async def publish(orders: Sequence[SampleOrder]) -> int:
            return await writer.write(topic, [(order.key, order.value) for order in orders], headers=TENANT_HEADER)

        async def read_balance(customer_id: str) -> int | None:
            answer = await api.get(f"/reward-points/customer/{customer_id}")
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            return int(answer.raise_for_status().text)

        run_id = uuid.uuid4().hex[:8]
        return await Simulation(load, publish=publish, read_balance=read_balance, run_id=run_id).run(on_tick=on_tick)
