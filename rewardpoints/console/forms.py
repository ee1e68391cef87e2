"""Forms: what a browser sends, bounded and read strictly."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from rewardpoints.domain.errors import InvalidInput

MAX_FORM_BYTES: Final = 262_144
MAX_FIELDS: Final = 2000
_LOCAL_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?")
FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form by name. A line ends with a line feed, however it was sent."""

    fields: Mapping[str, list[str]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """The first value of a field without space around it; empty where it was not sent."""
        return self.fields.get(name, [""])[0].strip()

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return list(self.fields.get(name, ()))

    def whole(self, name: str) -> int:
        """A field that is a whole number.

        Raises:
            InvalidInput: it is none.
        """
        text = self.text(name)
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):  # noqa: PLR2004 - fits 64 bits
            raise InvalidInput(name, "must be a whole number")
        return int(text)

    def chosen(self, name: str) -> bool:
        """Whether a box was ticked."""
        return bool(self.text(name))


def with_zone(text: str) -> str:
    """A time as browsers write it (``2026-11-21T12:30``), meant in UTC, with its offset; others as they are."""
    if _LOCAL_TIME.fullmatch(text):
        return f"{text}+00:00" if text.count(":") > 1 else f"{text}:00+00:00"
    return text


def parse_form(text: bytes) -> Form:
    """The form in a body or a query.

    Raises:
        InvalidInput: it is not text, or has too many fields.
    """
    fields: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(
            text.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError as error:  # of which UnicodeDecodeError is one
        raise InvalidInput("form", "must be URL-encoded UTF-8 with at most 2,000 fields") from error
    for name, value in pairs:
        if "\x00" in value:
            raise InvalidInput(name[:50], "must be text")
        fields.setdefault(name, []).append(value.replace("\r\n", "\n"))
    return Form(fields)


async def read_form(request: Request) -> Form:
    """The form in a request's body.

    Raises:
        InvalidInput: it is none, or longer than 256 KiB.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise InvalidInput("form", f"must be {FORM}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise InvalidInput("form", f"must have at most {MAX_FORM_BYTES} bytes")
    return parse_form(bytes(body))
