"""Sessions: who signed in, in a signed cookie of this service's own, and the tokens of its forms.

The access token itself is never kept: the cookie holds whom it spoke for, what of its scopes the console knows, and
when that ends. Nothing is stored, so signing out takes the cookie from the browser and no more.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Final

import jwt

from rewardpoints.console.ports import Caller
from rewardpoints.domain.ports import Clock

COOKIE: Final = "rewardpoints_console"
PATH: Final = "/console"
SESSION_ID_BYTES: Final = 16
_ALGORITHM: Final = "HS256"
_AUDIENCE: Final = "rewardpoints-console"
_CLAIMS: Final = ("exp", "jti", "sub", "scope", "tenant")


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that signed in."""

    id: str
    caller: Caller


class Sessions:
    """Makes and reads the cookies of sessions. ``secret`` is at least 32 bytes."""

    def __init__(self, secret: bytes, clock: Clock, *, seconds: int) -> None:
        self._cookie_key = hmac.digest(secret, b"session cookie", "sha256")
        self._form_key = hmac.digest(secret, b"form token", "sha256")
        self._clock = clock
        self._seconds = seconds

    def open(self, caller: Caller, session_id: str, scopes: frozenset[str]) -> tuple[str, int]:
        """A cookie for the caller with those of ``scopes`` that its token has, and the seconds it lasts."""
        now = self._clock().timestamp()
        lasts = int(min(self._seconds, caller.expires_at - now))
        claims: dict[str, Any] = {
            "aud": _AUDIENCE,
            "jti": session_id,
            "tenant": caller.tenant,
            "sub": caller.subject[:100],
            "scope": " ".join(sorted(caller.scopes & scopes)),
            "exp": int(now) + lasts,
        }
        return jwt.encode(claims, self._cookie_key, algorithm=_ALGORITHM), lasts

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie; None where it is not one of these, or over."""
        try:
            claims = jwt.decode(
                cookie,
                self._cookie_key,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": list(_CLAIMS), "verify_exp": False},  # by the passed clock, below
            )
            caller = Caller(
                tenant=claims["tenant"],
                scopes=frozenset(claims["scope"].split()),
                subject=claims["sub"],
                customer_id=None,
                expires_at=claims["exp"],
            )
        except (jwt.PyJWTError, ValueError):
            return None
        return Session(claims["jti"], caller) if self._clock().timestamp() < caller.expires_at else None

    def form_token(self, session: Session) -> str:
        """What every form of the session carries, and nobody else can know."""
        return hmac.new(self._form_key, session.id.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, session: Session, given: str) -> bool:
        """Whether a form is one of this session."""
        return hmac.compare_digest(self.form_token(session).encode(), given.encode("utf-8", "replace"))
