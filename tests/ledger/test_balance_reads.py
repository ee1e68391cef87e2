"""Balance reads in one process: who shares a read, and what becomes of the others when one is cancelled or fails."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self, cast

import pytest
from pymongo.errors import AutoReconnect

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.ledger.balance_reads import ACCOUNTS_PER_READ, READS_AT_ONCE, BalanceReads
from tests.contracts.ledgers import until

NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)


class Read:
    """One query: what it asked for, answered when the test says so."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        asked = wanted["account"]
        self.accounts: Sequence[str] = asked["$in"] if isinstance(asked, dict) else [asked]
        self.since: datetime = wanted["validUntil"]["$gt"]
        self.answer: asyncio.Future[list[dict[str, Any]]] = asyncio.get_running_loop().create_future()

    def batch_size(self, _: int) -> Self:
        return self

    async def to_list(self, _: None) -> list[dict[str, Any]]:
        return await self.answer

    def lots(self) -> list[dict[str, Any]]:
        """One lot for each account, of as many points as its name says."""
        later = NOW + timedelta(days=1)
        return [{"account": one, "remaining": int(one), "validUntil": later} for one in self.accounts]

    def succeed(self) -> None:
        self.answer.set_result(self.lots())


class Lots:
    """A collection that keeps its queries waiting."""

    def __init__(self) -> None:
        self.reads: list[Read] = []

    def find(self, wanted: dict[str, Any], _: Any) -> Read:
        self.reads.append(Read(wanted))
        return self.reads[-1]


class House:
    def __init__(self) -> None:
        self.lots = Lots()
        self.reads = BalanceReads(cast("Any", self.lots))

    def ask(self, *points: int, now: datetime = NOW) -> list[asyncio.Task[int]]:
        return [asyncio.create_task(self.reads.points(Account(str(one)), now)) for one in points]

    async def asked(self, *points: int) -> list[asyncio.Task[int]]:
        tasks = self.ask(*points)
        await self.settled()
        return tasks

    async def settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
def house() -> House:
    return House()


FULL = tuple(range(1, READS_AT_ONCE + 1))
"""As many accounts as are read one by one."""


async def test_few_are_read_each_by_itself(house: House) -> None:
    tasks = await house.asked(*FULL)
    assert [read.accounts for read in house.lots.reads] == [[str(one)] for one in FULL]
    for read in house.lots.reads:
        read.succeed()
    assert await asyncio.gather(*tasks) == list(FULL)


async def test_those_who_wait_share_the_next_read(house: House) -> None:
    tasks = await house.asked(*FULL, 70, 80, 70)
    assert len(house.lots.reads) == READS_AT_ONCE
    house.lots.reads[0].succeed()
    await house.settled()
    assert house.lots.reads[-1].accounts == ["70", "80"]
    assert len(house.lots.reads) == READS_AT_ONCE + 1
    for read in house.lots.reads[1:]:
        read.succeed()
    assert await asyncio.gather(*tasks) == [*FULL, 70, 80, 70]


async def test_each_is_answered_for_its_own_instant(house: House) -> None:
    first = await house.asked(*FULL)
    early, late = house.ask(5)[0], house.ask(5, now=NOW + timedelta(hours=1))[0]
    await house.settled()
    house.lots.reads[0].succeed()
    await house.settled()
    shared = house.lots.reads[-1]
    assert shared.since == NOW
    within_the_hour = {"account": "5", "remaining": 100, "validUntil": NOW + timedelta(minutes=30)}
    at_its_end = {"account": "5", "remaining": 1000, "validUntil": NOW + timedelta(hours=1)}
    shared.answer.set_result([*shared.lots(), within_the_hour, at_its_end])
    assert (await early, await late) == (1105, 5)
    for read in house.lots.reads[1:-1]:
        read.succeed()
    await asyncio.gather(*first)


async def test_a_read_takes_so_many_accounts_and_no_more(house: House) -> None:
    points = range(100, 100 + ACCOUNTS_PER_READ + 3)
    tasks = await house.asked(*FULL, *points)
    while not all(task.done() for task in tasks):
        next(read for read in house.lots.reads if not read.answer.done()).succeed()
        await house.settled()
    assert [len(read.accounts) for read in house.lots.reads] == [1] * READS_AT_ONCE + [ACCOUNTS_PER_READ, 3]
    assert [task.result() for task in tasks] == [*FULL, *points]


async def test_who_gives_up_takes_nobody_along(house: House) -> None:
    alone, *others = await house.asked(*FULL, 70, 80, 90)
    waiting, sharing, left = others[-3:]
    waiting.cancel()
    alone.cancel()  # its read ends with it, and the next one begins
    await house.settled()
    shared = house.lots.reads[-1]
    assert shared.accounts == ["80", "90"]
    sharing.cancel()
    shared.succeed()
    assert await left == 90
    assert waiting.cancelled()
    assert sharing.cancelled()


async def test_a_read_that_fails_is_told_to_all_who_share_it_and_the_next_one_works(house: House) -> None:
    tasks = await house.asked(*FULL, 70, 80)
    for _ in range(READS_AT_ONCE + 1):
        next(read for read in house.lots.reads if not read.answer.done()).answer.set_exception(AutoReconnect("gone"))
        await house.settled()
    for task in tasks:
        with pytest.raises(LedgerUnavailable):
            await task
    again = await house.asked(*FULL)  # every place is free again
    for read in house.lots.reads[-READS_AT_ONCE:]:
        read.succeed()
    assert await asyncio.gather(*again) == list(FULL)


async def test_a_read_that_hangs_holds_nobody_up_for_long(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardpoints.ledger.balance_reads.SLOW_SECONDS", 0.01)
    hanging = house.ask(*FULL)
    await until(lambda: len(house.lots.reads) == READS_AT_ONCE)
    late = house.ask(70, 80)
    await until(lambda: sum(len(read.accounts) for read in house.lots.reads) == READS_AT_ONCE + 2)
    for read in house.lots.reads[READS_AT_ONCE:]:
        read.succeed()
    assert await asyncio.gather(*late) == [70, 80]
    for read in house.lots.reads[:READS_AT_ONCE]:
        read.succeed()
    assert await asyncio.gather(*hanging) == list(FULL)
    again = await house.asked(*FULL, 90)  # and no place was given back twice
    assert sum(not read.answer.done() for read in house.lots.reads) == READS_AT_ONCE
    while not all(task.done() for task in again):
        next(read for read in house.lots.reads if not read.answer.done()).succeed()
        await house.settled()
