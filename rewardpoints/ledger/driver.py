"""The driver: the one place that knows PyMongo from Motor, and what their exceptions mean."""

import asyncio
import importlib
import re
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, cast

import pymongo
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    CursorNotFound,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.ledger.cancellation import survive_cancellation
from rewardpoints.settings import MongodbDriver, MongodbSettings, SettingsInvalid

Document: TypeAlias = dict[str, Any]
Collection: TypeAlias = AsyncCollection[Document]
Session: TypeAlias = AsyncClientSession

TRANSIENT_TRANSACTION: Final = "TransientTransactionError"
UNKNOWN_COMMIT: Final = "UnknownTransactionCommitResult"
WRITE_CONFLICT: Final = 112
DUPLICATE_KEY: Final = 11000
IDLE_CONNECTION_SECONDS: Final = 300
CLOSE_SECONDS: Final = 2

# What a server says about itself rather than about the request: stepping down, shutting down, out of disk, out of time,
# refusing our credentials. The same request may succeed once somebody has mended that.
_SERVER_TROUBLE: Final = frozenset(
    {
        *(6, 7, 89, 9001),  # network
        *(91, 189, 10107, 11600, 11602, 13435, 13436),  # no primary, shutting down, interrupted by a change of state
        *(24, 46, 50, 202, 262),  # out of time or of tickets
        *(64, 79, 100, 133, 134, 150, 234, 251, 13388, 63),  # write concern, stale view, routing
        *(13, 18, 8000),  # credentials: rotated, or not there yet
        *(146, 14031, 8),  # out of memory or disk
        WRITE_CONFLICT,
    }
)


def is_server_trouble(code: object) -> bool:
    """Whether an error code speaks of the server's state and not of what was sent."""
    return code in _SERVER_TROUBLE


_REFUSED: Final = {
    13: "refuses this to the user, or to anybody without one (code 13): see the roles, and the credentials in the URI",
    18: "refuses the user name or the password (code 18)",
}
_UNCHECKED_TLS: Final = re.compile(r"[?&](tls(?:Insecure|AllowInvalid\w+))=true", re.IGNORECASE)
_CERTIFICATE: Final = re.compile(r"certificate verify failed: ([^(\[]{1,200})")
_CLOSED: Final = re.compile(r"connection (?:is already )?closed|reset by peer|Broken pipe")
_HANDSHAKE: Final = re.compile(r"\[SSL: (\w{1,60})\]|SSL handshake failed")


def _why(error: ConnectionFailure) -> str:
    """The name of a failed connection's error, and its cause where an operator can mend it."""
    name, said = type(error).__name__, str(error)  # not shown whole: it describes every server there is
    certificate, handshake = _CERTIFICATE.search(said), _HANDSHAKE.search(said)
    if certificate is not None:
        return f"{name}: its certificate is refused: {certificate[1].strip(' ,')}"
    if handshake is not None:
        return f"{name}: no TLS handshake ({handshake[1] or 'cut off'}); does the server speak TLS?"
    if _CLOSED.search(said):
        return f"{name}: it closes the connection; does it expect TLS, or a client certificate?"
    return name


def _unavailable(error: PyMongoError, *, writing: bool) -> LedgerUnavailable | None:
    if isinstance(error, ConnectionFailure):
        never_sent = isinstance(error, ServerSelectionTimeoutError | WaitQueueTimeoutError)
        return LedgerUnavailable(
            f"MongoDB cannot be reached ({_why(error)})", outcome_unknown=writing and not never_sent
        )
    if isinstance(error, BulkWriteError):
        details = cast("Mapping[str, Any]", error.details)
        if details.get("writeConcernErrors") and not details.get("writeErrors"):
            return LedgerUnavailable("MongoDB did not confirm a write at majority", outcome_unknown=True)
        return None
    if isinstance(error, ConfigurationError):  # a mongodb+srv address is looked up at the first operation
        return LedgerUnavailable(f"MongoDB's address cannot be found ({error})")
    if isinstance(error, OperationFailure) and (
        isinstance(error, CursorNotFound | WriteConcernError)
        or error.timeout
        or is_server_trouble(error.code)
        or error.has_error_label("RetryableWriteError")
        or error.has_error_label(TRANSIENT_TRANSACTION)
    ):
        refused = _REFUSED.get(error.code or 0)
        return LedgerUnavailable(
            f"MongoDB {refused}"
            if refused
            else f"MongoDB cannot serve this now ({type(error).__name__}, code {error.code})",
            outcome_unknown=writing and error.code != WRITE_CONFLICT,
        )
    return None


@contextmanager
def driver_errors(*, writing: bool = False) -> Iterator[None]:
    """Raise ``LedgerUnavailable`` for what the driver raises when the server is at fault; all else passes unchanged.

    With ``writing``, its ``outcome_unknown`` is set where the request may have been carried out.
    """
    try:
        yield
    except PyMongoError as error:
        unavailable = _unavailable(error, writing=writing)
        if unavailable is None:
            raise
        raise unavailable from error


class Database:
    """The ledger's collections over either driver. Opening it contacts nobody; every call later may block.

    Reads are from the primary at majority, writes are acknowledged by a majority. Collections are typed as PyMongo's;
    those of Motor have the same methods but for what stands here: ``aggregate`` and sessions.
    """

    def __init__(self, client: Any, settings: MongodbSettings) -> None:
        self._client = client
        self._motor = settings.driver is MongodbDriver.MOTOR
        self.name = settings.database
        self.operation_timeout_seconds = settings.operation_timeout_seconds
        self.raw = client.get_database(
            settings.database,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", wtimeout=int(settings.operation_timeout_seconds * 1000)),
        )
        self.lots: Collection = self.raw["lots"]
        self.redemptions: Collection = self.raw["redemptions"]
        self.tombstones: Collection = self.raw["tombstones"]
        self.guards: Collection = self.raw["guards"]
        self.redeem_options: Collection = self.raw["redeemOptions"]
        self.site_settings: Collection = self.raw["siteSettings"]
        self.replays: Collection = self.raw["replays"]
        self.marks: Collection = self.raw["marks"]
        self.dead_letter_actions: Collection = self.raw["deadLetterActions"]

    async def aggregate(
        self, collection: Collection, pipeline: Sequence[Mapping[str, Any]], *, session: Session | None = None
    ) -> list[Document]:
        """All result documents of a pipeline."""
        cursor: Any = collection.aggregate(pipeline, session=session)
        if not self._motor:
            cursor = await cursor
        return cast("list[Document]", await cursor.to_list(None))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """A session in a transaction: snapshot reads, majority writes. What is not committed inside is rolled back."""
        started: Any = self._client.start_session()
        session: Any = await started if self._motor else started
        try:
            begun: Any = session.start_transaction(
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern("majority"),
                read_preference=ReadPreference.PRIMARY,
            )
            if not self._motor:
                await begun
            yield session
        finally:
            # Ends an open transaction on the server; time is bounded, since the server may be what failed
            with pymongo.timeout(1):
                await asyncio.shield(session.end_session())

    async def ping(self) -> None:
        """One round trip to the primary.

        Raises:
            LedgerUnavailable: it did not answer.
        """
        with driver_errors():
            await self._client.admin.command("ping", read_preference=ReadPreference.PRIMARY)

    async def server_time(self) -> datetime:
        """What the primary's clock says, in milliseconds.

        Raises:
            LedgerUnavailable: it did not answer.
        """
        with driver_errors():
            hello = await self._client.admin.command("hello", read_preference=ReadPreference.PRIMARY)
        return cast("datetime", hello["localTime"]).replace(tzinfo=UTC)

    async def close(self) -> None:
        """Close all connections, within a few seconds. Calls after it fail."""
        with pymongo.timeout(CLOSE_SECONDS):  # it ends its sessions on a server that may have fallen silent
            closing = self._client.close()
            if not self._motor:
                await closing


def open_database(settings: MongodbSettings) -> Database:
    """The database of the settings, over the driver they name. Does not wait for the server to be up.

    Raises:
        SettingsInvalid: the URI is not one, or the driver is not installed.
    """
    timeout_ms = int(settings.operation_timeout_seconds * 1000)
    selection_ms = int(settings.server_selection_timeout_seconds * 1000)
    uri = settings.uri.get_secret_value()
    if not uri.startswith(("mongodb://", "mongodb+srv://")):
        raise SettingsInvalid("REWARDPOINTS_MONGODB_URI: must begin with mongodb:// or mongodb+srv://")
    unchecked = _UNCHECKED_TLS.search(uri)
    if unchecked is not None:
        raise SettingsInvalid(f"REWARDPOINTS_MONGODB_URI: {unchecked[1]} is not accepted: name the CA in tlsCAFile")
    try:
        client = _client(
            settings.driver,
            uri,
            appname="rewardpoints",
            connectTimeoutMS=min(timeout_ms, selection_ms),
            maxIdleTimeMS=IDLE_CONNECTION_SECONDS * 1000,
            maxPoolSize=settings.max_pool_size,
            retryReads=True,
            retryWrites=True,
            serverSelectionTimeoutMS=selection_ms,
            socketTimeoutMS=timeout_ms,
            tz_aware=True,
            tzinfo=UTC,
            waitQueueTimeoutMS=timeout_ms,
        )
        return Database(client, settings)
    except (ConfigurationError, ValueError, TypeError, OSError, UserWarning) as error:
        # Their messages may repeat parts of the URI, a password among them
        raise SettingsInvalid(f"REWARDPOINTS_MONGODB_URI: not a usable MongoDB URI ({type(error).__name__})") from None


def _client(driver: MongodbDriver, uri: str, **options: Any) -> Any:
    client_class = _client_class(driver)
    with warnings.catch_warnings():
        # The drivers warn of an option they do not know, or whose value is wrong, and go on without it
        warnings.simplefilter("error", UserWarning)
        return client_class(uri, **options)


def _client_class(driver: MongodbDriver) -> Any:
    if driver is MongodbDriver.PYMONGO:
        survive_cancellation()
        return AsyncMongoClient
    try:
        return importlib.import_module("motor.motor_asyncio").AsyncIOMotorClient
    except ImportError as error:
        raise SettingsInvalid(
            "REWARDPOINTS_MONGODB_DRIVER: motor is not installed, install the extra 'motor'"
        ) from error
