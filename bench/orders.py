"""Orders to feed workers with: small ones of 300 bytes, and two of the shape and size real shops send."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMALL_BYTES = 300
COMPLETED = "2026-01-31T10:00:00.000+00:00"
CUSTOMERS = 5_000

_FOLDER = Path(__file__).with_name("orders")
_SIZED_AS: dict[str, Any] = {
    "status": "COMPLETED",
    "siteCode": "main",
    "totalPrice": 119.95,
    "subTotalPrice": 114.05,
    "currency": "EUR",
    "completed": COMPLETED,
}


@dataclass(frozen=True, slots=True)
class Feed:
    """A kind of orders: ``value(n)`` is the n-th order's record value, of a customer out of ``CUSTOMERS``."""

    name: str
    value: Callable[[int], bytes]

    def values(self, first: int, count: int) -> Iterator[bytes]:
        """``count`` values from the ``first`` on."""
        return map(self.value, range(first, first + count))


def small() -> Feed:
    """Orders of 300 bytes."""
    bare = len(_small(0, ""))
    padding = "x" * (SMALL_BYTES - bare)
    return Feed("300 bytes", lambda number: _small(number, padding))


def real() -> tuple[Feed, Feed]:
    """Orders of one line (11 KB) and of three lines (18 KB), made from two real ones with names and places changed."""
    return _from_file("one_line"), _from_file("three_lines")


def _small(number: int, padding: str) -> bytes:
    names = {"id": f"ORDER-{number:09}", "customer": {"id": f"C{number * 7919 % CUSTOMERS:06}"}}
    return json.dumps({**names, **_SIZED_AS, "note": padding}).encode()


def _from_file(name: str) -> Feed:
    text = (_FOLDER / f"{name}.json").read_text()
    before, between, after = _cut(text)

    def value(number: int) -> bytes:
        names = {"ORDER-ID": f"{name}-{number:09}", "CUSTOMER-ID": f"C{number * 7919 % CUSTOMERS:06}"}
        first, second = ("ORDER-ID", "CUSTOMER-ID")
        if text.index(first) > text.index(second):
            first, second = second, first
        return b"".join((before, names[first].encode(), between, names[second].encode(), after))

    return Feed(f"{len(text) / 1000:.0f} KB", value)


def _cut(text: str) -> tuple[bytes, bytes, bytes]:
    """The text around its two names."""
    places = sorted((text.index(name), len(name)) for name in ("ORDER-ID", "CUSTOMER-ID"))
    (first, first_length), (second, second_length) = places
    return (
        text[:first].encode(),
        text[first + first_length : second].encode(),
        text[second + second_length :].encode(),
    )
