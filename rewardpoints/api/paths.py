"""Paths: ids may hold any character, so routing looks at the segments of the path as it was sent.

A server decodes the path before the application sees it; then an id with a slash is two segments, and ``a%2Fsummary``
would read customer ``a``'s summary. ``CanonicalPath`` puts the segments back as they were, each quoted one way only;
the routes match those, and ``decode_segment`` decodes each exactly once.
"""

import re
from typing import Annotated, Final
from urllib.parse import quote, unquote_to_bytes

from pydantic import AfterValidator
from starlette.types import ASGIApp, Receive, Scope, Send

from rewardpoints.domain.accounts import check_id
from rewardpoints.domain.errors import InvalidInput

_NOTHING_TO_DECODE: Final = re.compile(rb"[A-Za-z0-9_.~/-]*")


class CanonicalPath:
    """ASGI middleware: sets ``path`` to the segments of ``raw_path``, each decoded and quoted again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "http":
            raw_path: bytes | None = scope.get("raw_path")
            if raw_path is not None and not _NOTHING_TO_DECODE.fullmatch(raw_path):
                scope["path"] = canonical_path(raw_path)
        await self._app(scope, receive, send)


def canonical_path(raw_path: bytes) -> str:
    """The path with each segment quoted the one way ``urllib.parse.quote`` does; bytes that are no UTF-8 are kept."""
    return "/".join(quote(unquote_to_bytes(segment), safe="") for segment in raw_path.split(b"/"))


def decode_segment(segment: str) -> str:
    """The text of one canonical segment.

    Raises:
        InvalidInput: it is not UTF-8.
    """
    if "%" not in segment:
        return segment
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("path", "must be UTF-8 text") from error


def decode_id(segment: str) -> str:
    """The id in one canonical segment.

    Raises:
        InvalidInput: it is not UTF-8, holds control characters, or is too long.
    """
    return check_id("path", decode_segment(segment))


def path_as_sent(scope: Scope) -> str:
    """The path of a request as the client wrote it, for error answers."""
    raw_path: bytes | None = scope.get("raw_path")
    return raw_path.decode("latin-1") if raw_path is not None else str(scope["path"])


PathId = Annotated[str, AfterValidator(decode_id)]
"""An id in the path, decoded once."""
