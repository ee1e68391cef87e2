"""Growth: adding lots to a large ledger and to a small one; and what a lot takes on disk."""

import time
from collections.abc import Iterator
from typing import Any

import bson
from pymongo.errors import NetworkTimeout

from bench.context import Bench, Comparison, opened_ledger, utc_now
from bench.lots import account, an_order_lot, insert
from bench.measuring import Figures, Outcome, Point, Row, at_least, interleaved
from bench.processes import used
from rewardpoints.domain.lots import Lot
from rewardpoints.ledger.documents import lot_document
from rewardpoints.ledger.ledger import Ledger

BATCH = 1_000
LOTS_A_CUSTOMER = 10
STEPS = 20
"""Points of the curve while the large ledger is filled."""


async def growth(bench: Bench) -> Outcome:
    """As the worker adds them: batches of lots of random accounts, whose ids are spread over the whole index."""
    sizes = bench.sizes
    async with (
        bench.servers() as servers,
        bench.stack(servers) as large_stack,
        bench.stack(servers) as small_stack,
        opened_ledger(large_stack) as large,
        opened_ledger(small_stack) as small,
    ):
        await insert(small, _lots("s", 0, sizes.small_lots))
        curve = await _fill(bench, large, sizes.grown_lots)

        def adding(ledger: Ledger, name: str) -> Any:
            async def side(number: int) -> Figures:
                client, server = time.process_time(), used(*servers.mongodb_pids).cpu_seconds
                rate = await _add(ledger, f"{name}{number}-", sizes.added_lots)
                client = time.process_time() - client
                server = used(*servers.mongodb_pids).cpu_seconds - server
                each = 1e6 / sizes.added_lots
                return {"per_second": rate, "client_cpu_us": client * each, "server_cpu_us": server * each}

            return side

        sides = {"large": adding(large, "l"), "small": adding(small, "s")}
        rounds = await interleaved(sides, rounds=sizes.rounds, say=bench.say)
        storage = await _storage(large)
    large_count = f"{sizes.grown_lots:,}"
    cache = bench.choice.cache or "its default"
    document = len(bson.encode(lot_document(next(_lots("size", 0, 1)))))
    return Outcome(
        [
            Row(
                key="growth",
                title=f"ingest rate at {large_count} lots ÷ at {sizes.small_lots:,}",
                values=rounds.ratios("per_second", "large", "small"),
                goal=at_least(0.9),
                note=f"batches of {BATCH} lots of random accounts; the server's cache: {cache}",
            ),
            Row(
                key="large_rate",
                title=f"adding at {large_count}",
                unit="lots/s",
                values=rounds.values("large", "per_second"),
            ),
            Row(key="small_rate", title="adding at few", unit="lots/s", values=rounds.values("small", "per_second")),
            *(
                Row(
                    key=f"{side}_{key}",
                    title=f"{whose} CPU per lot, adding at {large_count if side == 'large' else 'few'}",
                    unit="µs",
                    values=rounds.values(side, key),
                )
                for key, whose in (("server_cpu_us", "the server's"), ("client_cpu_us", "the client's"))
                for side in sides
                if servers.mongodb_pids or key == "client_cpu_us"
            ),
            Row(key="lot_bytes", title="a lot as BSON", unit="bytes", values=[float(document)]),
            *storage,
        ],
        {f"lots/s while the ledger grows to {large_count}": curve},
    )


async def _fill(bench: Bench, ledger: Ledger, count: int) -> list[Point]:
    step, curve = max(count // STEPS, 1), []
    for first in range(0, count, step):
        rate = await _add(ledger, "l-", min(step, count - first), first=first)
        curve.append((float(first + step), rate))
        bench.say(f"  filling  {first + step:,} lots  {rate:,.0f} lots/s")
    return curve


async def _add(ledger: Ledger, name: str, count: int, *, first: int = 0) -> float:
    """Lots a second through the product's own batches. Making them is not timed."""
    seconds = 0.0
    for start in range(first, first + count, BATCH):
        batch = list(_lots(name, start, min(BATCH, first + count - start)))
        began = time.perf_counter()
        added = await ledger.lots.add_batch(batch)
        seconds += time.perf_counter() - began
        if len(added.added) != len(batch):
            raise RuntimeError(f"{len(added.added)} of {len(batch)} lots were added")
    return count / seconds


def _lots(name: str, first: int, count: int) -> Iterator[Lot]:
    at = utc_now()
    for number in range(first, first + count):
        yield an_order_lot(
            account(f"{name}{number * 7919 % (first + count) // LOTS_A_CUSTOMER}"), f"{name}{number}", at
        )


async def _storage(ledger: Ledger) -> list[Row]:
    """What the server says a lot and its index entries take; nothing where it does not say, or takes too long."""
    try:
        told = await ledger.database.raw.command("collStats", "lots")
    except NetworkTimeout:  # ``secantusd-rs`` reads all of ten million lots for it
        return []
    count = told.get("count") or 0
    indexes = told.get("indexSizes") or {}
    if not count:
        return []
    rows = []
    if told.get("storageSize"):
        rows.append(("stored_bytes", "a lot, storageSize of collStats", told["storageSize"] / count))
    if sum(indexes.values()):
        rows += [
            (f"index_bytes_{name}", f"a lot in index {name}, indexSizes of collStats", size / count)
            for name, size in indexes.items()
            if size
        ]
    return [Row(key=key, title=title, unit="bytes", values=[value]) for key, title, value in rows]


COMPARISONS = (Comparison("growth", "adding lots to a large ledger and to a small one", growth),)
