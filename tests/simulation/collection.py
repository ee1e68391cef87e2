"""A collection as the ledger reads and writes it, with the answers and errors that PyMongo gives."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pymongo import DeleteOne, UpdateOne
from pymongo.errors import (
    BulkWriteError,
    DuplicateKeyError,
    WriteError,
    WTimeoutError,
)
from pymongo.results import BulkWriteResult, DeleteResult, InsertOneResult, UpdateResult

from tests.simulation.expressions import Document, aggregated, ordered, projected
from tests.simulation.server import Transaction, stored, with_update

if TYPE_CHECKING:
    from tests.simulation.client import SimulatedClient, SimulatedSession


class SimulatedCursor:
    """A query, carried out by ``to_list``."""

    def __init__(
        self,
        collection: "SimulatedCollection",
        condition: Mapping[str, Any],
        projection: Mapping[str, int] | None,
        session: "SimulatedSession | None",
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

    def batch_size(self, _: int) -> "SimulatedCursor":
        return self

    def max_time_ms(self, _: int) -> "SimulatedCursor":
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

    def __init__(self, client: "SimulatedClient", name: str) -> None:
        self.client = client
        self.server = client.server
        self.name = name

    def find(
        self,
        condition: Mapping[str, Any],
        projection: Mapping[str, int] | None = None,
        *,
        session: "SimulatedSession | None" = None,
    ) -> SimulatedCursor:
        return SimulatedCursor(self, condition, projection, session)

    async def find_one(
        self,
        condition: Mapping[str, Any],
        projection: Mapping[str, int] | None = None,
        *,
        session: "SimulatedSession | None" = None,
    ) -> Document | None:
        found = await self.find(condition, projection, session=session).limit(1).to_list(None)
        return found[0] if found else None

    async def aggregate(
        self, pipeline: Iterable[Mapping[str, Any]], *, session: "SimulatedSession | None" = None
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
        self, document: Mapping[str, Any], *, session: "SimulatedSession | None" = None
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
        session: "SimulatedSession | None" = None,
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
        session: "SimulatedSession | None" = None,
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


def _transaction_of(session: "SimulatedSession | None") -> Transaction | None:
    return session.transaction if session else None


def _part(write: UpdateOne | DeleteOne, name: str) -> Mapping[str, Any]:
    part: Mapping[str, Any] = getattr(write, name)
    return part


def _write_unconfirmed() -> Exception:
    return WTimeoutError("waiting for replication timed out", 64)
