"""Access: which token may call which operation. Checked before anything else of a request is looked at."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import structlog
from starlette.requests import Request

from rewardpoints.api.deadline import answer_by
from rewardpoints.api.errors import Forbidden, Unauthorized, Unavailable
from rewardpoints.api.keys import KeysUnavailable
from rewardpoints.api.paths import decode_segment
from rewardpoints.api.tokens import InvalidToken, Principal, TokenVerifier
from rewardpoints.domain.accounts import RESERVED_TENANTS
from rewardpoints.domain.errors import InvalidInput

VIEW_SCOPE: Final = "rewardspoints.rewardpoints_view"
MANAGE_SCOPE: Final = "rewardspoints.rewardpoints_manage"
SITE_SCOPE: Final = "site.site_manage"

_PRINCIPAL: Final = "rewardpoints.principal"
_log = structlog.get_logger(__name__)


class Caller(Enum):
    """Whose token an operation takes."""

    CUSTOMER = "customer"
    SERVICE = "service"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Access:
    """The rule of one operation. ``scope`` is demanded of services only; a customer's token never carries one."""

    caller: Caller
    scope: str | None = None

    @property
    def security(self) -> list[dict[str, list[str]]]:
        """The rule as OpenAPI states it."""
        service = {"OAuth2": [self.scope] if self.scope else []}
        customer: dict[str, list[str]] = {"CustomerAccessToken": []}
        return {Caller.CUSTOMER: [customer], Caller.SERVICE: [service], Caller.ANY: [customer, service]}[self.caller]


CUSTOMER: Final = Access(Caller.CUSTOMER)
ANY_TOKEN: Final = Access(Caller.ANY)
VIEW: Final = Access(Caller.SERVICE, VIEW_SCOPE)
MANAGE: Final = Access(Caller.SERVICE, MANAGE_SCOPE)
MANAGE_SITE: Final = Access(Caller.SERVICE, SITE_SCOPE)


class Guard:
    """Authenticates and authorises requests."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    async def admit(self, request: Request, access: Access) -> None:
        """Let the request pass, its caller known to ``principal_of``.

        Raises:
            Unauthorized: no acceptable token.
            Forbidden: the token's tenant, kind or scopes do not fit.
            Unavailable: the token cannot be checked at the moment, or not in the request's time.
        """
        principal = await self._authenticate(request)
        _check_tenant(request, principal)
        _check_caller(principal, access)
        request.scope[_PRINCIPAL] = principal

    async def _authenticate(self, request: Request) -> Principal:
        sent = request.headers.getlist("authorization")
        if len(sent) != 1:  # of two, something in front of this service may have looked at the other one
            raise Unauthorized
        scheme, _, token = sent[0].partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized
        remembered = self._verifier.recall(token)
        if remembered is not None:
            return remembered
        try:
            async with asyncio.timeout_at(answer_by(request)):
                return await self._verifier.verify(token)
        except InvalidToken as error:
            _log.debug("token refused", reason=str(error))
            raise Unauthorized from error
        except (KeysUnavailable, TimeoutError) as error:
            _log.warning("tokens cannot be checked", reason=str(error) or "no keys in time")
            raise Unavailable("The access token cannot be checked at the moment") from error


def principal_of(request: Request) -> Principal:
    """Who calls, once the guard has let the request pass."""
    principal: Principal = request.scope[_PRINCIPAL]
    return principal


def customer_id_of(request: Request) -> str:
    """The customer who calls an operation that only customers may call."""
    customer_id = principal_of(request).customer_id
    if customer_id is None:
        raise TypeError("the operation's access rule does not demand a customer")
    return customer_id


def _check_tenant(request: Request, principal: Principal) -> None:
    if principal.tenant in RESERVED_TENANTS:
        raise Forbidden("The tenant's name is reserved", message="Tenant not accepted")
    if any(header != principal.tenant for header in request.headers.getlist("emporix-tenant")):
        raise Forbidden("The Emporix-Tenant header does not match the access token", message="Wrong tenant")
    named = _tenant_in_path(request.scope.get("path_params", {}))
    if named is not None and named != principal.tenant:
        raise Forbidden("The tenant in the path does not match the access token", message="Wrong tenant")


def _tenant_in_path(parameters: Mapping[str, str]) -> str | None:
    segment = parameters.get("tenant")
    if segment is None:
        return None
    try:
        return decode_segment(segment)
    except InvalidInput:
        return ""  # no text at all, hence no tenant's name


def _check_caller(principal: Principal, access: Access) -> None:
    if access.caller is Caller.CUSTOMER and principal.customer_id is None:
        raise Forbidden("A customer's access token is required", message="Customer token required")
    if access.caller is not Caller.SERVICE:
        return
    scope = access.scope or ""
    if principal.customer_id is not None or scope not in principal.scopes:
        details = [f"Missing required scopes '[{scope}]'", f"missing scope: {scope}"]
        if principal.customer_id is not None:
            details.append("A customer's access token is not accepted here")
        raise Forbidden(*details)
