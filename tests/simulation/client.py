"""The driver's operations as the ledger calls them, over a simulated server and a network that loses things.

``SimulatedClient`` stands where ``rewardpoints.ledger.driver.Database`` takes PyMongo's client. As PyMongo does, a
command outside a transaction is sent a second time when its connection is lost; the server knows it again then.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

from pymongo import DeleteOne, UpdateOne, _csot
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    CollectionInvalid,
    DuplicateKeyError,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    WriteError,
    WTimeoutError,
)
from pymongo.results import BulkWriteResult, DeleteResult, InsertOneResult, UpdateResult

from rewardpoints.ledger.driver import TRANSIENT_TRANSACTION, UNKNOWN_COMMIT
from tests.simulation.expressions import Document, aggregated, ordered, projected
from tests.simulation.server import Busy, Server, Transaction, stored, with_update

Result = TypeVar("Result")
Step = Callable[[], Result]


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one command: seconds there and back, and how it fails, if it does."""

    there: float = 0.0
    back: float = 0.0
    request_lost: bool = False
    answer_lost: bool = False
    code: int | None = None
    labels: Sequence[str] = ()
    unconfirmed: bool = False


class Network:
    """Everything arrives at once. Others lose, delay and refuse."""

    def fate(self, command: str) -> Fate:
        """What becomes of the next command of this name."""
        del command
        return Fate()

    def note(self, event: str) -> None:
        """A command was carried out."""


class SimulatedClient:
    """One process's client of the server."""

    def __init__(
        self,
        server: Server,
        network: Network,
        *,
        operation_timeout_seconds: float = 10,
        root: Context | None = None,
    ) -> None:
        self.server = server
        self.network = network
        self._timeout_seconds = operation_timeout_seconds
        self._root = root or copy_context()
        self.admin = self
        self.begun: list[Transaction] = []

    def get_database(self, name: str, **_: Any) -> "SimulatedDatabase":
        del name
        return SimulatedDatabase(self)

    def start_session(self) -> "SimulatedSession":
        return SimulatedSession(self)

    async def command(self, name: str, *_: Any, **__: Any) -> Document:
        return await self.call(name, lambda: {"ok": 1, "localTime": self.server.now()})

    async def close(self) -> None:
        pass

    async def call(
        self,
        command: str,
        step: Step[Result],
        *,
        session: "SimulatedSession | None" = None,
        unconfirmed: Callable[[], Exception] | None = None,
    ) -> Result:
        """Have the server carry out ``step``; ``unconfirmed`` makes the error of a write without its majority."""
        if session is not None and session.transaction is None:
            session.transaction = self.server.begin_later()
            self.begun.append(session.transaction)
        transaction = _transaction_of(session)
        done: list[Result] = []
        tries = 2
        if session is not None and command != "commitTransaction":
            tries, unconfirmed = 1, None  # it is the commit that is confirmed
        while True:
            tries -= 1
            try:
                return await self._once(command, step, transaction, done, unconfirmed)
            except AutoReconnect as error:
                if tries == 0:
                    if session is not None and command != "commitTransaction":
                        error._add_error_label(TRANSIENT_TRANSACTION)
                    raise

    async def _once(
        self,
        command: str,
        step: Step[Result],
        transaction: Transaction | None,
        done: list[Result],
        unconfirmed: Callable[[], Exception] | None,
    ) -> Result:
        # In a task of the server's own: what was sent is carried out though its sender dies
        carried = asyncio.get_running_loop().create_task(
            self._carry(command, step, transaction, done, unconfirmed), context=self._root.copy()
        )
        carried.add_done_callback(_retrieve)
        seconds = self._timeout_seconds
        limit = _csot.get_timeout()
        if limit is not None:
            seconds = min(seconds, limit)
        try:
            async with asyncio.timeout(max(seconds, 0)):
                return await asyncio.shield(carried)
        except TimeoutError as error:
            raise NetworkTimeout("timed out") from error

    async def _carry(
        self,
        command: str,
        step: Step[Result],
        transaction: Transaction | None,
        done: list[Result],
        unconfirmed: Callable[[], Exception] | None,
    ) -> Result:
        fate = self.network.fate(command)
        await asyncio.sleep(fate.there)
        if fate.request_lost:
            raise AutoReconnect("connection closed")
        if fate.code is not None:
            raise OperationFailure("refused", fate.code, {"errorLabels": list(fate.labels)})
        if not done:
            done.append(await self._applied(command, step, transaction))
        await asyncio.sleep(fate.back)
        if fate.answer_lost:
            raise AutoReconnect("connection closed")
        if fate.unconfirmed and unconfirmed:
            raise unconfirmed()
        return done[0]

    async def _applied(self, command: str, step: Step[Result], transaction: Transaction | None) -> Result:
        while True:
            if transaction is not None:
                self.server.enter(transaction, committing=command == "commitTransaction")
            try:
                result = step()
            except Busy as busy:
                await busy.transaction.ended.wait()
                continue
            self.network.note(command)
            return result


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take note of a failure nobody waits for any more."""
    if not task.cancelled():
        task.exception()


class SimulatedSession:
    """A session with one transaction."""

    def __init__(self, client: SimulatedClient) -> None:
        self._client = client
        self.transaction: Transaction | None = None
        self._committing = False

    async def start_transaction(self, **_: Any) -> None:
        pass

    async def commit_transaction(self) -> None:
        self._committing = True
        transaction = self.transaction
        if transaction is None:
            return
        server = self._client.server
        try:
            await self._client.call(
                "commitTransaction", lambda: server.commit(transaction), session=self, unconfirmed=_commit_unconfirmed
            )
        except AutoReconnect as error:
            error._add_error_label(UNKNOWN_COMMIT)
            raise

    async def end_session(self) -> None:
        transaction = self.transaction
        if transaction is None or self._committing:
            return
        server = self._client.server
        with suppress(PyMongoError):  # the server ends it by itself
            await self._client.call("abortTransaction", lambda: server.abort(transaction))


def _commit_unconfirmed() -> Exception:
    return WTimeoutError("waiting for replication timed out", 64, {"errorLabels": [UNKNOWN_COMMIT]})


def _write_unconfirmed() -> Exception:
    return WTimeoutError("waiting for replication timed out", 64)


class SimulatedDatabase:
    """The collections, by name."""

    def __init__(self, client: SimulatedClient) -> None:
        self.client = client

    def __getitem__(self, name: str) -> "SimulatedCollection":
        return SimulatedCollection(self.client, name)

    async def list_collection_names(self) -> list[str]:
        return await self.client.call("listCollections", lambda: list(self.client.server.collections))

    async def create_collection(self, name: str) -> None:
        collections = self.client.server.collections

        def create() -> None:
            if name in collections:
                raise CollectionInvalid(f"collection {name} already exists")
            collections[name] = {}

        await self.client.call("create", create)

    async def drop_collection(self, name: str) -> None:
        await self.client.call("drop", lambda: self.client.server.collections.pop(name, None) and None)

    async def command(self, name: str, value: str, **options: Any) -> None:
        if name != "collMod":
            raise NotImplementedError(name)
        await self.client.call(name, lambda: self.client.server.validators.update({value: options["validator"]}))


class SimulatedCursor:
    """A query, carried out by ``to_list``."""

    def __init__(
        self,
        collection: "SimulatedCollection",
        condition: Mapping[str, Any],
        projection: Mapping[str, int] | None,
        session: SimulatedSession | None,
    ) -> None:
        self._collection = collection
        self._condition = condition
        self._projection = projection
        self._session = session
        self._order: list[tuple[str, int]] = []
        self._limit = 0

    def sort(self, order: str | list[tuple[str, int]], direction: int = 1) -> "SimulatedCursor":
        self._order = [(order, direction)] if isinstance(order, str) else order
        return self

    def limit(self, most: int) -> "SimulatedCursor":
        self._limit = most
        return self

    async def to_list(self, _: None) -> list[Document]:
        collection, session = self._collection, self._session

        def read() -> list[Document]:
            found = collection.server.find(collection.name, self._condition, _transaction_of(session))
            if self._order:
                found = ordered(found, self._order)
            return [projected(one, self._projection) for one in (found[: self._limit] if self._limit else found)]

        return await collection.client.call("find", read, session=session)


class SimulatedResults:
    """The result of a pipeline."""

    def __init__(self, documents: list[Document]) -> None:
        self._documents = documents

    async def to_list(self, _: None) -> list[Document]:
        return self._documents


class SimulatedCollection:
    """One collection as one client sees it."""

    def __init__(self, client: SimulatedClient, name: str) -> None:
        self.client = client
        self.server = client.server
        self.name = name

    def find(
        self,
        condition: Mapping[str, Any],
        projection: Mapping[str, int] | None = None,
        *,
        session: SimulatedSession | None = None,
    ) -> SimulatedCursor:
        return SimulatedCursor(self, condition, projection, session)

    async def find_one(
        self,
        condition: Mapping[str, Any],
        projection: Mapping[str, int] | None = None,
        *,
        session: SimulatedSession | None = None,
    ) -> Document | None:
        found = await self.find(condition, projection, session=session).limit(1).to_list(None)
        return found[0] if found else None

    async def aggregate(
        self, pipeline: Iterable[Mapping[str, Any]], *, session: SimulatedSession | None = None
    ) -> SimulatedResults:
        def read() -> list[Document]:
            transaction = _transaction_of(session)
            return aggregated(
                self.server.documents(self.name, transaction),
                pipeline,
                lambda other: self.server.documents(other, transaction),
            )

        return SimulatedResults(await self.client.call("aggregate", read, session=session))

    async def insert_one(
        self, document: Mapping[str, Any], *, session: SimulatedSession | None = None
    ) -> InsertOneResult:
        kept = stored(document)

        def write() -> None:
            self.server.insert(self.name, kept, _transaction_of(session))

        await self.client.call("insert", write, session=session, unconfirmed=_write_unconfirmed)
        return InsertOneResult(kept["_id"], acknowledged=True)

    async def insert_many(self, documents: Sequence[Mapping[str, Any]], *, ordered: bool) -> None:
        kept = [stored(document) for document in documents]
        errors: dict[int, Document] = {}
        written: set[int] = set()

        def write() -> None:
            for index, document in enumerate(kept):
                if index in written:
                    continue
                try:
                    self.server.insert(self.name, document)
                except (DuplicateKeyError, WriteError) as error:
                    errors[index] = {"index": index, "code": error.code, "errmsg": str(error)}
                    if ordered:
                        return
                written.add(index)

        def unconfirmed() -> Exception:
            refused = [errors[index] for index in sorted(errors)]
            return BulkWriteError({"writeErrors": refused, "writeConcernErrors": [{"code": 64, "errmsg": "timed out"}]})

        await self.client.call("insert", write, unconfirmed=unconfirmed)
        if errors:
            refused = [errors[index] for index in sorted(errors)]
            raise BulkWriteError({"writeErrors": refused, "writeConcernErrors": []})

    async def update_one(
        self,
        condition: Mapping[str, Any],
        update: Mapping[str, Any],
        *,
        upsert: bool = False,
        session: SimulatedSession | None = None,
    ) -> UpdateResult:
        def write() -> tuple[int, int]:
            change = with_update(update, self.server.now())
            counts = self.server.update(self.name, condition, change, _transaction_of(session))
            if counts == (0, 0) and upsert:
                self.server.insert(self.name, change(dict(condition)), _transaction_of(session))
            return counts

        matched, modified = await self.client.call("update", write, session=session, unconfirmed=_write_unconfirmed)
        return UpdateResult({"n": matched, "nModified": modified}, acknowledged=True)

    async def replace_one(self, condition: Mapping[str, Any], document: Mapping[str, Any]) -> UpdateResult:
        kept = stored(document)
        matched, modified = await self.client.call(
            "update", lambda: self.server.update(self.name, condition, lambda _: kept), unconfirmed=_write_unconfirmed
        )
        return UpdateResult({"n": matched, "nModified": modified}, acknowledged=True)

    async def delete_one(self, condition: Mapping[str, Any]) -> DeleteResult:
        deleted = await self.client.call(
            "delete", lambda: self.server.delete(self.name, condition), unconfirmed=_write_unconfirmed
        )
        return DeleteResult({"n": deleted}, acknowledged=True)

    async def delete_many(self, condition: Mapping[str, Any]) -> DeleteResult:
        def write() -> int:
            deleted = 0
            while self.server.delete(self.name, condition):
                deleted += 1
            return deleted

        return DeleteResult({"n": await self.client.call("delete", write)}, acknowledged=True)

    async def bulk_write(
        self,
        writes: Sequence[UpdateOne | DeleteOne],
        *,
        ordered: bool = True,
        session: SimulatedSession | None = None,
    ) -> BulkWriteResult:
        """All in one instant, unless one has to wait for a transaction: what others do meanwhile is seen then."""
        del ordered  # none of the ledger's updates and deletes can fail by itself
        counts = {"nInserted": 0, "nUpserted": 0, "nMatched": 0, "nModified": 0, "nRemoved": 0}
        done: set[int] = set()
        now = self.server.now()

        def carry_out() -> Mapping[str, Any]:
            transaction = _transaction_of(session)
            for index, write in enumerate(writes):
                if index in done:
                    continue
                if isinstance(write, UpdateOne):
                    change = with_update(_part(write, "_doc"), now)
                    matched, modified = self.server.update(self.name, _part(write, "_filter"), change, transaction)
                    counts["nMatched"] += matched
                    counts["nModified"] += modified
                else:
                    counts["nRemoved"] += self.server.delete(self.name, _part(write, "_filter"), transaction)
                done.add(index)
            return counts

        name = "update" if isinstance(writes[0], UpdateOne) else "delete"
        return BulkWriteResult(
            dict(await self.client.call(name, carry_out, session=session, unconfirmed=_write_unconfirmed)),
            acknowledged=True,
        )

    async def create_index(self, keys: list[tuple[str, int]], *, name: str, **_: Any) -> str:
        indexes = self.server.indexes.setdefault(self.name, {})
        await self.client.call("createIndexes", lambda: indexes.update({name: {"key": keys}}))
        return name

    async def index_information(self) -> dict[str, dict[str, Any]]:
        return self.server.indexes.get(self.name, {})


def _transaction_of(session: SimulatedSession | None) -> Transaction | None:
    return session.transaction if session else None


def _part(write: UpdateOne | DeleteOne, name: str) -> Mapping[str, Any]:
    part: Mapping[str, Any] = getattr(write, name)
    return part
