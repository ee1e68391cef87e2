"""Keys: the public keys tokens are signed with, fetched, cached and rotated."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import jwt
import msgspec
import structlog

from rewardpoints.settings import JwksSettings

MAX_KEY_SET_BYTES: Final = 1_048_576
MAX_KEYS: Final = 100
MIN_REFRESH_SECONDS: Final = 5.0
"""Pause between two fetches, so that tokens naming invented keys cannot make this service flood the key server."""

MAX_STALE_SECONDS: Final = 86_400.0
"""How long known keys serve while the key server is down."""

_log = structlog.get_logger(__name__)


class KeysUnavailable(Exception):
    """The key set cannot be had at the moment."""


class KeySource(Protocol):
    """Where the key set comes from."""

    async def fetch(self) -> bytes:
        """The key set's JSON.

        Raises:
            KeysUnavailable: it cannot be had.
        """
        ...


class JwksUrl:
    """A key set behind a URL."""

    def __init__(self, client: httpx.AsyncClient, url: str, *, timeout_seconds: float) -> None:
        self._client = client
        self._url = url
        self._timeout_seconds = timeout_seconds

    async def fetch(self) -> bytes:
        """The key set's JSON; blocks for at most the time-out.

        Raises:
            KeysUnavailable: no answer in time, another status than 200, or far too long.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds), self._client.stream("GET", self._url) as response:
                if response.status_code != httpx.codes.OK:
                    raise KeysUnavailable(f"the key server answered {response.status_code}")
                received = bytearray()
                async for chunk in response.aiter_bytes():
                    received += chunk
                    if len(received) > MAX_KEY_SET_BYTES:
                        raise KeysUnavailable("the key set is too long")
                return bytes(received)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise KeysUnavailable(f"the key server cannot be reached: {type(error).__name__}") from error


class JwksFile:
    """A key set in a file, for trying out."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def fetch(self) -> bytes:
        """The file's content.

        Raises:
            KeysUnavailable: it cannot be read.
        """
        try:
            return await asyncio.to_thread(self._path.read_bytes)
        except OSError as error:
            raise KeysUnavailable(f"the key file cannot be read: {error.strerror}") from error


class KeyRing:
    """The usable keys of a source.

    Known keys answer from memory. They are renewed in the background when older than ``cache_seconds``, and at once
    (at most every 5 s, one fetch at a time) when a token names an unknown one; while that fails, keys that are not old
    are taken for all there are.
    """

    def __init__(
        self,
        source: KeySource,
        *,
        algorithms: Sequence[str],
        cache_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._algorithms = frozenset(algorithms)
        self._cache_seconds = cache_seconds
        self._monotonic = monotonic
        self._keys: tuple[jwt.PyJWK, ...] = ()
        self._loaded_at: float | None = None
        self._tried_at: float | None = None
        self._failure: str | None = None
        self._fetching = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key of this id and algorithm; without an id the only key of the algorithm. None where there is none.

        Raises:
            KeysUnavailable: no such key is known, none or only old ones are, and the source cannot be asked.
        """
        key = self.known(key_id, algorithm)
        if key is not None:
            return key
        try:
            await self._refresh()
        except KeysUnavailable:
            # fresh keys are all there are, unless one was added just now; old ones may have been replaced
            if self._age_seconds() > min(self._cache_seconds, MAX_STALE_SECONDS):
                raise
        return self._known(key_id, algorithm)

    def known(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """As ``find``, but from memory alone: None where ``find`` would have to ask the source, and maybe find it."""
        age = self._age_seconds()
        if age > MAX_STALE_SECONDS:
            return None
        if age > self._cache_seconds:
            self._renew_soon()
        return self._known(key_id, algorithm)

    async def close(self) -> None:
        """Stop a renewal that is under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    def _age_seconds(self) -> float:
        return math.inf if self._loaded_at is None else self._monotonic() - self._loaded_at

    def _known(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        fitting = [key for key in self._keys if key.algorithm_name == algorithm]
        if key_id is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.key_id == key_id), None)

    def _renew_soon(self) -> None:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        try:
            await self._refresh()
        except KeysUnavailable as error:
            _log.warning("token keys not renewed, the known ones still serve", error=str(error))

    async def _refresh(self) -> None:
        """Fetch once for all who wait, or not at all when the last try is too recent; then its result holds."""
        async with self._fetching:
            now = self._monotonic()
            if self._tried_at is None or now - self._tried_at >= MIN_REFRESH_SECONDS:
                try:
                    self._keys = self._usable(await self._source.fetch())
                    self._loaded_at, self._failure = self._monotonic(), None
                except KeysUnavailable as error:
                    self._failure = str(error)
                self._tried_at = self._monotonic()  # an interrupted try is none
            if self._failure is not None:
                raise KeysUnavailable(self._failure)

    def _usable(self, document: bytes) -> tuple[jwt.PyJWK, ...]:
        try:
            entries: Any = msgspec.json.decode(document)["keys"]
            entries = [entry for entry in entries if isinstance(entry, dict)][:MAX_KEYS]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError) as error:
            raise KeysUnavailable("the key server's answer is no key set") from error
        keys = []
        for entry in entries:
            try:
                key = jwt.PyJWK(entry)
            # one entry this service cannot use must not cost it the others
            except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
                _log.warning("a key of the key set is unusable", error=type(error).__name__)
                continue
            if key.algorithm_name in self._algorithms and entry.get("use", "sig") == "sig":
                keys.append(key)
        return tuple(keys)


def key_source(settings: JwksSettings, client: httpx.AsyncClient) -> KeySource:
    """The source the settings name."""
    if settings.url is not None:
        return JwksUrl(client, settings.url, timeout_seconds=settings.timeout_seconds)
    if settings.file is None:
        raise ValueError("the settings name no key source")
    return JwksFile(settings.file)
