"""summaryBatch: what the API holds in memory while it streams every customer of a tenant."""

import asyncio
import time
from typing import Final

import httpx

from bench.context import Bench, Comparison, opened_ledger, utc_now, worker_settings
from bench.lots import customer_lots, insert
from bench.measuring import Outcome, Point, Row, at_most
from bench.processes import resident_megabytes
from tests.e2e.stack import Server, Stack

PATH: Final = "/reward-points/summaryBatch"
LOOK_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 1800.0


async def summary_batch(bench: Bench) -> Outcome:
    """Every customer has one lot. The process has answered one page before, so that all code is loaded."""
    customers = bench.sizes.batch_customers
    async with bench.servers() as servers, bench.stack(servers) as stack:
        async with opened_ledger(stack) as ledger:
            at = utc_now()
            names = (f"batch-{number:07}" for number in range(customers))
            await insert(ledger, (lot for name in names for lot in customer_lots(name, 1, at)))
        api = await (await stack.api(**worker_settings())).ready()
        await _stream(stack, api, f"{PATH}?pageSize=1000")
        before = resident_megabytes(api.process.pid)
        looks: list[Point] = []
        watching = asyncio.create_task(_watch(api.process.pid, looks))
        began = time.perf_counter()
        try:
            received = await _stream(stack, api, PATH)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        seconds = time.perf_counter() - began
        await api.stop()
    most = max((megabytes for _, megabytes in looks), default=before)
    bench.say(f"  {received / 1e6:.1f} MB in {seconds:.1f} s; {before:.1f} MB before, {most:.1f} MB at most")
    return Outcome(
        [
            Row(
                key="batch_growth",
                title=f"summaryBatch of {customers:,} customers: memory above what it was before",
                unit="MB",
                values=[max(most - before, 0.0)],
                goal=at_most(20),
                note=f"{received / 1e6:.0f} MB streamed",
            ),
            Row(key="batch_rate", title="summaryBatch", unit="customers/s", values=[customers / seconds]),
        ],
        {"MB of the API while summaryBatch streams": looks},
    )


async def _watch(pid: int, looks: list[Point]) -> None:
    began = time.perf_counter()
    while True:
        looks.append((time.perf_counter() - began, resident_megabytes(pid)))
        await asyncio.sleep(LOOK_SECONDS)


async def _stream(stack: Stack, api: Server, path: str) -> int:
    """Read an answer to its end and throw it away; returns its bytes."""
    received = 0
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        httpx.AsyncClient(base_url=api.url, timeout=PATIENCE_SECONDS, headers=stack.employee()) as http,
        http.stream("GET", path) as answer,
    ):
        answer.raise_for_status()
        async for chunk in answer.aiter_raw():
            received += len(chunk)
    return received


COMPARISONS = (Comparison("summary-batch", "the API's memory while it streams every customer", summary_batch),)
