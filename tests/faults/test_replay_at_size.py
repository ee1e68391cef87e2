"""A whole topic replayed beside live traffic adds nothing, then exactly what was deleted. ``make operators``."""

import asyncio
import contextlib
import hashlib
import json
import random
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pymongo import DeleteOne

from rewardpoints.domain.accounts import account_of
from tests.e2e.stack import TENANT, Server, Stack, an_order, until
from tests.faults.conftest import Figures
from tests.faults.forms import how_many
from tests.operate_tools import command

EVENTS = how_many("REPLAY_EVENTS", 1500)
DELETED = min(1000, EVENTS // 3)
PUBLISHED_AT_ONCE = 2000
LIVE_PER_SECOND = 50
SECONDS_AN_EVENT = 0.02
"""A bound that only a broken build meets: the slowest machine does fifty a second."""

OLD = "2026-01-31T10:00:00+00:00"
LIVE = account_of(TENANT, "live")
"""How the accounts begin that gain points meanwhile."""


def an_old_order(number: int) -> dict[str, Any]:
    return an_order(f"o{number}", f"c{number % 5000}", 1 + number % 50, completed=OLD)


async def publish(stack: Stack) -> None:
    for first in range(0, EVENTS, PUBLISHED_AT_ONCE):
        numbers = range(first, min(first + PUBLISHED_AT_ONCE, EVENTS))
        await stack.publish_orders(*map(an_old_order, numbers))


async def added_by(worker: Server) -> int:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{worker.url}/metrics", timeout=30)).text
    found = re.search(r"^rewardpoints_lots_added_total (\S+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


@contextlib.asynccontextmanager
async def live_traffic(stack: Stack) -> AsyncIterator[list[str]]:
    """Orders of other customers at a steady rate; the ids of those that were published."""
    published: list[str] = []
    enough = asyncio.Event()

    async def offer() -> None:
        while not enough.is_set():
            numbers = range(len(published), len(published) + LIVE_PER_SECOND // 5)
            await stack.publish_orders(*(an_order(f"live{n}", f"live{n % 500}", 3) for n in numbers))
            published.extend(f"live{n}" for n in numbers)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(enough.wait(), 0.2)

    offering = asyncio.create_task(offer())
    try:
        yield published
    finally:
        enough.set()
        await offering


class Digest:
    """All lots but the live customers', in a number that does not depend on their order; and a sample of their ids."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.sample: list[str] = []
        self._random = random.Random(5)

    def take(self, lot: dict[str, Any]) -> None:
        facts = (lot["_id"], lot["points"], lot["remaining"], lot["createdAt"], lot["validUntil"], str(lot["earned"]))
        self.total ^= int.from_bytes(hashlib.sha256(repr(facts).encode()).digest())
        self.count += 1
        if len(self.sample) < DELETED:
            self.sample.append(lot["_id"])
        elif (place := self._random.randrange(self.count)) < DELETED:
            self.sample[place] = lot["_id"]

    @property
    def sum(self) -> tuple[int, int]:
        return self.count, self.total


async def digest(stack: Stack) -> Digest:
    result = Digest()
    async for lot in stack.ledger.database.lots.find({}):
        if not lot["account"].startswith(LIVE):
            result.take(lot)
    return result


async def replay(stack: Stack, end: datetime) -> tuple[dict[str, Any], float]:
    """What the command says, and the most megabytes it ever held."""
    running = await command(stack, "replay", "--from", "beginning", "--to", end.isoformat(), "--json")
    process = running.process
    ended = asyncio.create_task(process.communicate())
    peak = 0.0
    async with asyncio.timeout(120 + EVENTS * SECONDS_AN_EVENT):
        while not ended.done():
            peak = max([peak, *memory(process.pid)])
            await asyncio.wait([ended], timeout=0.2)
    out, err = ended.result()
    assert process.returncode == 0, err.decode()[-2000:]
    return json.loads(out), peak


def memory(pid: int) -> Iterator[float]:
    with contextlib.suppress(OSError):
        for found in re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()):
            yield int(found) / 1024


async def test_a_replay_beside_live_traffic_adds_exactly_what_is_missing(stack: Stack, figures: Figures) -> None:
    worker = await (await stack.worker()).ready()
    await publish(stack)

    async def caught_up() -> bool:
        return await added_by(worker) >= EVENTS

    await until(caught_up, seconds=180 + EVENTS * SECONDS_AN_EVENT, what="the worker's lots")
    before = await digest(stack)
    assert before.count == EVENTS
    end = datetime.now(UTC)

    async with live_traffic(stack) as published:
        full, megabytes = await replay(stack, end)
        assert (full["read"], full["added"], full["alreadyThere"], full["differing"]) == (EVENTS, 0, EVENTS, 0)
        assert (await digest(stack)).sum == before.sum

        gone = [DeleteOne({"_id": identity}) for identity in before.sample]
        assert (await stack.ledger.database.lots.bulk_write(gone, ordered=False)).deleted_count == DELETED
        again, _ = await replay(stack, end)
        assert (again["read"], again["added"], again["differing"]) == (EVENTS, DELETED, 0)
        assert (await digest(stack)).sum == before.sum

    async def all_live() -> bool:
        live = {"account": {"$gte": LIVE, "$lt": f"{LIVE}~"}}
        return await stack.ledger.database.lots.count_documents(live) == len(published)

    await until(all_live, seconds=180, what="the live orders")
    assert published
    await stack.assert_true()
    figures(
        events=EVENTS, deleted_and_added=DELETED, live_meanwhile=len(published),
        replayed_per_second=round(EVENTS / full["activeSeconds"]), megabytes=round(megabytes),
    )  # fmt: skip
