"""Accounts: reading, opening, adding to and erasing them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Final, TypeVar

import structlog
from pymongo import DeleteOne
from pymongo.errors import DuplicateKeyError

from rewardpoints.domain.accounts import Account, tenant_range
from rewardpoints.domain.errors import AccountExists, IdempotencyConflict, LedgerUnavailable
from rewardpoints.domain.history import History, SummaryHistory
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.lots import Lot
from rewardpoints.ledger.account_pages import AccountPages, Entries
from rewardpoints.ledger.balance_reads import BalanceReads
from rewardpoints.ledger.documents import LOT_SUMMARY_FIELDS, lot_document, lot_from, lot_summary_from, redemption_from
from rewardpoints.ledger.driver import Collection, Database, Session, driver_errors
from rewardpoints.ledger.tombstones import ErasuresDue, Look, Tombstones
from rewardpoints.ledger.transactions import AttemptFailed, run

logger = structlog.get_logger(__name__)

Result = TypeVar("Result")

MOST_ROUNDS: Final = 20
DELETES_PER_WRITE: Final = 1000


class Accounts:
    """Implements the port of the same name."""

    def __init__(self, database: Database, tombstones: Tombstones, pages: AccountPages | None = None) -> None:
        self._database = database
        self._tombstones = tombstones
        self._pages = pages or AccountPages(database)
        self._balance_reads = BalanceReads(database.lots)

    async def balance(self, account: Account, now: datetime) -> int | None:
        """Σ remaining of the lots valid at ``now``; None where the account does not exist.

        One indexed read where there are points, shared with other accounts that are asked for at the same time.

        Raises:
            LedgerUnavailable
        """
        points = await self._balance_reads.points(account, now)
        if points == 0:
            with driver_errors():
                exists = await self._exists(account)
            if not exists:
                return None
            # Read again: the account may have been opened between the two reads, and then it never was at 0
            points = await self._balance_reads.points(account, now)
        return points

    async def history(self, account: Account) -> History | None:
        """All entries of an account in one snapshot; None where the account does not exist.

        Raises:
            LedgerUnavailable
        """
        for entries in await self._pages.read(account, account):
            return history_from(entries)
        return None

    async def summary_history(self, account: Account) -> SummaryHistory | None:
        """What a summary needs of an account, in one snapshot; None where the account does not exist.

        Raises:
            LedgerUnavailable
        """
        for entries in await self._pages.read(account, account, lot_fields=LOT_SUMMARY_FIELDS):
            return _summary_history_from(entries)
        return None

    async def summary_histories(
        self, tenant: str, *, skip: int = 0, limit: int | None = None
    ) -> AsyncIterator[SummaryHistory]:
        """The tenant's accounts in account order, in constant memory, each account in one snapshot.

        Raises:
            LedgerUnavailable: at any step.
        """
        async with aclosing(
            self._pages.entries(tenant_range(tenant), skip=skip, limit=limit, lot_fields=LOT_SUMMARY_FIELDS)
        ) as pages:
            async for entries in pages:
                yield _summary_history_from(entries)

    async def count(self, tenant: str) -> int:
        """How many accounts the tenant has.

        Raises:
            LedgerUnavailable
        """
        return await self._pages.count(tenant_range(tenant))

    async def open(self, lot: Lot) -> None:
        """Open an account with its opening lot. Of several at once exactly one succeeds.

        Raises:
            AccountExists: it has a lot or a redemption already; nothing was changed.
            LedgerUnavailable: also where the account was erased at or after the lot's instant; with a lot of a later
                instant it may succeed.
        """
        tried = False

        async def enter(session: Session) -> None:
            nonlocal tried
            mine, tried = tried and await self._stored(lot, session) == lot, True
            if mine:  # a commit that was not answered
                return
            if await self._exists(lot.account, session):
                raise AccountExists
            await self._enter(lot, session)

        await self._alone(enter)

    async def add(self, lot: Lot) -> bool:
        """Add a manual lot. True when it was added now, False when the same request added it before.

        Raises:
            IdempotencyConflict: its id was used for something else; nothing was changed.
            LedgerUnavailable: also where the account was erased at or after the lot's instant; with a lot of a later
                instant it may succeed.
        """

        async def enter(session: Session) -> bool:
            stored = await self._stored(lot, session)
            if stored is None:
                await self._enter(lot, session)
                return True
            if stored.fingerprint != lot.fingerprint:
                raise IdempotencyConflict
            return False

        return await self._alone(enter)

    async def erase(self, account: Account) -> None:
        """Write a tombstone and delete redemptions and lots, again and again until a look at each finds none left.

        Looking again takes what others committed meanwhile: a lot that a chargeback gave back just before its
        redemption was deleted, a redemption that drew on such a lot. So nothing is left that refers to something gone.
        What is entered by hand was committed before the guard is written, and is deleted; or conflicts with it, and
        finds the tombstone in its next attempt. The tombstone moves forward each time, so that nothing is deleted that
        is newer than it: such an order would be missing, and come back with a replay. A lot that was drawn on outlives
        everything else, so that whoever was interrupted finds it again. Unpublished coupon requests go with their
        redemptions. Idempotent.

        Raises:
            LedgerUnavailable: erase again; also where the account gains entries faster than they are deleted.
        """
        for _ in range(MOST_ROUNDS):
            erased_at = await self._tombstones.write(account)
            with driver_errors(writing=True):
                await self._guard(account)
                redemptions = await self._delete_all(self._database.redemptions, account)
                lots = await self._delete_all(self._database.lots, account)
            if not lots and not redemptions:
                await self._tombstones.finish(account, erased_at)
                return
        raise LedgerUnavailable("the account gains entries while it is being erased")

    async def look_again(self, *, limit: int) -> int:
        """Look at erasures that did not end, or ended ten minutes ago, and erase where that is needed.

        An interrupted one may have deleted what is newer than its tombstone: only moving on makes that true. After one
        that ended, a worker that was given up may have added a lot of before it. Returns how many were looked at.

        Raises:
            LedgerUnavailable: at the end, if one could not be looked at; it is due again.
        """
        due = await self._tombstones.due(limit=limit)
        failure: LedgerUnavailable | None = None
        for look in due:
            try:
                await self._look_again(look)
            except LedgerUnavailable as error:
                failure = error
        if failure is not None:
            raise failure
        return len(due)

    async def erasures_due(self) -> ErasuresDue:
        """How many erasures ``look_again`` would look at now.

        Raises:
            LedgerUnavailable
        """
        return await self._tombstones.waiting()

    async def _look_again(self, look: Look) -> None:
        account, erased_at = look.tombstone.account, look.tombstone.erased_at
        with driver_errors():
            left = await self._database.lots.find_one(
                {"account": account, "createdAt": {"$lte": erased_at}}, {"_id": 1}
            )
        if look.unfinished or left:
            logger.warning(
                "erased_again", reason="the erasure was interrupted" if look.unfinished else "a lot came late"
            )
            await self.erase(account)
        else:
            await self._tombstones.settle(look.tombstone)

    async def _delete_all(self, collection: Collection, account: Account) -> bool:
        """Delete what the account has in a collection now, lots that were drawn on last; False when that was nothing.

        One by one: the embedded server holds its collection lock while a ``delete_many`` waits for a transaction that
        needs the lock to go on.
        """
        found = await collection.find({"account": account}, {"remaining": 1, "points": 1}).to_list(None)
        found.sort(key=lambda document: document.get("remaining") != document["points"])
        deletes = [DeleteOne({"_id": document["_id"], "account": account}) for document in found]
        for start in range(0, len(deletes), DELETES_PER_WRITE):
            await collection.bulk_write(deletes[start : start + DELETES_PER_WRITE], ordered=True)
        return bool(found)

    async def _alone(self, enter: Callable[[Session], Awaitable[Result]]) -> Result:
        """Run ``enter`` in a transaction until it is committed."""

        async def once(session: Session) -> Result:
            try:
                return await enter(session)
            except DuplicateKeyError as error:  # another's guard or lot of this instant, there in the next snapshot
                raise AttemptFailed("an entry of the same account came first") from error

        return await run(self._database, once)

    async def _enter(self, lot: Lot, session: Session) -> None:
        """Insert an entry made by hand. It comes once: nothing would bring it again for a look after the insert.

        So it must not overlap an erasure. Its instant cannot be moved here, its validity hangs on it.
        """
        await self._guard(lot.account, session)
        tombstone = await self._database.tombstones.find_one({"_id": lot.account}, session=session)
        # as it will be stored: an instant later in the same millisecond would count as before the erasure ever after
        if tombstone is not None and tombstone["erasedAt"] >= to_milliseconds(lot.recorded_at):
            raise LedgerUnavailable("the account was erased in the meantime")
        await self._database.lots.insert_one(lot_document(lot), session=session)

    async def _guard(self, account: Account, session: Session | None = None) -> None:
        """Write the one document that every entry by hand and every erasure of the account writes: so they conflict."""
        once_more = {"$inc": {"writes": 1}}
        await self._database.guards.update_one({"_id": account}, once_more, upsert=True, session=session)

    async def _stored(self, lot: Lot, session: Session) -> Lot | None:
        stored = await self._database.lots.find_one({"_id": lot.id, "account": lot.account}, session=session)
        return lot_from(stored) if stored else None

    async def _exists(self, account: Account, session: Session | None = None) -> bool:
        for collection in (self._database.lots, self._database.redemptions):
            if await collection.find_one({"account": account}, {"_id": 1}, session=session):
                return True
        return False


def history_from(entries: Entries) -> History:
    """An account's documents as its history."""
    return History(
        Account(entries.account),
        [lot_from(document) for document in entries.lots],
        [redemption_from(document) for document in entries.redemptions],
    )


def _summary_history_from(entries: Entries) -> SummaryHistory:
    return SummaryHistory(
        Account(entries.account),
        [lot_summary_from(document) for document in entries.lots],
        [redemption_from(document) for document in entries.redemptions],
    )
