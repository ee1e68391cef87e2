"""From an event to its points in the balance, while orders are offered by the clock: at half load, and at less."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from aiokafka import AIOKafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from bench.context import PARTITIONS, Bench, Comparison, worker_settings
from bench.http_load import Connection, connect, request_bytes
from bench.measuring import Figures, Outcome, Row, at_most
from bench.orders import CUSTOMERS, Feed, small
from bench.processes import used
from bench.servers import Servers
from bench.topics import HEADERS, filled_topic
from bench.workers import worker_rate
from tests.e2e.stack import Server, Stack, until

TICK_SECONDS: Final = 0.005
PROBE_SECONDS: Final = 0.2
"""Every so often an order of a new customer is looked for in the balance."""

LOOK_SECONDS: Final = 0.004
LOOK_SHARE: Final = 0.1
"""Looks come less often the longer one waits: else a slow service is asked ever more, and by that alone stays slow."""

WARM_UP_SHARE: Final = 0.1
CALM_SHARE: Final = 0.25
"""Of half load, for a look at the same without a machine that is full."""

PATIENCE_SECONDS: Final = 60.0
_FOUND, _NOT_YET = 200, 404


@dataclass(slots=True)
class Offered:
    """What became of a load. Latencies are in seconds, from the instant an order was due; each with that instant."""

    offered: int = 0
    accepted: int = 0
    seconds: float = 0.0
    acknowledged: list[float] = field(default_factory=list)
    visible: list[tuple[float, float]] = field(default_factory=list)


async def latency(bench: Bench) -> Outcome:
    """Open loop: a slow service shows as latency, not as a smaller load."""
    sizes, feed = bench.sizes, small()
    async with bench.servers() as servers:
        rate = await _half_of_full(bench, servers, feed)
        async with bench.stack(servers) as stack:
            worker = await (await stack.worker(**worker_settings())).ready()
            api = await (await stack.api(**worker_settings())).ready()
            load = OpenLoop(stack, api.url, feed)
            await load.run(rate, sizes.load_seconds * WARM_UP_SHARE)
            before, batches = used(worker.process.pid), await Batches.of(worker)
            offered = await load.run(rate, sizes.load_seconds)
            cpu = used(worker.process.pid).cpu_seconds - before.cpu_seconds
            batches = (await Batches.of(worker)).since(batches)
            calm = await load.run(rate * CALM_SHARE, sizes.load_seconds * CALM_SHARE)

            async def all_visible() -> bool:
                return await stack.lot_count() == load.published

            await until(all_visible, seconds=PATIENCE_SECONDS, what=f"{load.published} lots, one for each order")
            await worker.stop()
            await api.stop()
    bench.say(f"  offered {offered.offered}, accepted {offered.accepted}, visible in the end: all of them")
    return Outcome(
        [*_rows(offered, rate, cpu), *batches.rows(), *_calm_rows(calm)],
        {"ms from event to balance": [(at, one * 1000) for at, one in offered.visible]},
    )


def _rows(offered: Offered, rate: float, cpu: float) -> list[Row]:
    visible = sorted(one * 1000 for _, one in offered.visible)
    acknowledged = sorted(one * 1000 for one in offered.acknowledged)
    figures: Figures = {
        "offered_rate": offered.offered / offered.seconds,
        "accepted_rate": offered.accepted / offered.seconds,
    }
    return [
        Row(
            key="visible_p99",
            title="event → visible in the balance, p99 at half load",
            unit="ms",
            values=[at_share(visible, 0.99)],
            goal=at_most(50),
            note=f"{len(visible)} events, looked for every {LOOK_SECONDS * 1000:g} ms, later every tenth of the wait; "
            f"{rate:,.0f} orders/s offered",
        ),
        Row(key="visible_p50", title="the same, p50", unit="ms", values=[at_share(visible, 0.5)]),
        Row(
            key="accepted_p99",
            title="event → acknowledged by the broker, p99",
            unit="ms",
            values=[at_share(acknowledged, 0.99)],
        ),
        *(
            Row(key=key, title=key.replace("_rate", ""), unit="orders/s", values=[value])
            for key, value in figures.items()
        ),
        Row(
            key="half_load_cpu",
            title="worker CPU per event at half load",
            unit="µs",
            values=[cpu / offered.offered * 1e6],
        ),
    ]


def _calm_rows(offered: Offered) -> list[Row]:
    visible = sorted(one * 1000 for _, one in offered.visible)
    note = f"{len(visible)} events; {offered.offered / offered.seconds:,.0f} orders/s offered"
    return [
        Row(
            key="calm_visible_p99",
            title="event → visible in the balance, p99 at an eighth of full load",
            unit="ms",
            values=[at_share(visible, 0.99)],
            note=note,
        ),
        Row(key="calm_visible_p50", title="the same at an eighth, p50", unit="ms", values=[at_share(visible, 0.5)]),
    ]


@dataclass(frozen=True, slots=True)
class Batches:
    """What a worker's own metrics say of its batches."""

    count: float
    records: float
    seconds: float

    @classmethod
    async def of(cls, worker: Server) -> "Batches":
        """Since it started."""
        async with httpx.AsyncClient(base_url=worker.url) as client:
            text = (await client.get("/metrics")).text
        names = ("batch_records_count", "batch_records_sum", "batch_seconds_sum")
        return cls(*(_total(text, f"rewardpoints_{name}") for name in names))

    def since(self, before: "Batches") -> "Batches":
        """What was added to ``before``."""
        return Batches(self.count - before.count, self.records - before.records, self.seconds - before.seconds)

    def rows(self) -> list[Row]:
        """Size and time of a batch, on average."""
        return [
            Row(key="batch", title="a batch at half load", unit="records", values=[self.records / self.count]),
            Row(
                key="batch_ms",
                title="a batch at half load, from poll until handled",
                unit="ms",
                values=[self.seconds / self.count * 1000],
            ),
        ]


def _total(metrics: str, name: str) -> float:
    families = text_string_to_metric_families(metrics)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def _half_of_full(bench: Bench, servers: Servers, feed: Feed) -> float:
    """Half of what the worker applies a second on these servers."""
    name = f"bench-full-{secrets.token_hex(4)}"
    async with filled_topic(servers.kafka, name, [feed], bench.sizes.events) as topic:
        full = await worker_rate(bench, servers, topic, bench.sizes.events)
    bench.say(f"  full load: {full['per_second']:,.0f} orders/s")
    return full["per_second"] / 2


class OpenLoop:
    """Publishes orders when they are due, and looks for some of them in the balance."""

    def __init__(self, stack: Stack, url: str, feed: Feed) -> None:
        self._stack = stack
        self._url = url
        self._feed = feed
        self._numbers = itertools.count()
        self._idle: list[Connection] = []
        self.published = 0

    async def run(self, per_second: float, seconds: float) -> Offered:
        """Offer for so long; returns when every order is acknowledged and every probe was seen.

        Raises:
            TimeoutError: one was not, within a minute.
        """
        offered, next_probe = Offered(), 0.0
        producer = AIOKafkaProducer(bootstrap_servers=self._stack.kafka.bootstrap_servers, linger_ms=1)
        await producer.start()
        began = time.perf_counter()
        try:
            async with asyncio.timeout(seconds + PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
                while (elapsed := time.perf_counter() - began) < seconds:
                    while offered.offered < elapsed * per_second:
                        due = offered.offered / per_second
                        number, probe = next(self._numbers), due >= next_probe
                        if probe:
                            next_probe = due + PROBE_SECONDS
                        offered.offered += 1
                        await self._send(producer, number, probe=probe, due=(began, due), offered=offered, tasks=tasks)
                    await asyncio.sleep(TICK_SECONDS)
                offered.seconds = time.perf_counter() - began
                await producer.flush()
        finally:
            await producer.stop()
            for connection in self._idle:
                connection.close()
            self._idle.clear()
        self.published += offered.accepted
        return offered

    async def _send(
        self, producer: Any, number: int, *, probe: bool, due: tuple[float, float], offered: Offered,
        tasks: asyncio.TaskGroup,
    ) -> None:  # fmt: skip
        value, customer = self._feed.value(number), f"probe-{number:06}"
        if probe:
            value = value.replace(b"C%06d" % (number * 7919 % CUSTOMERS), customer.encode())
        sent = await producer.send(
            self._stack.kafka.topic_order_completed, value, partition=number % PARTITIONS, headers=HEADERS
        )

        def acknowledged(done: "asyncio.Future[Any]") -> None:
            if done.exception() is None:
                offered.accepted += 1
                offered.acknowledged.append(time.perf_counter() - sum(due))

        sent.add_done_callback(acknowledged)
        if probe:
            tasks.create_task(self._look(customer, due, offered))

    async def _look(self, customer: str, due: tuple[float, float], offered: Offered) -> None:
        request = request_bytes(f"{self._url}/reward-points/public/customer", self._stack.customer(customer))
        connection = self._idle.pop() if self._idle else await connect(self._url)
        while (answer := (await connection.ask(request)))[0] != _FOUND:
            if answer[0] != _NOT_YET:
                raise RuntimeError(f"a balance was answered with {answer[0]}")
            waited = time.perf_counter() - sum(due)
            await asyncio.sleep(max(LOOK_SECONDS, waited * LOOK_SHARE))
        offered.visible.append((due[1], time.perf_counter() - sum(due)))
        self._idle.append(connection)


def at_share(ordered: Sequence[float], share: float) -> float:
    """The value that this share of ordered values does not exceed."""
    if not ordered:
        raise ValueError("nothing was measured")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


COMPARISONS = (Comparison("latency", "from an event to its points in the balance, at half load", latency),)
