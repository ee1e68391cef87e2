"""Balance reads: what accounts may spend, read from the lots; who asks at one time shares a read."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rewardpoints.domain.accounts import Account
from rewardpoints.ledger.driver import Collection, Document, driver_errors

READS_AT_ONCE: Final = 2
"""Reads under way; who asks meanwhile waits for one of them, and shares the next with all who wait."""

ACCOUNTS_PER_READ: Final = 50

SLOW_SECONDS: Final = 1.0
"""After this a read no longer holds up others: its connection may have fallen silent, theirs need not have."""

LOTS_PER_ANSWER: Final = 10_000
"""An answer holds 101 by default; what comes after is a round trip more, of another moment, and is never retried."""


@dataclass(frozen=True, slots=True)
class _Asked:
    account: Account
    now: datetime
    answer: asyncio.Future[int]


class BalanceReads:
    """Answers what remains of an account's valid lots.

    The driver's own work is most of the price of a small read. So it is paid once for several accounts where many ask,
    and nobody waits where few do. Every read begins after it was asked for.
    """

    def __init__(self, lots: Collection) -> None:
        self._lots = lots
        self._under_way = 0
        self._waiting: list[_Asked] = []
        self._reading: set[asyncio.Task[None]] = set()

    async def points(self, account: Account, now: datetime) -> int:
        """Σ remaining of the lots valid at ``now``; one indexed read.

        Raises:
            LedgerUnavailable
        """
        if self._under_way < READS_AT_ONCE:
            self._under_way += 1
            with self._place():
                return await self._read_one(account, now)
        asked = _Asked(account, now, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        return await asked.answer

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Hold one of the places of reads under way, for as long as ``SLOW_SECONDS`` at most."""
        held = True

        def pass_on() -> None:
            nonlocal held
            if held:
                held = False
                self._pass_on()

        slow = asyncio.get_running_loop().call_later(SLOW_SECONDS, pass_on, context=Context())
        try:
            yield
        finally:
            slow.cancel()
            pass_on()

    def _pass_on(self) -> None:
        """A place is free: the next read is for those who wait, if anybody does."""
        waiting = [one for one in self._waiting if not one.answer.done()]  # the others were cancelled
        part, self._waiting = waiting[:ACCOUNTS_PER_READ], waiting[ACCOUNTS_PER_READ:]
        if not part:
            self._under_way -= 1
            return
        # A task in a context of its own: whoever asked may be cancelled, the others are answered all the same
        task = asyncio.create_task(self._answer(part), context=Context())
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _answer(self, part: Sequence[_Asked]) -> None:
        try:
            with self._place():
                points = await self._read(part)
        except asyncio.CancelledError:
            for one in part:
                one.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, those who asked are told
            for one in part:
                if not one.answer.done():
                    one.answer.set_exception(error)
        else:
            for one, remaining in zip(part, points, strict=True):
                if not one.answer.done():
                    one.answer.set_result(remaining)

    async def _read_one(self, account: Account, now: datetime) -> int:
        found = await self._find({"account": account}, now, {"remaining": 1, "_id": 0})
        return sum(int(lot["remaining"]) for lot in found)

    async def _read(self, part: Sequence[_Asked]) -> list[int]:
        if len(part) == 1:
            return [await self._read_one(part[0].account, part[0].now)]
        found = await self._find(
            {"account": {"$in": sorted({one.account for one in part})}},
            min(one.now for one in part),
            {"account": 1, "remaining": 1, "validUntil": 1, "_id": 0},
        )
        lots: defaultdict[str, list[Document]] = defaultdict(list)
        for lot in found:
            lots[lot["account"]].append(lot)
        return [
            sum(int(lot["remaining"]) for lot in lots.get(one.account, ()) if lot["validUntil"] > one.now)
            for one in part
        ]

    async def _find(self, wanted: Document, now: datetime, fields: dict[str, Any]) -> list[Document]:
        valid = {**wanted, "open": True, "validUntil": {"$gt": now}}
        with driver_errors():
            return await self._lots.find(valid, fields).batch_size(LOTS_PER_ANSWER).to_list(None)
