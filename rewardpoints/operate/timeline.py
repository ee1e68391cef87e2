"""A timeline: records of several topics, kept on disk until they can be read in the order of their instants."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, Final, Self

import msgspec

from rewardpoints.operate.derived_lots import CACHE_KIB

EVENTS_PER_READ: Final = 500


class EventKind(IntEnum):
    """What a record is about; of one instant they come in this order."""

    REQUEST = 1
    CHARGEBACK = 2
    RESULT = 3


@dataclass(slots=True, kw_only=True)
class KeptRecord:
    """A record as it was read."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Event:
    """A record at its place in time; ``number`` names it within the timeline."""

    number: int
    kind: EventKind
    record: KeptRecord


class Timeline:
    """Events in, the same events out in the order of time, those that are done left out. The disk holds them."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute(
            "CREATE TABLE events (number INTEGER PRIMARY KEY, at INTEGER, kind INTEGER, record BLOB, done INTEGER)"
        )
        self._database.execute("CREATE INDEX in_time ON events (done, at, kind, number)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    async def add(self, events: Sequence[tuple[datetime, EventKind, Any]]) -> None:
        """Keep records, each with its instant."""
        rows = [
            (
                int(at.timestamp() * 1000),
                kind.value,
                msgspec.msgpack.encode(
                    [one.topic, one.partition, one.offset, one.timestamp, one.key, one.value, one.headers]
                ),
            )
            for at, kind, one in events
        ]
        await asyncio.to_thread(self._insert, rows)

    def _insert(self, rows: Sequence[tuple[int, int, bytes]]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO events (at, kind, record, done) VALUES (?, ?, ?, 0)", rows)
        self._database.execute("COMMIT")

    async def open_events(self) -> AsyncGenerator[Event]:
        """What is not done, in the order of time."""
        after = (-(2**62), 0, 0)
        while True:
            rows = await asyncio.to_thread(self._read, after)
            for number, _, kind, packed in rows:
                topic, partition, offset, timestamp, key, value, headers = msgspec.msgpack.decode(packed)
                record = KeptRecord(
                    topic=topic,
                    partition=partition,
                    offset=offset,
                    timestamp=timestamp,
                    key=key,
                    value=value,
                    headers=tuple((name, content) for name, content in headers),
                )
                yield Event(number, EventKind(kind), record)
            if len(rows) < EVENTS_PER_READ:
                return
            number, at, kind, _ = rows[-1]
            after = (at, kind, number)

    def _read(self, after: tuple[int, int, int]) -> list[tuple[int, int, int, bytes]]:
        return self._database.execute(
            "SELECT number, at, kind, record FROM events WHERE done = 0 AND (at, kind, number) > (?, ?, ?) "
            "ORDER BY at, kind, number LIMIT ?",
            (*after, EVENTS_PER_READ),
        ).fetchall()

    async def done(self, event: Event) -> None:
        """Leave an event out from now on."""
        await asyncio.to_thread(self._database.execute, "UPDATE events SET done = 1 WHERE number = ?", (event.number,))
