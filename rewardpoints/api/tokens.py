"""Tokens: who is calling, from a signed JWT."""

from dataclasses import dataclass
from typing import Any, Final

import jwt

from rewardpoints.api.keys import KeyRing
from rewardpoints.domain.accounts import check_id
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.orders import ANONYMOUS_CUSTOMER
from rewardpoints.settings import TokenSettings

MAX_SCOPES: Final = 500


class InvalidToken(Exception):
    """The token is not acceptable. The message is for debug logs, never for the caller."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling. ``customer_id`` is set for a customer's token only; a guest has neither it nor scopes."""

    tenant: str
    scopes: frozenset[str]
    subject: str
    customer_id: str | None


class TokenVerifier:
    """Checks tokens against the keys of a ``KeyRing``."""

    def __init__(self, settings: TokenSettings, keys: KeyRing) -> None:
        self._settings = settings
        self._keys = keys
        self._algorithms = list(settings.algorithms)
        self._options: dict[str, Any] = {
            "require": ["exp"],
            "verify_aud": settings.audience is not None,
            "enforce_minimum_key_length": True,
        }

    async def verify(self, token: str) -> Principal:
        """Who the token speaks for. Blocks at most as long as fetching keys may take, and only for an unknown key.

        Raises:
            InvalidToken: it is malformed, too long, not signed by a known key, expired, or not for this service.
            KeysUnavailable: it may be good, but the keys cannot be had.
        """
        if len(token) > self._settings.max_bytes:
            raise InvalidToken("too long")
        header = _guarded(jwt.get_unverified_header, token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in self._algorithms or not isinstance(key_id, str | None):
            raise InvalidToken("algorithm or key id not accepted")
        key = await self._keys.find(key_id, algorithm)
        if key is None:
            raise InvalidToken("unknown key")
        claims = _guarded(
            jwt.decode,
            token,
            key,
            algorithms=self._algorithms,
            options=self._options,
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            leeway=self._settings.leeway_seconds,
        )
        return self._principal(claims)

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
            return Principal(tenant, frozenset(), subject, None)
        return Principal(tenant, frozenset(scope.split()[:MAX_SCOPES]), subject, customer_id)


def _id_claim(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidInput(name, "must be a text")
    return check_id(name, value)


def _guarded(function: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
    try:
        decoded: dict[str, Any] = function(*arguments, **options)
    # a hostile token may also break the JSON decoder (depth, digits) or the key's arithmetic: still only a bad token
    except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise InvalidToken(type(error).__name__) from error
    return decoded
