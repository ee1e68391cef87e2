"""Lots in batches, as the order consumer adds them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import structlog
from bson.errors import BSONError
from pymongo import DeleteOne
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.ports import AddedLots, Tombstone
from rewardpoints.ledger.accounts import Accounts
from rewardpoints.ledger.documents import lot_document, lot_from
from rewardpoints.ledger.driver import DUPLICATE_KEY, Collection, Database, Document, driver_errors, is_server_trouble

logger = structlog.get_logger(__name__)

IDS_PER_READ: Final = 100
"""The embedded server's time for an ``$in`` grows with the square of its length."""

MAX_REASON_LENGTH: Final = 300

_ERASING: Final = {"account": 1, "points": 1, "remaining": 1, "createdAt": 1}

# What a server answers when something within a command is unusable: bad value, unparsable, wrong type, invalid BSON,
# too long, too large, failed validation. Only these are looked for record by record; all else is not a record's fault.
_UNUSABLE_INPUT: Final = frozenset({2, 9, 14, 16, 22, 121, 10334, 17280})


@dataclass(slots=True)
class _Outcome:
    added: list[int] = field(default_factory=list)
    already_there: list[int] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)


class LotBatches:
    """Adds the lots of orders; implements the port of the same name.

    Lots that are there already cost a server more to refuse than to find. So after a batch that was mostly there, as in
    a replay, the next one is looked for first, and only what is missing is inserted.
    """

    def __init__(self, database: Database, accounts: Accounts) -> None:
        self._lots: Collection = database.lots
        self._accounts = accounts
        self._mostly_there = False

    async def add_batch(self, lots: Sequence[Lot], *, compare: bool = True) -> AddedLots:
        """Insert ``lots`` in one unordered bulk write, or what is missing of them; see the port.

        Where the batch is refused as a whole it is halved until what is refused stands alone: one unusable lot costs
        about 2 log2(n) writes and no other lot.

        Raises:
            LedgerUnavailable: some may have been added; adding the same batch again completes it.
        """
        outcome = _Outcome()
        known = await self._known([lot.id for lot in lots], compare=compare) if self._mostly_there else {}
        missing = [position for position, lot in enumerate(lots) if lot.id not in known]
        outcome.already_there += [position for position, lot in enumerate(lots) if lot.id in known]
        if missing:
            await self._insert([lot_document(lots[position]) for position in missing], missing, outcome)
        if lots:
            self._mostly_there = 2 * len(outcome.already_there) > len(lots)
        differing = await self._differing(lots, sorted(outcome.already_there), known) if compare else []
        return AddedLots(sorted(outcome.added), sorted(outcome.already_there), differing, outcome.rejected)

    async def _known(self, lot_ids: Sequence[str], *, compare: bool) -> Mapping[str, Lot | None]:
        """Those of the lots that exist; what they are only where they are compared."""
        if compare:
            return await self.find_all(lot_ids)
        return {document["_id"]: None for document in await self._find(lot_ids, {"_id": 1})}

    async def find_all(self, lot_ids: Sequence[str]) -> Mapping[str, Lot]:
        """Those of the lots that exist, by id; one query for every hundred.

        Raises:
            LedgerUnavailable
        """
        return {document["_id"]: lot_from(document) for document in await self._find(lot_ids)}

    async def _find(self, lot_ids: Sequence[str], fields: Mapping[str, int] | None = None) -> list[Document]:
        found: list[Document] = []
        for start in range(0, len(lot_ids), IDS_PER_READ):
            wanted = {"_id": {"$in": list(lot_ids[start : start + IDS_PER_READ])}}
            with driver_errors():
                found += await self._lots.find(wanted, fields).to_list(None)
        return found

    async def delete_erased(self, lots: Sequence[Lot], tombstones: Sequence[Tombstone]) -> int:
        """Delete those of ``lots`` earned at or before their account's tombstone; returns how many there were.

        One that was drawn on in the meantime cannot go alone: its account is erased once more, redemption and all.

        Raises:
            LedgerUnavailable: call it again.
        """
        erased_at = {tombstone.account: tombstone.erased_at for tombstone in tombstones}
        ids = [lot.id for lot in lots if lot.account in erased_at and lot.created_at <= erased_at[lot.account]]
        if not ids:
            return 0
        stored = [lot for lot in await self._find(ids, _ERASING) if lot["createdAt"] <= erased_at[lot["account"]]]
        whole = [lot for lot in stored if not _is_drawn(lot)]
        drawn = {lot["account"] for lot in stored if _is_drawn(lot)}
        if whole:
            conditions = [{name: lot[name] for name in ("_id", "account", "remaining")} for lot in whole]
            with driver_errors(writing=True):
                result = await self._lots.bulk_write([DeleteOne(one) for one in conditions], ordered=False)
            if result.deleted_count < len(whole):
                # Drawn on since the look, or gone before: erased, or deleted by a try whose answer was lost. Of an
                # account that is done with nothing may be erased again: it may be in use since.
                drawn |= {lot["account"] for lot in await self._find(ids, _ERASING) if _is_drawn(lot)}
        for account in sorted(drawn):
            logger.warning("erased_again", reason="a lot of before the erasure was drawn on")
            await self._accounts.erase(account)
        return len(stored)

    async def _insert(self, documents: Sequence[Document], positions: Sequence[int], outcome: _Outcome) -> None:
        try:
            with driver_errors(writing=True):
                await self._lots.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            _sort_out(cast("Mapping[str, Any]", error.details), positions, outcome)
        except (BSONError, DocumentTooLarge, UnicodeError, OverflowError, OperationFailure) as error:
            if isinstance(error, OperationFailure) and error.code not in _UNUSABLE_INPUT:
                raise
            if len(documents) == 1:
                outcome.rejected[positions[0]] = _reason(str(error))
                return
            middle = len(documents) // 2
            await self._insert(documents[:middle], positions[:middle], outcome)
            await self._insert(documents[middle:], positions[middle:], outcome)
        else:
            outcome.added.extend(positions)

    async def _differing(
        self, lots: Sequence[Lot], duplicates: Sequence[int], known: Mapping[str, Lot | None]
    ) -> list[int]:
        stored = {lot_id: lot for lot_id, lot in known.items() if lot is not None}
        stored |= await self.find_all([lots[position].id for position in duplicates if lots[position].id not in stored])
        # One that has gone meanwhile was erased: there is nothing to differ from
        return [
            position
            for position in duplicates
            if lots[position].id in stored and not lots[position].same_grant(stored[lots[position].id])
        ]


def _is_drawn(lot: Document) -> bool:
    return bool(lot["remaining"] != lot["points"])


def _sort_out(details: Mapping[str, Any], positions: Sequence[int], outcome: _Outcome) -> None:
    if details.get("writeConcernErrors"):
        raise LedgerUnavailable("MongoDB did not confirm a batch at majority", outcome_unknown=True)
    errors: Iterable[Mapping[str, Any]] = details["writeErrors"]
    refused = {error["index"]: error for error in errors}
    for error in refused.values():
        if is_server_trouble(error["code"]):
            raise LedgerUnavailable(f"MongoDB cannot add a lot now (code {error['code']})", outcome_unknown=True)
    for index, position in enumerate(positions):
        failed = refused.get(index)
        if failed is None:
            outcome.added.append(position)
        elif failed["code"] == DUPLICATE_KEY:
            outcome.already_there.append(position)
        else:
            outcome.rejected[position] = _reason(f"{failed['errmsg']} (code {failed['code']})")


def _reason(message: str) -> str:
    return message[:MAX_REASON_LENGTH]
