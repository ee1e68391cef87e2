"""Ingest: the worker beside raw inserts of the same documents, beside bare polling, and beside a plain worker."""

import gc
import secrets
import time
from collections.abc import Sequence
from typing import Any

from bench.context import Bench, Comparison, opened_ledger, utc_now
from bench.measuring import Figures, Outcome, Rounds, Row, at_least, at_most, interleaved
from bench.orders import real, small
from bench.servers import Servers
from bench.topics import filled_topic, polled, read_all
from bench.workers import joint_rate, plain_rate, worker_rate
from rewardpoints.domain.lots import Lot
from rewardpoints.events.order_batches import derive
from rewardpoints.ledger.documents import lot_document
from tests.e2e.stack import Stack

BATCH = 1_000
"""Documents of a raw insert; the worker inserts up to 500 at once, while it makes the next ones."""


async def ingest(bench: Bench) -> Outcome:
    """Orders of 300 bytes."""
    sizes = bench.sizes
    async with bench.servers() as servers:
        name = f"bench-orders-{secrets.token_hex(4)}"
        async with filled_topic(servers.kafka, name, [small()], sizes.events) as topic:
            documents = await _documents(bench, servers, topic, sizes.events)
            gc.collect()
            gc.freeze()  # or the collector walks over the documents again and again while they are inserted

            async def raw(_: int) -> Figures:
                return await _raw_rate(bench, servers, documents)

            async def worker(_: int) -> Figures:
                return await worker_rate(bench, servers, topic, sizes.events)

            async def plain(number: int) -> Figures:
                database = f"bench-plain-{number}-{secrets.token_hex(2)}"
                return await plain_rate(servers, topic, database, sizes.plain_events)

            async def polling(_: int) -> Figures:
                return await _polling_rate(servers, topic, sizes.events)

            sides = {"raw insert_many": raw, "worker": worker, "plain worker": plain, "bare polling": polling}
            rounds = await interleaved(sides, rounds=sizes.rounds, say=bench.say)
    gc.unfreeze()
    return Outcome(_ingest_rows(bench, rounds))


def _ingest_rows(bench: Bench, rounds: Rounds) -> list[Row]:
    sizes = bench.sizes
    note = f"{sizes.events} orders of 300 bytes a round; raw: {BATCH} documents at once"
    worker_us = rounds.values("worker", "cpu_us")
    return [
        Row(
            key="worker_over_raw",
            title="worker events/s ÷ raw insert_many docs/s",
            values=rounds.ratios("per_second", "worker", "raw insert_many"),
            goal=at_least(0.6 if bench.choice.is_fastest else 0.85),
            note=note,
        ),
        Row(key="worker_cpu", title="worker CPU per event, 300 bytes", unit="µs", values=worker_us, goal=at_most(60)),
        Row(
            key="worker_over_plain",
            title="worker ÷ plain worker, events/s",
            values=rounds.ratios("per_second", "worker", "plain worker"),
            goal=at_least(10),
            note=f"the plain worker's first {sizes.plain_events}",
        ),
        Row(
            key="worker_memory",
            title="worker memory at full rate",
            unit="MB",
            values=rounds.values("worker", "megabytes"),
            goal=at_most(150),
        ),
        _reported("worker_rate", "worker", "events/s", rounds.values("worker", "per_second")),
        _reported("raw_rate", "raw insert_many", "docs/s", rounds.values("raw insert_many", "per_second")),
        _reported("raw_cpu", "raw insert_many, CPU of the client", "µs", rounds.values("raw insert_many", "cpu_us")),
        _reported("plain_rate", "plain worker", "events/s", rounds.values("plain worker", "per_second")),
        _reported("plain_cpu", "plain worker CPU per event", "µs", rounds.values("plain worker", "cpu_us")),
        _reported("polling_rate", "bare polling", "records/s", rounds.values("bare polling", "per_second")),
        _reported("polling_cpu", "bare polling, CPU per record", "µs", rounds.values("bare polling", "cpu_us")),
    ]


async def real_orders(bench: Bench) -> Outcome:
    """The two real orders, in turns."""
    sizes = bench.sizes
    async with bench.servers() as servers:
        name = f"bench-real-{secrets.token_hex(4)}"
        async with filled_topic(servers.kafka, name, real(), sizes.real_events) as topic:

            async def worker(_: int) -> Figures:
                return await worker_rate(bench, servers, topic, sizes.real_events)

            async def polling(_: int) -> Figures:
                return await _polling_rate(servers, topic, sizes.real_events)

            sides = {"worker": worker, "bare polling": polling}
            rounds = await interleaved(sides, rounds=sizes.rounds, say=bench.say)
    kinds = " and ".join(feed.name for feed in real())
    return Outcome(
        [
            Row(
                key="worker_cpu_real",
                title="worker CPU per event, the two real orders",
                unit="µs",
                values=rounds.values("worker", "cpu_us"),
                goal=at_most(120),
                note=f"{kinds} in turns, {sizes.real_events} a round",
            ),
            _reported(
                "worker_rate_real", "worker, the two real orders", "events/s", rounds.values("worker", "per_second")
            ),
            _reported(
                "worker_memory_real", "worker memory, the two real orders", "MB", rounds.values("worker", "megabytes")
            ),
            _reported(
                "polling_cpu_real", "bare polling, the two real orders", "µs", rounds.values("bare polling", "cpu_us")
            ),
        ]
    )


async def two_workers(bench: Bench) -> Outcome:
    """One worker and two in a group, over as many orders."""
    sizes = bench.sizes
    async with bench.servers() as servers:
        feed = small()

        def of(workers: int) -> Any:
            async def side(_: int) -> Figures:
                return await joint_rate(bench, servers, feed, sizes.events, workers=workers)

            return side

        rounds = await interleaved({"one": of(1), "two": of(2)}, rounds=sizes.rounds, warm_up=False, say=bench.say)
    return Outcome(
        [
            Row(
                key="two_workers_cpu",
                title="CPU per event, two workers ÷ one",
                values=rounds.ratios("cpu_us", "two", "one"),
                goal=at_most(1.1),
                note=f"{sizes.events} orders of 300 bytes a round; idle waiting of both is in it",
            ),
            _reported("two_workers_rate", "events/s, two workers ÷ one", "", rounds.ratios("per_second", "two", "one")),
        ]
    )


def _reported(key: str, title: str, unit: str, values: Sequence[float]) -> Row:
    return Row(key=key, title=title, unit=unit, values=values)


async def _documents(bench: Bench, servers: Servers, topic: str, count: int) -> list[dict[str, Any]]:
    """What the product makes of the topic's orders, as it stores them."""
    records = await read_all(servers.kafka, topic, count)
    async with bench.stack(servers, topic=topic) as stack, opened_ledger(stack) as ledger:
        outcomes = await derive(records, ledger.settings_reader, recorded_at=utc_now())
    return [lot_document(lot) for lot in outcomes if isinstance(lot, Lot)]


async def _raw_rate(bench: Bench, servers: Servers, documents: Sequence[dict[str, Any]]) -> Figures:
    """Nothing but the driver: the same collection, indexes, validator, write concern and unordered inserts."""
    async with bench.stack(servers) as stack:
        lots = stack.ledger.database.lots
        await lots.find_one({})  # the connection is there before the clock starts
        began, cpu = time.perf_counter(), time.process_time()
        for first in range(0, len(documents), BATCH):
            await lots.insert_many(documents[first : first + BATCH], ordered=False)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        await _check(stack, len(documents))
    return {"per_second": len(documents) / seconds, "cpu_us": cpu / len(documents) * 1e6}


async def _check(stack: Stack, wanted: int) -> None:
    found = await stack.lot_count()
    if found != wanted:
        raise RuntimeError(f"{found} documents of {wanted}")


async def _polling_rate(servers: Servers, topic: str, count: int) -> Figures:
    seen, began, cpu = 0, 0.0, 0.0
    async for batch in polled(servers.kafka, topic, count):
        if not began:  # connecting is over
            began, cpu = time.perf_counter(), time.process_time()
            continue
        seen += len(batch)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"per_second": seen / seconds, "cpu_us": cpu / seen * 1e6}


COMPARISONS = (
    Comparison("ingest", "the worker, raw insert_many, a plain worker and bare polling", ingest),
    Comparison("real-orders", "the worker over the two real orders", real_orders),
    Comparison("two-workers", "two workers in a group against one", two_workers),
)
