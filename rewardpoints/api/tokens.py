"""Tokens: who is calling, from a signed JWT."""

import base64
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import jwt
from jwt.types import Options

from rewardpoints.api.keys import KeyRing
from rewardpoints.domain.accounts import check_id
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.orders import ANONYMOUS_CUSTOMER
from rewardpoints.settings import TokenSettings

MAX_SCOPES: Final = 500
MAX_TIME_SECONDS: Final = 253_402_300_799
"""The end of the year 9999: a time beyond it is no time, but milliseconds taken for seconds, say."""

MOST_REMEMBERED: Final = 4096
LONGEST_REMEMBERED: Final = 2048
"""Characters. Together they bound what is remembered, some KiB a token."""

_TIMES: Final = ("exp", "nbf", "iat")


class InvalidToken(Exception):
    """The token is not acceptable. The message is for debug logs, never for the caller."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling. ``customer_id`` is set for a customer's token only; a guest has neither it nor scopes.

    ``expires_at`` is when the token ends, in seconds since 1970.
    """

    tenant: str
    scopes: frozenset[str]
    subject: str
    customer_id: str | None
    expires_at: float = MAX_TIME_SECONDS


@dataclass(frozen=True, slots=True)
class _Verified:
    """That a token was good at ``at`` by this very key. It is until ``until``; both by the wall clock, in seconds."""

    principal: Principal
    key: jwt.PyJWK
    key_id: str | None
    at: float
    until: float


class TokenVerifier:
    """Checks tokens against the keys of a ``KeyRing``.

    A token that was good is remembered by the SHA-256 digest of all of its bytes, and neither its signature nor its
    claims are looked at again while it lasts and the key that it was checked with is in the ring: a key that is taken
    out, replaced or only fetched again ends what it vouched for. Refused tokens are not remembered.
    """

    def __init__(self, settings: TokenSettings, keys: KeyRing, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._keys = keys
        self._wall_clock = wall_clock
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()  # least recently used first
        self._algorithms = list(settings.algorithms)
        self._decoder = _StrictJwt()
        self._options: Options = {
            "require": ["exp"],
            "verify_aud": settings.audience is not None,
            "enforce_minimum_key_length": True,
        }

    def recall(self, token: str) -> Principal | None:
        """Who the token speaks for, where it was verified before and would be again. Never blocks."""
        if len(token) > LONGEST_REMEMBERED:
            return None
        digest = _digest(token)
        verified = self._verified.get(digest)
        if verified is None:
            return None
        key = self._keys.known(verified.key_id, verified.key.algorithm_name)
        if key is verified.key and verified.at <= self._wall_clock() < verified.until:
            self._verified.move_to_end(digest)
            return verified.principal
        del self._verified[digest]
        return None

    async def verify(self, token: str) -> Principal:
        """Who the token speaks for. Blocks at most as long as fetching keys may take, and only for an unknown key.

        Raises:
            InvalidToken: it is malformed, too long, not signed by a known key, expired, or not for this service.
            KeysUnavailable: it may be good, but the keys cannot be had.
        """
        if len(token) > self._settings.max_bytes:
            raise InvalidToken("too long")
        remembered = self.recall(token)
        if remembered is not None:
            return remembered
        at = self._wall_clock()
        with _bad_tokens_only():
            header = _named_key(token)
        if header.alg not in self._algorithms:
            raise InvalidToken("algorithm not accepted")
        key = await self._keys.find(header.kid, header.alg)
        if key is None:
            raise InvalidToken("unknown key")
        with _bad_tokens_only():
            claims = self._decoder.decode(
                token,
                key,
                algorithms=self._algorithms,
                options=self._options,
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway_seconds,
            )
        principal = self._principal(claims)
        if len(token) <= LONGEST_REMEMBERED:
            # exactly as PyJWT judges it
            until = int(claims["exp"]) + self._settings.leeway_seconds
            self._verified[_digest(token)] = _Verified(principal, key, header.kid, at, until)
            if len(self._verified) > MOST_REMEMBERED:
                self._verified.popitem(last=False)
        return principal

    def _principal(self, claims: dict[str, Any]) -> Principal:
        settings = self._settings
        scope = claims.get(settings.claim_scope) or ""
        subject = claims.get(settings.claim_subject) or ""
        customer_id = claims.get(settings.claim_customer)
        if not isinstance(scope, str) or not isinstance(subject, str):
            raise InvalidToken("scope or subject is no text")
        try:
            tenant = _id_claim(settings.claim_tenant, claims.get(settings.claim_tenant))
            if customer_id is not None:
                customer_id = _id_claim(settings.claim_customer, customer_id)
        except InvalidInput as error:
            raise InvalidToken(str(error)) from error
        if customer_id == ANONYMOUS_CUSTOMER:  # a guest, whatever else the token says
            return Principal(tenant, frozenset(), subject, None, claims["exp"])
        return Principal(tenant, frozenset(scope.split()[:MAX_SCOPES]), subject, customer_id, claims["exp"])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _id_claim(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidInput(name, "must be a text")
    return check_id(name, value)


class _StrictJwt(jwt.PyJWT):
    """PyJWT, with claims read in one way only: no name twice, no ``NaN``, and times that are numbers."""

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        claims = _object_from(decoded["payload"])
        for name in _TIMES:
            time = claims.get(name, 0)
            if isinstance(time, bool) or not isinstance(time, int | float) or abs(time) > MAX_TIME_SECONDS:
                raise jwt.InvalidTokenError(f"{name} is no time")
        return claims


@dataclass(frozen=True, slots=True)
class _Header:
    alg: str
    kid: str | None


def _named_key(token: str) -> _Header:
    """The key a token claims to be signed with. Only chooses the key: PyJWT decodes and checks the header again.

    Nothing else of the header is ever followed: no ``jku``, ``x5u``, ``jwk`` or ``x5c``. Its own
    ``get_unverified_header`` decodes the whole token, at half the price of checking it.
    """
    segment = token.partition(".")[0]
    padding = "=" * (-len(segment) % 4)
    header = _object_from(base64.urlsafe_b64decode(segment + padding))
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not (key_id is None or isinstance(key_id, str)):
        raise TypeError("alg or kid is no text")
    if "crit" in header:
        raise ValueError("demands an extension")  # PyJWT knows one, which this service has no use for
    return _Header(algorithm, key_id)


def _object_from(text: bytes) -> dict[str, Any]:
    value = _JSON.decode(text.decode())
    if not isinstance(value, dict):
        raise TypeError("no object")
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    # of a name that stands twice, whoever made the token may have meant and checked the other
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


_JSON: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)


@contextmanager
def _bad_tokens_only() -> Iterator[None]:
    try:
        yield
    # a hostile token may also break the JSON decoder (depth, digits) or the key's arithmetic: still only a bad token
    except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise InvalidToken(type(error).__name__) from error
