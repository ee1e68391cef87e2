"""Published requests: what the coupon request topic holds, kept on disk by account, and compared with the ledger.

The disk is what bounds the memory: ten million requests are about two gigabytes of a temporary file.
"""

import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.errors import RecordRejected
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.invariants import AccountUnderTest, Invariant, Violation
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.events.coupon_requests import decode_coupon_request
from rewardpoints.events.range_reader import RangeReader
from rewardpoints.events.records import Record, recorded_at
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import KafkaSettings

RECORDS_PER_READ: Final = 1000
ROWS_PER_READ: Final = 500
CLOCKS_DIFFER: Final = timedelta(minutes=1)

_TABLE: Final = """
create table request (
    account text not null, id text not null, code text not null, requested_at integer not null,
    codes integer not null default 1,
    primary key (account, id)
) without rowid
"""
_PUT: Final = """
insert into request (account, id, code, requested_at) values (?, ?, ?, ?)
on conflict do update set codes = codes + (code <> excluded.code)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRequest:
    """A coupon request as the topic has it; ``codes`` is 1 unless it was published with different codes."""

    account: Account
    id: str
    code: str
    requested_at: datetime
    codes: int


class PublishedRequests:
    """The requests of a topic as it was when they were read, in a temporary file. A context manager.

    ``records`` and ``unreadable`` count what was read. ``complete_since`` is None where the topic still has its first
    record, else the time before which requests may be missing from it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._folder = tempfile.TemporaryDirectory(prefix="rewardpoints-verify-")
        self._rows = sqlite3.connect(self.folder / "requests")
        for pragma in ("journal_mode = off", "synchronous = off", "cache_size = -32000"):
            self._rows.execute(f"pragma {pragma}")
        self._rows.execute(_TABLE)
        self._began = clock()
        self.complete_since: datetime | None = None
        self.records = 0
        self.unreadable = 0

    @property
    def folder(self) -> Path:
        """Where the file is; gone at the end."""
        return Path(self._folder.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()
        self._folder.cleanup()

    async def read(self, kafka: KafkaSettings) -> None:
        """Read the whole topic up to its present end.

        Raises:
            KafkaError, OSError: Kafka cannot be reached, or there is no such topic.
        """
        self._began = self._clock()
        async with RangeReader(kafka, kafka.topic_coupon_creation_requests) as reader:
            ranges = await reader.ranges("beginning", "end")
            cut = {one.partition for one in ranges if one.first > 0}
            reader.assign(ranges)
            while records := await reader.read(RECORDS_PER_READ):
                for record in records:
                    if record.partition in cut:
                        cut.discard(record.partition)
                        oldest = recorded_at(record)
                        self.complete_since = max(oldest, self.complete_since or oldest)
                self.put(records)
            if cut:  # cut off, and nothing left
                self.complete_since = self._began

    def put(self, records: Iterable[Record]) -> None:
        """Keep the requests of some records."""
        rows = []
        for record in records:
            self.records += 1
            try:
                one = decode_coupon_request(record)
            except RecordRejected:
                self.unreadable += 1
                continue
            code = one.coupon.code if one.coupon else ""
            rows.append((one.account, one.id, code, int(one.created_at.timestamp() * 1000)))
        with self._rows:
            self._rows.executemany(_PUT, rows)

    def take(self, account: Account) -> Mapping[str, PublishedRequest]:
        """The requests of an account by id; they are forgotten here."""
        found = [_request(row) for row in self._rows.execute("select * from request where account = ?", (account,))]
        if found:
            with self._rows:
                self._rows.execute("delete from request where account = ?", (account,))
        return {one.id: one for one in found}

    def rest(self, accounts: tuple[str, str]) -> Iterator[PublishedRequest]:
        """What was never taken, of accounts ``low <= account < high``."""
        account, identity = accounts[0], ""
        while True:
            found = self._rows.execute(
                "select * from request where (account, id) > (?, ?) and account < ? order by account, id limit ?",
                (account, identity, accounts[1], ROWS_PER_READ),
            ).fetchall()
            for row in found:
                yield _request(row)
            if len(found) < ROWS_PER_READ:
                return
            account, identity = found[-1][0], found[-1][1]

    def judge(self, case: AccountUnderTest, documents: Iterable[Mapping[str, Any]]) -> Iterator[Violation]:
        """What is wrong between an account's redemptions, with their documents, and its requests."""
        published = dict(self.take(case.account))
        for redemption, document in zip(case.redemptions, documents, strict=True):
            request = published.pop(redemption.id, None)
            if redemption.coupon is None:
                continue
            name = f"redemption {redemption.id}"
            if request is None:
                problem = self._missing(redemption, document)
                if problem:
                    missing = case.violation(Invariant.COUPON_REQUEST, redemption.id, f"{name}: {problem}")
                    yield replace(missing, publish_again=True)
            elif request.codes > 1 or request.code != redemption.coupon.code:
                problem = f"{name}: its coupon request was published with another code than {redemption.coupon.code}"
                yield case.violation(Invariant.COUPON_REQUEST, redemption.id, problem)
        for request in published.values():
            if case.erased_at is None or request.requested_at > case.erased_at:
                yield _without_redemption(request)

    def _missing(self, redemption: Redemption, document: Mapping[str, Any]) -> str | None:
        """What is wrong with a redemption whose request the topic does not have."""
        told = _told(document)
        if redemption.publish_at is not None:
            return None
        if told is None:
            return "its coupon request was never published and is not due"
        if told + CLOCKS_DIFFER > self._began:
            return None  # perhaps published after the topic was read
        if self.complete_since is not None and redemption.created_at <= self.complete_since:
            return None  # perhaps deleted by the topic's retention
        return "says its coupon request was published, but it is not in the topic"

    async def orphans(self, ledger: Ledger, accounts: tuple[str, str]) -> AsyncGenerator[Violation]:
        """Requests of accounts that have no entry at all, and were not erased after it.

        Raises:
            LedgerUnavailable
        """
        for request in self.rest(accounts):
            if await ledger.redemptions.find(request.id) is not None:
                continue
            tombstone = await ledger.tombstones.find(request.account)
            if tombstone is None or tombstone.erased_at < request.requested_at:
                yield _without_redemption(request)


def _without_redemption(request: PublishedRequest) -> Violation:
    at = format_instant(request.requested_at)
    problem = f"redemption {request.id}: its coupon request of {at} was published, but the ledger does not have it"
    return Violation(account=request.account, invariant=Invariant.COUPON_REQUEST, entry=request.id, problem=problem)


def _told(document: Mapping[str, Any]) -> datetime | None:
    """When the ledger learnt that the request was published: acknowledged, or answered."""
    known = [document[name] for name in ("publishedAt", "issuedAt", "chargedBackAt") if name in document]
    return min(known, default=None)


def _request(row: tuple[Any, ...]) -> PublishedRequest:
    account, identity, code, requested_at, codes = row
    at = datetime.fromtimestamp(requested_at / 1000, UTC)
    return PublishedRequest(account=Account(account), id=identity, code=code, requested_at=at, codes=codes)
