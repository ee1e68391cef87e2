"""Tombstones: which customers were erased, and when by the server's clock."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.ports import Tombstone
from rewardpoints.domain.ports import Tombstones as TombstonesPort
from rewardpoints.ledger.documents import tombstone_from
from rewardpoints.ledger.driver import Collection, Database, driver_errors

OVERLAP: Final = timedelta(seconds=60)
"""How far behind the newest tombstone seen the next look begins: one may become visible after a later one."""

FRESH_SECONDS: Final = 60.0
"""For how long what was read counts as known. Far less than ``LOOK_AGAIN_AFTER``: once an erasure was looked at again,
nothing of before it is even tried."""

INTERRUPTED_AFTER: Final = timedelta(seconds=30)
"""Since its last round an erasure counts as interrupted. A round takes far less, and one more does no harm."""

LOOK_AGAIN_AFTER: Final = timedelta(minutes=10)
"""Since its end. A worker that has lost its partitions to one that went on may still insert a lot, and be killed before
its look. It tries no more once it knows, so this is a matter of one try and its time-outs."""


MOST_COUNTED: Final = 1000


@dataclass(frozen=True, slots=True)
class Look:
    """A look that is due: at an erasure that may be over, or at one that did not end."""

    tombstone: Tombstone
    unfinished: bool


@dataclass(frozen=True, slots=True)
class ErasuresDue:
    """How many erasures wait for a look, at most ``MOST_COUNTED``, and for how long the oldest has waited."""

    count: int
    oldest_seconds: float


class Tombstones:
    """Reads and writes tombstones; implements the port of the same name."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tombstones: Collection = database.tombstones

    async def since(self, instant: datetime | None) -> Sequence[Tombstone]:
        """Tombstones erased at or after ``instant`` (all for None), oldest first.

        Raises:
            LedgerUnavailable
        """
        wanted: dict[str, Any] = {} if instant is None else {"erasedAt": {"$gte": instant}}
        with driver_errors():
            found = await self._tombstones.find(wanted).to_list(None)
        return sorted(map(tombstone_from, found), key=lambda tombstone: (tombstone.erased_at, tombstone.account))

    async def find(self, account: Account) -> Tombstone | None:
        """The account's tombstone, if it was ever erased.

        Raises:
            LedgerUnavailable
        """
        with driver_errors():
            found = await self._tombstones.find_one({"_id": account})
        return tombstone_from(found) if found else None

    async def write(self, account: Account) -> datetime:
        """Being erased now, by the server's clock, which it returns; a tombstone never moves back.

        Until ``finish`` is told the same instant the erasure counts as unfinished.

        Raises:
            LedgerUnavailable: write it again.
        """
        now = await self._database.server_time()
        # Not $currentDate: of two erasures at once the one evaluated first may be applied last
        later = {"$max": {"erasedAt": now}, "$set": {"unfinished": True, "lookAt": now + INTERRUPTED_AFTER}}
        with driver_errors(writing=True):
            try:
                await self._tombstones.update_one({"_id": account}, later, upsert=True)
            except DuplicateKeyError:  # another erasure inserted it in this instant, so now it is there to be updated
                await self._tombstones.update_one({"_id": account}, later)
        return now

    async def finish(self, account: Account, erased_at: datetime) -> None:
        """Nothing of the account was left. An erasure that began later is not touched: it says so itself.

        Raises:
            LedgerUnavailable: it still counts as unfinished.
        """
        finished = {"$unset": {"unfinished": True}, "$set": {"lookAt": erased_at + LOOK_AGAIN_AFTER}}
        with driver_errors(writing=True):
            await self._tombstones.update_one({"_id": account, "erasedAt": erased_at}, finished)

    async def due(self, *, limit: int) -> Sequence[Look]:
        """Erasures that somebody has to look at again, by the server's clock.

        Raises:
            LedgerUnavailable
        """
        wanted = {"lookAt": {"$lte": await self._database.server_time()}}
        with driver_errors():
            found = await self._tombstones.find(wanted).limit(limit).to_list(None)
        return [Look(tombstone_from(document), unfinished="unfinished" in document) for document in found]

    async def waiting(self) -> ErasuresDue:
        """How many erasures are due for a look, by the server's clock. One indexed read, of nothing where all is well.

        Raises:
            LedgerUnavailable
        """
        now = await self._database.server_time()
        with driver_errors():
            due = (
                await self._tombstones.find({"lookAt": {"$lte": now}}, {"lookAt": 1})
                .sort("lookAt", 1)
                .limit(MOST_COUNTED)
                .to_list(None)
            )
        return ErasuresDue(len(due), (now - due[0]["lookAt"]).total_seconds() if due else 0.0)

    async def settle(self, tombstone: Tombstone) -> None:
        """Looked at, and nothing of before it was there. One that moved on meanwhile is not touched.

        Raises:
            LedgerUnavailable: it is due again.
        """
        same = {"_id": tombstone.account, "erasedAt": tombstone.erased_at, "unfinished": {"$ne": True}}
        with driver_errors(writing=True):
            await self._tombstones.update_one(same, {"$unset": {"lookAt": True}})


class TombstoneCache:
    """All tombstones, kept up to date by one indexed read a look. Holds one entry for each customer ever erased."""

    def __init__(self, tombstones: TombstonesPort) -> None:
        self._tombstones = tombstones
        self._erased_at: dict[Account, datetime] = {}
        self._newest: datetime | None = None
        self._looked_at: float | None = None

    async def refresh(self) -> Sequence[Tombstone]:
        """Read all tombstones, later only those since the newest one seen minus 60 seconds; returns what was read.

        Raises:
            LedgerUnavailable: nothing was changed, the next look reads the same.
        """
        began = asyncio.get_running_loop().time()
        read = await self._tombstones.since(self._newest - OVERLAP if self._newest else None)
        self._looked_at = began
        for tombstone in read:
            self._erased_at[tombstone.account] = tombstone.erased_at
            if self._newest is None or tombstone.erased_at > self._newest:
                self._newest = tombstone.erased_at
        return read

    async def ensure_fresh(self) -> None:
        """Refresh where that was done more than ``FRESH_SECONDS`` ago, or never.

        Raises:
            LedgerUnavailable
        """
        if self._looked_at is None or asyncio.get_running_loop().time() - self._looked_at > FRESH_SECONDS:
            await self.refresh()

    def erased_at(self, account: Account) -> datetime | None:
        """When the account was erased, as far as the last look saw."""
        return self._erased_at.get(account)
