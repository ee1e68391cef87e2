"""Derived lots: what a topic's orders earn, kept on disk until they can be read in the order of their ids."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, Self

import msgspec

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.lots import Earned, Lot, LotKind, Origin

ROWS_PER_READ: Final = 2000
CACHE_KIB: Final = 16_384
"""Memory that SQLite keeps pages in; the rest lies in a file it makes and deletes itself, about 300 bytes a lot."""


class DerivedLots:
    """Lots in, the same lots out sorted by id. Memory is bounded; the disk holds the rest, in ``TMPDIR``."""

    def __init__(self) -> None:
        # "" is a database of SQLite's own: on disk, in a file that has no name and goes with the process
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("CREATE TABLE derived (id BLOB NOT NULL, lot BLOB NOT NULL)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    async def add(self, lots: Sequence[Lot]) -> None:
        """Keep lots."""
        rows = [(bytes.fromhex(lot.id), msgspec.msgpack.encode(_packed(lot))) for lot in lots]
        await asyncio.to_thread(self._insert, rows)

    def _insert(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO derived VALUES (?, ?)", rows)
        self._database.execute("COMMIT")

    async def by_id(self) -> AsyncGenerator[Sequence[Lot]]:
        """For each id in order its derivations, in the order they were kept."""
        cursor = await asyncio.to_thread(self._database.execute, "SELECT id, lot FROM derived ORDER BY id, rowid")
        rest: list[Any] = []
        while rows := await asyncio.to_thread(cursor.fetchmany, ROWS_PER_READ):
            groups = [list(group) for _, group in groupby(rest + rows, key=itemgetter(0))]
            rest = groups.pop()  # may go on in the next rows
            for group in groups:
                yield [_unpacked(row[0], row[1]) for row in group]
        if rest:
            yield [_unpacked(row[0], row[1]) for row in rest]


def _packed(lot: Lot) -> list[Any]:
    earned, origin = lot.earned, lot.origin
    if earned is None or origin is None:
        raise ValueError("only lots derived from records are kept")
    return [
        lot.account,
        lot.source_id,
        lot.points,
        lot.created_at,
        lot.valid_until,
        lot.site_code,
        [
            earned.rule,
            earned.base,
            str(earned.factor),
            str(earned.value),
            earned.currency,
            earned.settings_version,
        ],
        [origin.topic, origin.partition, origin.offset],
    ]


def _unpacked(identity: bytes, packed: bytes) -> Lot:
    account, source_id, points, created_at, valid_until, site_code, earned, origin = msgspec.msgpack.decode(packed)
    at: datetime = created_at
    return Lot(
        id=identity.hex(),
        account=Account(account),
        kind=LotKind.ORDER,
        source_id=source_id,
        public_id=identity.hex(),
        reference_id=source_id,
        description="",
        points=points,
        remaining=points,
        created_at=at,
        valid_until=valid_until,
        site_code=site_code,
        recorded_at=at,
        earned=Earned(
            rule=earned[0],
            base=earned[1],
            factor=Decimal(earned[2]),
            value=Decimal(earned[3]),
            currency=earned[4],
            settings_version=earned[5],
        ),
        origin=Origin(topic=origin[0], partition=origin[1], offset=origin[2]),
    )
