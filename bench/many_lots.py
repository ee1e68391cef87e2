"""Customers with many lots: the latency of their balance beside that of a customer with few."""

import time
from statistics import median

from bench.context import Bench, Comparison, opened_ledger, utc_now, worker_settings
from bench.http_load import closed_loop, request_bytes
from bench.lots import account, customer_lots, insert
from bench.measuring import Figures, Outcome, Row, Side, at_most, interleaved
from bench.reads import BALANCE
from rewardpoints.ledger.ledger import Ledger
from tests.e2e.stack import Stack

FEW = 10


async def many_lots(bench: Bench) -> Outcome:
    """One connection, one request after another: what a customer waits."""
    many = bench.sizes.many_lots
    async with bench.servers() as servers, bench.stack(servers) as stack, opened_ledger(stack) as ledger:
        at = utc_now()
        for customer, lots, open_lots in (("few", FEW, FEW), ("old", many, FEW), ("rich", many, many)):
            await insert(ledger, customer_lots(customer, lots, at, open_lots=open_lots))
        api = await (await stack.api(**worker_settings())).ready()
        sides = {
            **{name: _over_http(bench, stack, api.url, name) for name in ("few", "old", "rich")},
            **{f"{name} at the ledger": _at_ledger(bench, ledger, name) for name in ("few", "old")},
        }
        rounds = await interleaved(sides, rounds=bench.sizes.rounds, say=bench.say)
        await api.stop()
    return Outcome(
        [
            Row(
                key="old_over_few",
                title=f"balance latency, {many:,} lots of which {FEW} are open ÷ {FEW} lots",
                values=rounds.ratios("ms", "old", "few"),
                goal=at_most(2),
                note="medians over HTTP, one connection",
            ),
            Row(
                key="old_over_few_ledger",
                title="the same at the ledger, without HTTP",
                values=rounds.ratios("ms", "old at the ledger", "few at the ledger"),
            ),
            Row(
                key="rich_over_few", title=f"with {many:,} open lots ÷ {FEW}", values=rounds.ratios("ms", "rich", "few")
            ),
            Row(key="few_ms", title=f"balance of {FEW} lots", unit="ms", values=rounds.values("few", "ms")),
            Row(key="rich_ms", title=f"balance of {many:,} open lots", unit="ms", values=rounds.values("rich", "ms")),
        ]
    )


def _over_http(bench: Bench, stack: Stack, url: str, customer: str) -> Side:
    request = request_bytes(f"{url}{BALANCE}", stack.customer(customer))

    async def run(_: int) -> Figures:
        load = await closed_loop(url, [request], connections=1, seconds=bench.sizes.read_seconds)
        return {"ms": median(load.latencies) * 1000}

    return run


def _at_ledger(bench: Bench, ledger: Ledger, customer: str) -> Side:
    async def run(_: int) -> Figures:
        latencies, until = [], time.perf_counter() + bench.sizes.read_seconds
        while (began := time.perf_counter()) < until:
            await ledger.accounts.balance(account(customer), utc_now())
            latencies.append(time.perf_counter() - began)
        return {"ms": median(latencies) * 1000}

    return run


COMPARISONS = (Comparison("many-lots", "the balance of a customer with many lots beside one with few", many_lots),)
