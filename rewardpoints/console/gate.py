"""The gate: who may see a page or send a form. Checked before anything else of a request is looked at."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from rewardpoints.console.forms import Form
from rewardpoints.console.ports import Caller, TokenRefused, Tokens
from rewardpoints.console.sessions import COOKIE, Session, Sessions
from rewardpoints.domain.accounts import RESERVED_TENANTS
from rewardpoints.domain.errors import RewardPointsError

VIEW: Final = "rewardspoints.rewardpoints_view"
MANAGE: Final = "rewardspoints.rewardpoints_manage"
SITE: Final = "site.site_manage"
SCOPES: Final = frozenset({VIEW, MANAGE, SITE})
FORM_TOKEN: Final = "form_token"  # noqa: S105 - a field's name


class SignInNeeded(RewardPointsError):
    """Nobody this service knows; ``tried`` where a token was sent that it does not accept."""

    def __init__(self, *, tried: bool = False) -> None:
        super().__init__("Sign in with an access token.")
        self.tried = tried


class NotAllowed(RewardPointsError):
    """Somebody, but not for this."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks. ``session`` is None for a client that sends its access token with each request."""

    caller: Caller
    session: Session | None
    form_token: str

    def may(self, scope: str) -> bool:
        """Whether the visitor has a scope."""
        return scope in self.caller.scopes


class Gate:
    """Knows visitors by their session's cookie or by a bearer token."""

    def __init__(self, tokens: Tokens, sessions: Sessions) -> None:
        self._tokens = tokens
        self._sessions = sessions

    async def visitor(self, request: Request) -> Visitor:
        """Who asks.

        Raises:
            SignInNeeded: nobody known.
            NotAllowed: a customer, or a tenant that cannot be one.
            ServiceUnavailable: the token cannot be checked now.
        """
        sent = request.headers.getlist("authorization")
        if sent:
            scheme, _, token = sent[0].partition(" ")
            if len(sent) != 1 or scheme.lower() != "bearer":
                raise SignInNeeded(tried=True)
            return Visitor(await self.caller(token.strip()), None, "")
        session = self._sessions.read(request.cookies.get(COOKIE, ""))
        if session is None:
            raise SignInNeeded
        return Visitor(session.caller, session, self._sessions.form_token(session))

    async def caller(self, token: str) -> Caller:
        """Whom an access token speaks for.

        Raises:
            SignInNeeded, NotAllowed, ServiceUnavailable: as for ``visitor``.
        """
        if not token:
            raise SignInNeeded(tried=True)
        try:
            caller = await self._tokens.caller(token)
        except TokenRefused as error:
            raise SignInNeeded(tried=True) from error
        if caller.customer_id is not None:
            raise NotAllowed("The console is for services' access tokens; this one is a customer's.")
        if caller.tenant in RESERVED_TENANTS:
            raise NotAllowed("The tenant's name is reserved.")
        return caller

    def check_scope(self, visitor: Visitor, scope: str) -> None:
        """Refuse a visitor without the scope.

        Raises:
            NotAllowed
        """
        if not visitor.may(scope):
            raise NotAllowed(f"The access token has not the scope {scope}.")

    def check_form(self, visitor: Visitor, form: Form) -> None:
        """Refuse a form that does not come from a page of the visitor's session.

        A client that sends its access token itself needs no form token: no other site can make a browser send it.

        Raises:
            NotAllowed
        """
        if visitor.session is None:
            return
        if not self._sessions.is_form_token(visitor.session, form.text(FORM_TOKEN)):
            raise NotAllowed("The form is not of this session. Load the page again and send it once more.")


def check_origin(request: Request) -> None:
    """Refuse a form that another site has the browser send. Says nothing about clients that are no browsers.

    Raises:
        NotAllowed
    """
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    # behind a proxy the scheme may be another one, the host is not
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if site not in {"same-origin", "none"} or foreign:
        raise NotAllowed("The form comes from another site.")
