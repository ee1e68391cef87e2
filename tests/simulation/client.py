"""The driver's operations as the ledger calls them, over a simulated server and a network that loses things.

``SimulatedClient`` stands where ``rewardpoints.ledger.driver.Database`` takes PyMongo's client. As PyMongo does, a
command outside a transaction is sent a second time when its connection is lost; the server knows it again then.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, TypeVar

from pymongo import _csot
from pymongo.errors import (
    AutoReconnect,
    CollectionInvalid,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)

from rewardpoints.ledger.driver import TRANSIENT_TRANSACTION, UNKNOWN_COMMIT
from tests.simulation.collection import SimulatedCollection
from tests.simulation.expressions import Document
from tests.simulation.network import Network
from tests.simulation.server import Busy, Server, Transaction

Result = TypeVar("Result")
Step = Callable[[], Result]


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
        transaction = session.transaction if session else None
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


class SimulatedDatabase:
    """The collections, by name."""

    def __init__(self, client: SimulatedClient) -> None:
        self.client = client

    def __getitem__(self, name: str) -> SimulatedCollection:
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
