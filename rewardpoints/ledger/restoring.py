"""Restoring: what is put back into a database after a backup was loaded into it, before anything serves it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.lots import Lot, LotKind
from rewardpoints.domain.ports import Tombstone
from rewardpoints.domain.redemptions import Redemption, RedemptionState
from rewardpoints.ledger.documents import lot_from, redemption_document, redemption_from, tombstone_from
from rewardpoints.ledger.driver import Collection, Database, Document, Session, driver_errors
from rewardpoints.ledger.transactions import AttemptFailed, run

DOCUMENTS_PER_READ: Final = 1000
_SERVING: Final = "serving"


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a redemption: ``added``, or there before, or what its draws lack: lots and the points missing."""

    added: bool = False
    lacking: tuple[tuple[str, int], ...] = ()


class Restoring:
    """Writes that only a database nobody serves may be given."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def mark_serving(self) -> None:
        """Note that a process of the service uses this database under its name. Idempotent.

        Raises:
            LedgerUnavailable
        """
        with driver_errors(writing=True):
            try:
                await self._database.marks.update_one(
                    {"_id": _SERVING}, {"$set": {"database": self._database.name}}, upsert=True
                )
            except DuplicateKeyError:
                return  # another process did, in this instant

    async def is_serving(self) -> bool:
        """Whether a process of the service ever used this database under this name; a restored copy has another.

        Raises:
            LedgerUnavailable
        """
        with driver_errors():
            mark = await self._database.marks.find_one({"_id": _SERVING})
        return mark is not None and mark["database"] == self._database.name

    async def bury(self, tombstone: Tombstone) -> int:
        """Write a tombstone as it was and delete what is older of the account; returns how many entries that were.

        Raises:
            LedgerUnavailable: bury it again.
        """
        at = to_milliseconds(tombstone.erased_at)
        key = {"_id": tombstone.account}
        gone = 0
        with driver_errors(writing=True):
            await self._database.tombstones.update_one(key, {"$max": {"erasedAt": at}}, upsert=True)
            account = {"account": tombstone.account}
            redemptions = await self._database.redemptions.delete_many({**account, "createdAt": {"$lte": at}})
            orders = {"kind": LotKind.ORDER.value, "createdAt": {"$lte": at}}
            others = {"kind": {"$ne": LotKind.ORDER.value}, "recordedAt": {"$lte": at}}
            for older in (orders, others):
                gone += (await self._database.lots.delete_many({**account, **older})).deleted_count
        return gone + redemptions.deleted_count

    async def redeem(self, redemption: Redemption, *, published_at: datetime) -> Restored:
        """Put a redemption back with its own id, code and draws, all or nothing. There before: nothing happens.

        Raises:
            LedgerUnavailable: call it again.
        """

        async def again(session: Session) -> Restored:
            key = {"_id": redemption.id, "account": redemption.account}
            if await self._database.redemptions.find_one(key, {"_id": 1}, session=session):
                return Restored()
            lots: dict[str, Lot] = {}
            for draw in redemption.draws:  # one by one: few, and each an exact lookup
                stored = await self._database.lots.find_one(
                    {"_id": draw.lot, "account": redemption.account}, session=session
                )
                if stored:
                    lots[draw.lot] = lot_from(stored)
            lacking = tuple(
                (draw.lot, draw.points - (lots[draw.lot].remaining if draw.lot in lots else 0))
                for draw in redemption.draws
                if draw.lot not in lots or lots[draw.lot].remaining < draw.points
            )
            if lacking:
                return Restored(lacking=lacking)
            updates = []
            for draw in redemption.draws:
                lot = lots[draw.lot]
                left = lot.remaining - draw.points
                condition = {"_id": lot.id, "account": lot.account, "remaining": lot.remaining}
                updates.append(UpdateOne(condition, {"$set": {"remaining": left, "open": left > 0}}))
            drawn = await self._database.lots.bulk_write(updates, session=session)
            if drawn.matched_count != len(updates):
                raise AttemptFailed("a lot changed meanwhile")
            document = redemption_document(redemption) | {"publishedAt": to_milliseconds(published_at)}
            await self._database.redemptions.insert_one(document, session=session)
            return Restored(added=True)

        return await run(self._database, again)

    async def take_settings_from(self, other: Database) -> int:
        """Copy site settings and redeem options where this database has none; returns how many were copied.

        Raises:
            LedgerUnavailable: call it again.
        """
        copied = 0
        for mine, theirs in (
            (self._database.site_settings, other.site_settings),
            (self._database.redeem_options, other.redeem_options),
        ):
            with driver_errors(writing=True):
                if await mine.find_one({}, {"_id": 1}):
                    continue
                async for page in _pages(theirs, {}):
                    await mine.insert_many(page)
                    copied += len(page)
        return copied

    async def every_tombstone(self) -> AsyncGenerator[Tombstone]:
        """All tombstones, by account.

        Raises:
            LedgerUnavailable: at any step.
        """
        async for page in _pages(self._database.tombstones, {}):
            for document in page:
                yield tombstone_from(document)

    async def by_hand(self) -> AsyncGenerator[Sequence[Lot | Redemption]]:
        """What no topic holds: lots given by hand and redemptions without a coupon, some at a time.

        Raises:
            LedgerUnavailable: at any step.
        """
        kinds = [LotKind.ORDER.value, LotKind.CHARGEBACK.value]
        async for page in _pages(self._database.lots, {}):
            yield [lot_from(document) for document in page if document["kind"] not in kinds]
        async for page in _pages(self._database.redemptions, {}):
            yield [redemption_from(one) for one in page if one["state"] == RedemptionState.DONE.value]

    async def missing(self, entries: Sequence[Lot | Redemption]) -> Sequence[Lot | Redemption]:
        """Those of the entries that are not in this database.

        Raises:
            LedgerUnavailable
        """
        absent: list[Lot | Redemption] = []
        for entry in entries:
            collection = self._database.lots if isinstance(entry, Lot) else self._database.redemptions
            with driver_errors():
                if not await collection.find_one({"_id": entry.id}, {"_id": 1}):
                    absent.append(entry)
        return absent


async def _pages(collection: Collection, wanted: Mapping[str, Any]) -> AsyncGenerator[list[Document]]:
    """Documents in the order of their ids."""
    after: dict[str, Any] = dict(wanted)
    while True:
        with driver_errors():
            page = await collection.find(after).sort("_id", 1).limit(DOCUMENTS_PER_READ).to_list(None)
        if page:
            yield page
        if len(page) < DOCUMENTS_PER_READ:
            return
        after = {**wanted, "_id": {"$gt": page[-1]["_id"]}}
