"""Accounts: reading, opening, adding to and erasing them."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Final

from pymongo import DeleteOne
from pymongo.errors import DuplicateKeyError

from rewardpoints.domain.accounts import Account, tenant_range
from rewardpoints.domain.errors import AccountExists, IdempotencyConflict, LedgerUnavailable
from rewardpoints.domain.history import History
from rewardpoints.domain.lots import Lot
from rewardpoints.ledger.account_pages import AccountPages, Entries
from rewardpoints.ledger.documents import lot_document, lot_from, redemption_from
from rewardpoints.ledger.driver import Collection, Database, driver_errors
from rewardpoints.ledger.tombstones import Tombstones

MOST_ROUNDS: Final = 20
DELETES_PER_WRITE: Final = 1000


class Accounts:
    """Implements the port of the same name."""

    def __init__(self, database: Database, tombstones: Tombstones, pages: AccountPages | None = None) -> None:
        self._database = database
        self._tombstones = tombstones
        self._pages = pages or AccountPages(database)

    async def balance(self, account: Account, now: datetime) -> int | None:
        """Σ remaining of the lots valid at ``now``; None where the account does not exist.

        One indexed read where there are points.

        Raises:
            LedgerUnavailable
        """
        with driver_errors():
            points = await self._open_points(account, now)
            if points == 0:
                if not await self._exists(account):
                    return None
                # Read again: the account may have been opened between the two reads, and then it never was at 0
                points = await self._open_points(account, now)
        return points

    async def _open_points(self, account: Account, now: datetime) -> int:
        wanted = {"account": account, "open": True, "validUntil": {"$gt": now}}
        found = await self._database.lots.find(wanted, {"remaining": 1, "_id": 0}).to_list(None)
        return sum(int(lot["remaining"]) for lot in found)

    async def history(self, account: Account) -> History | None:
        """All entries of an account in one snapshot; None where the account does not exist.

        Raises:
            LedgerUnavailable
        """
        for entries in await self._pages.read(account, account):
            return _history(entries)
        return None

    async def histories(self, tenant: str, *, skip: int = 0, limit: int | None = None) -> AsyncIterator[History]:
        """The tenant's accounts in account order, in constant memory, each account in one snapshot.

        Raises:
            LedgerUnavailable: at any step.
        """
        async with aclosing(self._pages.entries(tenant_range(tenant), skip=skip, limit=limit)) as pages:
            async for entries in pages:
                yield _history(entries)

    async def count(self, tenant: str) -> int:
        """How many accounts the tenant has.

        Raises:
            LedgerUnavailable
        """
        return await self._pages.count(tenant_range(tenant))

    async def open(self, lot: Lot) -> None:
        """Open an account with its opening lot. Of several at once exactly one succeeds: they share the lot's id.

        Raises:
            AccountExists: it has a lot or a redemption already; nothing was changed.
            LedgerUnavailable: also where the account is being erased; with a lot of a later instant it may succeed.
        """
        with driver_errors(writing=True):
            if await self._exists(lot.account):
                raise AccountExists
            try:
                await self._database.lots.insert_one(lot_document(lot))
            except DuplicateKeyError as error:
                raise AccountExists from error
        await self._withdraw_if_erased(lot)

    async def add(self, lot: Lot) -> bool:
        """Add a manual lot. True when it was added now, False when the same request added it before.

        Raises:
            IdempotencyConflict: its id was used for something else; nothing was changed.
            LedgerUnavailable: also where the account is being erased; with a lot of a later instant it may succeed.
        """
        with driver_errors(writing=True):
            try:
                await self._database.lots.insert_one(lot_document(lot))
            except DuplicateKeyError as error:
                stored = await self._database.lots.find_one({"_id": lot.id, "account": lot.account})
                if stored is None:
                    raise LedgerUnavailable("the account is being erased") from error
                if lot_from(stored).fingerprint != lot.fingerprint:
                    raise IdempotencyConflict from error
                return False
        await self._withdraw_if_erased(lot)
        return True

    async def erase(self, account: Account) -> None:
        """Write a tombstone and delete redemptions and lots, again and again until a look at each finds none left.

        Looking again takes what others committed meanwhile: a lot that a chargeback gave back just before its
        redemption was deleted, a redemption that drew on such a lot. So nothing is left that refers to something gone.
        The tombstone moves forward each time, so that nothing is deleted that is newer than it: such an order would
        be missing, and come back with a replay. A lot that was drawn on outlives its redemptions, so that whoever was
        interrupted in between finds it again. Unpublished coupon requests go with their redemptions. Idempotent.

        Raises:
            LedgerUnavailable: erase again; also where the account gains entries faster than they are deleted.
        """
        for _ in range(MOST_ROUNDS):
            await self._tombstones.write(account)
            redemptions = await self._delete_all(self._database.redemptions, account)
            lots = await self._delete_all(self._database.lots, account)
            if not lots and not redemptions:
                return
        raise LedgerUnavailable("the account gains entries while it is being erased")

    async def _delete_all(self, collection: Collection, account: Account) -> bool:
        """Delete what the account has in a collection now; False when that was nothing.

        One by one: the embedded server holds its collection lock while a ``delete_many`` waits for a transaction that
        needs the lock to go on.
        """
        with driver_errors(writing=True):
            found = await collection.find({"account": account}, {"_id": 1}).to_list(None)
            deletes = [DeleteOne({"_id": document["_id"], "account": account}) for document in found]
            for start in range(0, len(deletes), DELETES_PER_WRITE):
                await collection.bulk_write(deletes[start : start + DELETES_PER_WRITE], ordered=False)
        return bool(found)

    async def _withdraw_if_erased(self, lot: Lot) -> None:
        """Look for a tombstone after inserting: looking before would miss one written in between.

        The lot's instant cannot be moved here (its validity hangs on it), so the caller must come again with a new one.
        """
        tombstone = await self._tombstones.find(lot.account)
        if tombstone is None or tombstone.erased_at < lot.recorded_at:
            return
        with driver_errors(writing=True):
            # One that was drawn on in this instant stays, or its redemption would have drawn on nothing
            await self._database.lots.delete_one(
                {"_id": lot.id, "account": lot.account, "recordedAt": lot.recorded_at, "remaining": lot.points}
            )
        raise LedgerUnavailable("the account is being erased")

    async def _exists(self, account: Account) -> bool:
        for collection in (self._database.lots, self._database.redemptions):
            if await collection.find_one({"account": account}, {"_id": 1}):
                return True
        return False


def _history(entries: Entries) -> History:
    return History(
        Account(entries.account),
        [lot_from(document) for document in entries.lots],
        [redemption_from(document) for document in entries.redemptions],
    )
