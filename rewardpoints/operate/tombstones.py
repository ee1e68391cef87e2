"""Tombstones exported beside a backup: a backup forgets who was erased after it was made."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.instants import format_instant, parse_instant
from rewardpoints.domain.ports import Tombstone


def tombstone_json(tombstone: Tombstone) -> dict[str, Any]:
    """A tombstone as one line of an export holds it."""
    return {"account": tombstone.account, "erasedAt": format_instant(tombstone.erased_at)}


async def read_tombstones(file: Path) -> AsyncIterator[Tombstone]:
    """The tombstones of an export, line by line.

    Raises:
        InvalidInput: a line is none; its number is named.
        OSError: the file cannot be read.
    """
    for tombstone in _read(file):
        yield tombstone


def check_tombstones(file: Path) -> int:
    """Read an export through and return how many tombstones it holds, before anything is done with it.

    Raises:
        InvalidInput, OSError: as for ``read_tombstones``.
    """
    return sum(1 for _ in _read(file))


def _read(file: Path) -> Iterator[Tombstone]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                given = json.loads(line)
                account, erased_at = given["account"], parse_instant(given["erasedAt"])
                if not isinstance(account, str) or account.count("/") != 1:
                    raise ValueError("no account")  # noqa: TRY301 - handled like any other fault of the line
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidInput("tombstones", f"line {number} of {file.name} is no tombstone: {error!r}") from error
            yield Tombstone(Account(account), erased_at)
