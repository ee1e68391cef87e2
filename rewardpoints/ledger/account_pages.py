"""Accounts in order: reading a range of accounts whole, each in one snapshot, in constant memory."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.ledger.driver import Collection, Database, Document, Session, driver_errors
from rewardpoints.ledger.transactions import run

KEYS_PER_READ: Final = 20_000
"""Account keys read at once. They come from the index alone; the embedded server sorts what is left of the range."""

PATIENCE_SECONDS: Final = 60.0
"""How long an operator's walk of many minutes waits at any step for a server that is away, as in a failover."""

LONGEST_PAUSE_SECONDS: Final = 5.0

ENTRIES_PER_SNAPSHOT: Final = 1000
"""Lots and redemptions of one snapshot, more only where a single account has more."""

Result = TypeVar("Result")
Range = tuple[str, str]
"""``low <= account < high``."""

LotFields = Mapping[str, int]
"""A projection of lots. It holds ``account``."""

EVERY_ACCOUNT: Final[Range] = ("", "\U0010ffff")


@dataclass(slots=True)
class Entries:
    """The documents of one account from one snapshot."""

    account: str
    lots: list[Document] = field(default_factory=list)
    redemptions: list[Document] = field(default_factory=list)


class AccountPages:
    """Walks over accounts in the order of their keys.

    Each step is tried again for ``patience_seconds`` while MongoDB cannot be reached.
    """

    def __init__(
        self,
        database: Database,
        *,
        keys_per_read: int = KEYS_PER_READ,
        entries_per_snapshot: int = ENTRIES_PER_SNAPSHOT,
        patience_seconds: float = 0,
    ) -> None:
        self._database = database
        self._keys_per_read = keys_per_read
        self._entries_per_snapshot = entries_per_snapshot
        self._patience_seconds = patience_seconds

    async def entries(
        self,
        accounts: Range,
        *,
        skip: int = 0,
        limit: int | None = None,
        since: datetime | None = None,
        lot_fields: LotFields | None = None,
    ) -> AsyncGenerator[Entries]:
        """The accounts of a range in order, without the first ``skip`` and at most ``limit`` of them.

        Several small accounts share a snapshot. What is erased while the walk goes on is left out. With ``since`` only
        accounts that have a lot recorded or a redemption made at or after that instant; no index helps to find them.

        Raises:
            LedgerUnavailable: at any step; what was yielded before stands.
        """
        first: str | None = None
        last, count, position = "", 0, 0
        async for account, size in self._sizes(accounts, since):
            if limit is not None and position >= skip + limit:
                break
            position += 1
            if position <= skip:
                continue
            # With ``since`` the accounts are not neighbours: what lies between them is not asked for
            if first is not None and (since is not None or count + size > self._entries_per_snapshot):
                for entries in await self.read(first, last, lot_fields=lot_fields):
                    yield entries
                first, count = None, 0
            first = first or account
            last, count = account, count + size
        if first is not None:
            for entries in await self.read(first, last, lot_fields=lot_fields):
                yield entries

    async def read(self, first: str, last: str, *, lot_fields: LotFields | None = None) -> Sequence[Entries]:
        """The accounts from ``first`` to ``last``, both included, in one snapshot; of lots these fields only.

        Raises:
            LedgerUnavailable
        """
        # Equality where it is one account: both servers find it fastest so
        wanted: Any = first if first == last else {"$gte": first, "$lte": last}

        async def read_both(session: Session) -> tuple[list[Document], list[Document]]:
            lots = await self._database.lots.find({"account": wanted}, lot_fields, session=session).to_list(None)
            redemptions = await self._database.redemptions.find({"account": wanted}, session=session).to_list(None)
            return lots, redemptions

        lots, redemptions = await self._patiently(lambda: run(self._database, read_both))
        found: dict[str, Entries] = {}
        for lot in lots:
            found.setdefault(lot["account"], Entries(lot["account"])).lots.append(lot)
        for redemption in redemptions:
            found.setdefault(redemption["account"], Entries(redemption["account"])).redemptions.append(redemption)
        return [found[account] for account in sorted(found)]

    async def count(self, accounts: Range) -> int:
        """How many accounts the range has.

        Raises:
            LedgerUnavailable
        """
        within = {"$match": {"account": {"$gte": accounts[0], "$lt": accounts[1]}}}
        distinct = {"$group": {"_id": "$account"}}
        with driver_errors():
            counted = await self._database.aggregate(
                self._database.lots,
                [
                    within,
                    distinct,
                    {"$unionWith": {"coll": self._database.redemptions.name, "pipeline": [within, distinct]}},
                    {"$group": {"_id": "$_id"}},
                    {"$count": "accounts"},
                ],
            )
        return int(counted[0]["accounts"]) if counted else 0

    async def _sizes(self, accounts: Range, since: datetime | None = None) -> AsyncIterator[tuple[str, int]]:
        """Each account of the range in order, with how many entries it has (or at least a page of them)."""
        lots = self._keys(self._database.lots, accounts, {"recordedAt": {"$gte": since}} if since else {})
        redemptions = self._keys(self._database.redemptions, accounts, {"createdAt": {"$gte": since}} if since else {})
        lot, redemption = await anext(lots, None), await anext(redemptions, None)
        while lot or redemption:
            account = min(key[0] for key in (lot, redemption) if key)
            size = 0
            if lot and lot[0] == account:
                size += lot[1]
                lot = await anext(lots, None)
            if redemption and redemption[0] == account:
                size += redemption[1]
                redemption = await anext(redemptions, None)
            yield account, size

    async def _keys(
        self, collection: Collection, accounts: Range, also: Mapping[str, Any]
    ) -> AsyncIterator[tuple[str, int]]:
        after: dict[str, Any] = {"$gte": accounts[0], "$lt": accounts[1]}
        while True:
            keys = await self._patiently(partial(self._read_keys, collection, {"account": after, **also}))
            for account, group in groupby(keys, key=itemgetter("account")):
                yield account, sum(1 for _ in group)
            if len(keys) < self._keys_per_read:
                return
            # The last account's size may be counted short; its entries are read whole all the same
            after = {"$gt": keys[-1]["account"], "$lt": accounts[1]}

    async def _read_keys(self, collection: Collection, wanted: Mapping[str, Any]) -> list[Document]:
        # Bounded on the server too: a read that is given up and tried again would go on beside its successor
        milliseconds = int(self._database.operation_timeout_seconds * 1000)
        with driver_errors():
            return await (
                collection.find(wanted, {"account": 1, "_id": 0})
                .sort("account", 1)
                .limit(self._keys_per_read)
                .max_time_ms(milliseconds)
                .to_list(None)
            )

    async def _patiently(self, read: Callable[[], Awaitable[Result]]) -> Result:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(LedgerUnavailable),
            wait=wait_random_exponential(max=LONGEST_PAUSE_SECONDS),
            stop=stop_after_delay(self._patience_seconds),
            reraise=True,
        ):
            with attempt:
                result = await read()
        return result


async def about_entries(database: Database) -> int:
    """About how many lots and redemptions there are, from the server's statistics.

    Raises:
        LedgerUnavailable
    """
    with driver_errors():
        lots = await database.lots.estimated_document_count()
        return lots + await database.redemptions.estimated_document_count()
