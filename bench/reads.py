"""Reads over HTTP: balance and summary of the running API beside one raw driver read on the same HTTP stack."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from bench.context import Bench, Comparison, opened_ledger, utc_now, worker_settings
from bench.http_load import Connection, closed_loop, connect, request_bytes
from bench.lots import customer_lots, insert
from bench.measuring import Figures, Outcome, Row, Side, at_least, at_most, interleaved
from bench.processes import used
from rewardpoints.embedded.ports import free_port
from tests.e2e.stack import Stack

BALANCE_LOTS = 10
BALANCE_CUSTOMERS = 64
BALANCE_CONNECTIONS = 32
SUMMARY_LOTS = 200
SUMMARY_CONNECTIONS = 8
START_SECONDS = 120.0
BALANCE = "/reward-points/public/customer"


@dataclass(frozen=True, slots=True)
class Target:
    """Requests to one process."""

    url: str
    pid: int
    requests: Sequence[bytes]


async def balance(bench: Bench) -> Outcome:
    """Customers of ten lots, 32 connections."""
    customers = [f"reader-{number}" for number in range(BALANCE_CUSTOMERS)]
    async with _both_apis(bench, customers, lots=BALANCE_LOTS) as (stack, api, plain):
        headers = [stack.customer(customer) for customer in customers]
        targets = {
            "balance": _target(api, BALANCE, headers),
            "one raw read": _target(plain, "/open-lots", headers),
            "token check": _target(plain, "/checked", headers),
            "hello-world": _target(plain, "/hello", headers),
        }
        sides = {name: _side(bench, target, BALANCE_CONNECTIONS) for name, target in targets.items()}
        rounds = await interleaved(sides, rounds=bench.sizes.rounds, say=bench.say)
    note = f"{BALANCE_LOTS} open lots a customer, {BALANCE_CONNECTIONS} connections"
    reported = [
        Row(key=f"{key}_{figure}", title=f"{name}, {what}", unit=unit, values=rounds.values(name, figure))
        for key, name in (
            ("balance", "balance"),
            ("read", "one raw read"),
            ("checked", "token check"),
            ("hello", "hello-world"),
        )
        for figure, what, unit in (("per_second", "GET/s", "GET/s"), ("cpu_us", "CPU per GET", "µs"))
        if (key, figure) != ("balance", "cpu_us")
    ]
    rows = [
        Row(
            key="balance_over_read",
            title="balance GET/s ÷ a GET with one equal-sized raw driver read",
            values=rounds.ratios("per_second", "balance", "one raw read"),
            goal=at_least(0.8),
            note=note,
        ),
        Row(
            key="balance_cpu",
            title="API CPU per balance GET, all included",
            unit="µs",
            values=rounds.values("balance", "cpu_us"),
            goal=at_most(450),
        ),
    ]
    return Outcome([*rows, *reported])


async def summary(bench: Bench) -> Outcome:
    """Customers of 200 lots."""
    customers = [f"reader-{number}" for number in range(SUMMARY_CONNECTIONS)]
    async with _both_apis(bench, customers, lots=SUMMARY_LOTS) as (stack, api, plain):
        headers = [stack.customer(customer) for customer in customers]
        size = await _body_bytes(api[0], f"{BALANCE}/summary", headers[0])
        targets = {
            "summary": _target(api, f"{BALANCE}/summary", headers),
            "raw read": _target(plain, f"/lots?bytes={size}", headers),
        }
        sides = {name: _side(bench, target, SUMMARY_CONNECTIONS) for name, target in targets.items()}
        rounds = await interleaved(sides, rounds=bench.sizes.rounds, say=bench.say)
    return Outcome(
        [
            Row(
                key="summary_over_read",
                title="summary of 200 lots ÷ a GET with a raw driver read of the 200 documents",
                values=rounds.ratios("per_second", "summary", "raw read"),
                goal=at_least(0.6),
                note=f"{SUMMARY_CONNECTIONS} connections, answers of {size / 1000:.0f} KB both",
            ),
            Row(key="summary_per_second", title="summary", unit="GET/s", values=rounds.values("summary", "per_second")),
            Row(key="summary_cpu", title="summary, CPU per GET", unit="µs", values=rounds.values("summary", "cpu_us")),
            Row(
                key="raw_200_cpu", title="raw read, CPU per GET", unit="µs", values=rounds.values("raw read", "cpu_us")
            ),
        ]
    )


@contextlib.asynccontextmanager
async def _both_apis(
    bench: Bench, customers: Sequence[str], *, lots: int
) -> AsyncIterator[tuple[Stack, tuple[str, int], tuple[str, int]]]:
    """The product's API and the plain one over customers with so many lots: each as its URL and its process."""
    async with bench.servers() as servers, bench.stack(servers) as stack:
        async with opened_ledger(stack) as ledger:
            at = utc_now()
            for customer in customers:
                await insert(ledger, customer_lots(customer, lots, at))
        api = await (await stack.api(**worker_settings())).ready()
        async with plain_api(stack) as plain:
            yield stack, (api.url, api.process.pid), plain
        await api.stop()


@contextlib.asynccontextmanager
async def plain_api(stack: Stack) -> AsyncIterator[tuple[str, int]]:
    """The plain API over the stack's database; its URL and its process."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.plain_api", stack.mongodb_uri, stack.database),
        *(str(stack.tokens.jwks_file), str(port)),
        stdin=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        (await connected(url, process)).close()
        yield url, process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def connected(url: str, process: asyncio.subprocess.Process) -> Connection:
    """A connection to a process that is starting."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            if process.returncode is not None:
                raise RuntimeError("the process ended while it was starting")
            try:
                return await connect(url)
            except OSError:
                await asyncio.sleep(0.05)


def _target(process: tuple[str, int], path: str, headers: Sequence[Mapping[str, str]]) -> Target:
    url, pid = process
    return Target(url, pid, [request_bytes(f"{url}{path}", one) for one in headers])


def _side(bench: Bench, target: Target, connections: int) -> Side:
    async def run(number: int) -> Figures:
        seconds = bench.sizes.http_seconds if number else bench.sizes.http_warm_up_seconds
        before = used(target.pid)
        load = await closed_loop(target.url, target.requests, connections=connections, seconds=seconds)
        cpu = used(target.pid).cpu_seconds - before.cpu_seconds
        return {"per_second": load.per_second, "cpu_us": cpu / len(load.latencies) * 1e6}

    return run


async def _body_bytes(url: str, path: str, headers: Mapping[str, str]) -> int:
    connection = await connect(url)
    try:
        status, body = await connection.ask(request_bytes(f"{url}{path}", headers))
    finally:
        connection.close()
    if status != 200:  # noqa: PLR2004 - OK
        raise RuntimeError(f"{path} answered {status}")
    return len(body)


COMPARISONS = (
    Comparison("balance", "GET of a balance beside one raw read, a token check and hello-world", balance),
    Comparison("summary", "GET of a summary of 200 lots beside a raw read of them", summary),
)
