"""What MongoDB keeps and promises, in memory: documents in versions, transactions on snapshots.

The rules that matter here are MongoDB's own:

* a transaction reads as of its first operation, and its own writes;
* a write in a transaction on what another has changed since, or is changing, fails with a write conflict at once;
* a write outside a transaction waits for the transaction that is changing the document;
* a transaction that nobody ends is ended by the server after a minute.

Each command runs in the server's own tasks: the death of a client does not undo what it had sent.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import bson
from bson.codec_options import CodecOptions
from pymongo.errors import DocumentTooLarge, DuplicateKeyError, OperationFailure, WriteError

from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.ledger.driver import DUPLICATE_KEY, TRANSIENT_TRANSACTION, WRITE_CONFLICT
from tests.simulation.expressions import Document, evaluated, matches, updated

LONGEST_TRANSACTION_SECONDS = 60
LARGEST_DOCUMENT = 16 * 1024 * 1024
CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True)
NO_SUCH_TRANSACTION = 251
FAILED_VALIDATION = 121


@dataclass(slots=True, eq=False)
class Transaction:
    """An open transaction, and what it has written: the new document under each key, None where it deleted."""

    snapshot: int = 0
    writes: dict[tuple[str, Any], Document | None] = field(default_factory=dict)
    state: str = "new"
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    reaper: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Entry:
    """The versions of one document, oldest first (None: it does not exist), and the transaction that is changing it."""

    versions: list[tuple[int, Document | None]] = field(default_factory=list)
    writer: Transaction | None = None

    def at(self, snapshot: int) -> Document | None:
        for instant, document in reversed(self.versions):
            if instant <= snapshot:
                return document
        return None

    @property
    def latest(self) -> Document | None:
        return self.versions[-1][1] if self.versions else None

    @property
    def changed_at(self) -> int:
        return self.versions[-1][0] if self.versions else 0


class Busy(Exception):
    """A transaction is changing the document; a write outside transactions waits for it."""

    def __init__(self, transaction: Transaction) -> None:
        super().__init__()
        self.transaction = transaction


class Server:
    """The documents of one database. Every method is one instant."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.collections: dict[str, dict[Any, Entry]] = {}
        self.validators: dict[str, Mapping[str, Any]] = {}
        self.indexes: dict[str, dict[str, dict[str, Any]]] = {}
        self.instant = 0
        self.transactions: list[Transaction] = []
        self.watchers: list[Callable[[set[tuple[str, Any]]], None]] = []

    def now(self) -> datetime:
        """The server's clock, in the milliseconds it stores."""
        return to_milliseconds(self.clock())

    # Reading

    def documents(self, collection: str, transaction: Transaction | None = None) -> list[Document]:
        """All documents, as of now or as the transaction sees them."""
        entries = self.collections.get(collection, {})
        if transaction is None:
            return [document for entry in entries.values() if (document := entry.latest) is not None]
        found = []
        for key, entry in entries.items():
            document = self._seen(collection, key, entry, transaction)
            if document is not None:
                found.append(document)
        return found

    def find(
        self, collection: str, condition: Mapping[str, Any], transaction: Transaction | None = None
    ) -> list[Document]:
        """What matches, as of now or as the transaction sees it."""
        identity = condition.get("_id")
        if isinstance(identity, str):
            entry = self.collections.get(collection, {}).get(identity)
            document = None
            if entry is not None:
                document = entry.latest if not transaction else self._seen(collection, identity, entry, transaction)
            return [document] if document is not None and matches(document, condition) else []
        return [document for document in self.documents(collection, transaction) if matches(document, condition)]

    def _seen(self, collection: str, key: Any, entry: Entry, transaction: Transaction) -> Document | None:
        if (collection, key) in transaction.writes:
            return transaction.writes[collection, key]
        return entry.at(transaction.snapshot)

    # Writing one document

    def insert(self, collection: str, document: Document, transaction: Transaction | None = None) -> None:
        """Insert; a duplicate key and a failed validation are raised."""
        key = document["_id"]
        entry = self.collections.setdefault(collection, {}).setdefault(key, Entry())
        self._may_write(entry, transaction)
        there = self._seen(collection, key, entry, transaction) if transaction else entry.latest
        if there is not None:
            raise self._abort(transaction, DuplicateKeyError(f"E11000 duplicate key {key}", DUPLICATE_KEY))
        self._validate(collection, document)
        self._write(collection, key, document, transaction)

    def update(
        self,
        collection: str,
        condition: Mapping[str, Any],
        change: Callable[[Document], Document],
        transaction: Transaction | None = None,
    ) -> tuple[int, int]:
        """Change one matching document; how many matched and how many were changed."""
        found = self.find(collection, condition, transaction)
        if not found:
            return 0, 0
        key = found[0]["_id"]
        self._may_write(self.collections[collection][key], transaction)
        changed = change(found[0])
        if changed == found[0]:
            return 1, 0
        self._validate(collection, changed)
        self._write(collection, key, changed, transaction)
        return 1, 1

    def delete(self, collection: str, condition: Mapping[str, Any], transaction: Transaction | None = None) -> int:
        """Delete one matching document; how many were."""
        found = self.find(collection, condition, transaction)
        if not found:
            return 0
        key = found[0]["_id"]
        self._may_write(self.collections[collection][key], transaction)
        self._write(collection, key, None, transaction)
        return 1

    def _may_write(self, entry: Entry, transaction: Transaction | None) -> None:
        if entry.writer is not None and entry.writer is not transaction:
            if transaction is None:
                raise Busy(entry.writer)
            raise self._conflict(transaction)
        if transaction is not None and entry.changed_at > transaction.snapshot:
            raise self._conflict(transaction)

    def _conflict(self, transaction: Transaction) -> Exception:
        details = {"errorLabels": [TRANSIENT_TRANSACTION]}
        return self._abort(transaction, OperationFailure("WriteConflict", WRITE_CONFLICT, details))

    def _abort(self, transaction: Transaction | None, error: Exception) -> Exception:
        if transaction is not None:
            self.abort(transaction)
        return error

    def _validate(self, collection: str, document: Document) -> None:
        validator = self.validators.get(collection)
        if validator is not None and not evaluated(validator["$expr"], document):
            raise WriteError("Document failed validation", FAILED_VALIDATION)

    def _write(self, collection: str, key: Any, document: Document | None, transaction: Transaction | None) -> None:
        entry = self.collections[collection][key]
        if transaction is not None:
            entry.writer = transaction
            transaction.writes[collection, key] = document
            return
        self.instant += 1
        entry.versions.append((self.instant, document))
        self._tell({(collection, key)})

    def _tell(self, changed: set[tuple[str, Any]]) -> None:
        for watcher in self.watchers:
            watcher(changed)

    # Transactions

    def begin_later(self) -> Transaction:
        """A transaction whose snapshot is taken when its first operation arrives."""
        transaction = Transaction()
        self.transactions = [one for one in self.transactions if one.state in ("new", "open")]
        self.transactions.append(transaction)
        return transaction

    def enter(self, transaction: Transaction, *, committing: bool) -> None:
        """An operation of a transaction arrives; one of a transaction that has ended is refused."""
        if transaction.state == "new":
            transaction.state = "open"
            transaction.snapshot = self.instant
            loop = asyncio.get_running_loop()
            transaction.reaper = loop.call_later(LONGEST_TRANSACTION_SECONDS, self.abort, transaction)
        elif not committing:
            self._check_open(transaction)

    def _check_open(self, transaction: Transaction) -> None:
        if transaction.state != "open":
            raise OperationFailure("NoSuchTransaction", NO_SUCH_TRANSACTION, {"errorLabels": [TRANSIENT_TRANSACTION]})

    def commit(self, transaction: Transaction) -> None:
        """Make its writes visible, all in one instant; again for one that is committed changes nothing."""
        if transaction.state == "committed":
            return
        self._check_open(transaction)
        self.instant += 1
        for (collection, key), document in transaction.writes.items():
            self.collections[collection][key].versions.append((self.instant, document))
        self._end(transaction, "committed")
        self._tell(set(transaction.writes))

    def abort(self, transaction: Transaction) -> None:
        """Forget its writes, where it is still open."""
        if transaction.state in ("new", "open"):
            self._end(transaction, "aborted")

    def abort_all(self) -> None:
        """End every open transaction."""
        for transaction in self.transactions:
            self.abort(transaction)

    def _end(self, transaction: Transaction, state: str) -> None:
        transaction.state = state
        for collection, key in transaction.writes:
            self.collections[collection][key].writer = None
        transaction.ended.set()
        if transaction.reaper:
            transaction.reaper.cancel()


def stored(document: Mapping[str, Any]) -> Document:
    """A document as it comes back from a server; what BSON cannot hold is refused as the driver refuses it."""
    encoded = bson.encode(document)
    if len(encoded) > LARGEST_DOCUMENT:
        raise DocumentTooLarge("BSON document too large")
    return bson.decode(encoded, CODEC)


def with_update(update: Mapping[str, Any], now: datetime) -> Callable[[Document], Document]:
    """An update as a function."""
    return lambda document: updated(document, update, now)
