"""Answers to everything that goes wrong, in the shapes real clients are written for. See docs/api.md.

Each status has one shape; ``docs/api.md`` lists them. Statuses the public description does not know (405, 413, 415,
503) use the shape of its 404.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from rewardpoints.api.paths import path_as_sent
from rewardpoints.api.views import JSON, encode, resource_error
from rewardpoints.domain.errors import (
    AccountExists,
    IdempotencyConflict,
    InvalidInput,
    LedgerBusy,
    LedgerUnavailable,
    NoAccount,
    NotFound,
    RewardPointsError,
    TooFewPoints,
    TooManyLots,
    VersionConflict,
)
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.ports import Clock

RETRY_AFTER_SECONDS: Final = 2
MAX_DETAIL_LENGTH: Final = 1000

_log = structlog.get_logger(__name__)


class ApiError(HTTPException):
    """A refusal with its complete answer: status, JSON body and headers."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(status, headers=headers)
        self.body = body


class BadRequest(ApiError):
    """400: ``detail`` says what is wrong, in words for the caller's developer."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            400,
            {
                "type": "about:blank",
                "title": "Bad Request",
                "status": 400,
                "detail": detail[:MAX_DETAIL_LENGTH],
                # the resource is filled in by the handler, which knows the request
                "instance": "",
            },
        )


class Unauthorized(ApiError):
    """401: no token, or none this service accepts. Never says which of its checks failed."""

    def __init__(self) -> None:
        fault = {"faultstring": "Invalid access token", "detail": {"errorcode": "oauth.v2.InvalidAccessToken"}}
        super().__init__(401, {"fault": fault}, {"WWW-Authenticate": "Bearer"})


class Forbidden(ApiError):
    """403: the token is good, but not for this."""

    def __init__(self, *details: str, message: str = "Scope validation failed") -> None:
        super().__init__(403, {"code": 403, "status": "Forbidden", "message": message, "details": list(details)})


class Missing(ApiError):
    """404: ``message`` names what there is not."""

    def __init__(self, message: str) -> None:
        super().__init__(404, resource_error(404, "resource_not_found", message))


class NoPoints(Missing):
    """404: the customer has no account."""

    def __init__(self, customer_id: str) -> None:
        super().__init__(f"No reward points found for customer {customer_id}")


class Conflict(ApiError):
    """409 as opening an account and saving site settings answer it."""

    def __init__(self, message: str, explanation: str) -> None:
        detail = {"field": None, "type": None, "message": explanation, "moreInfo": ""}
        body = {"status": 409, "type": "application/json", "message": message, "moreInfo": "", "details": [detail]}
        super().__init__(409, body)


class OptionChanged(ApiError):
    """409 as changing a redeem option answers it."""

    def __init__(self, option_id: str) -> None:
        explanation = (
            f"The resource that was requested for update with id = {option_id} has changed. "
            "Please retry your request with valid version"
        )
        body = {"status": 409, "message": "RedeemOption not Updated", "details": {"message": explanation}}
        super().__init__(409, body)


class Unavailable(ApiError):
    """503: nothing was changed, and the same request may succeed later."""

    def __init__(self, message: str, *, retry_after_seconds: int = RETRY_AFTER_SECONDS) -> None:
        headers = {"Retry-After": str(retry_after_seconds)}
        super().__init__(503, resource_error(503, "service_unavailable", message), headers)


def internal_error(at: datetime, path: str, message: str = "Internal Server Error") -> dict[str, Any]:
    """The body of 500."""
    return {"timestamp": format_instant(at), "status": 500, "error": message, "path": path}


def _plain_status(status: int) -> ApiError:
    kinds = {
        404: ("resource_not_found", "There is no such resource"),
        405: ("method_not_allowed", "The resource does not know this method"),
        413: ("content_too_large", "The request's body is too large"),
        415: ("unsupported_media_type", "The request's body must be application/json"),
    }
    kind, message = kinds.get(status, ("request_refused", "The request was refused"))
    return ApiError(status, resource_error(status, kind, message))


class ContentTooLarge(ApiError):
    """413."""

    def __init__(self) -> None:
        plain = _plain_status(413)
        super().__init__(413, plain.body)


class UnsupportedMediaType(ApiError):
    """415."""

    def __init__(self) -> None:
        plain = _plain_status(415)
        super().__init__(415, plain.body)


class ErrorAnswers:
    """The exception handlers of the application."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def handlers(self) -> dict[Any, Any]:
        """By exception class, as FastAPI takes them."""
        return {
            HTTPException: self.refused,
            RequestValidationError: self.invalid,
            RewardPointsError: self.domain_error,
        }

    async def refused(self, request: Request, error: HTTPException) -> Response:
        """An ``ApiError``'s own answer; for what the framework refuses, the shape of its status."""
        known = error if isinstance(error, ApiError) else _plain_status(error.status_code)
        body = known.body
        if isinstance(known, BadRequest):
            body = {**body, "instance": path_as_sent(request.scope)}
        headers = dict(error.headers or {})
        if error.status_code == 405:  # noqa: PLR2004 - the status itself
            headers["Allow"] = ", ".join(_allowed_methods(request))
        return Response(encode(body), status_code=known.status_code, headers=headers, media_type=JSON)

    async def invalid(self, request: Request, error: RequestValidationError) -> Response:
        """400 that names each field and its rule, never the value."""
        problems = [f"{_field(problem['loc'])}{problem['msg']}" for problem in error.errors()]
        return await self.refused(request, BadRequest("; ".join(problems)))

    async def domain_error(self, request: Request, error: RewardPointsError) -> Response:
        """What the rules or the ledger refuse."""
        if isinstance(error, LedgerUnavailable) and error.outcome_unknown:
            _log.warning("outcome not known", exc_info=error)
            return self.internal(request, _OUTCOME_UNKNOWN)
        refusal = next((_REFUSALS[kind] for kind in type(error).__mro__ if kind in _REFUSALS), None)
        if refusal is None:
            _log.error("request failed", exc_info=error)
            return self.internal(request)
        return await self.refused(request, refusal(error))

    def internal(self, request: Request, message: str = "Internal Server Error") -> Response:
        """500."""
        body = internal_error(self._clock(), path_as_sent(request.scope), message)
        return Response(encode(body), status_code=500, media_type=JSON)


_OUTCOME_UNKNOWN: Final = (
    "It is not known whether the request was carried out. Send it again with the same Idempotency-Key (or id), "
    "or look at the customer's summary"
)


_REFUSALS: Final[dict[type[RewardPointsError], Callable[[Any], ApiError]]] = {
    InvalidInput: lambda error: BadRequest(str(error)),
    TooFewPoints: lambda error: BadRequest(f"Too few points: {error}"),
    TooManyLots: lambda error: BadRequest(f"Too many lots: {error}"),
    IdempotencyConflict: lambda _: BadRequest("The idempotency key or id was used before for a different request"),
    LedgerBusy: lambda error: Unavailable(
        "Too many such requests at once", retry_after_seconds=error.retry_after_seconds
    ),
    LedgerUnavailable: lambda _: Unavailable("The ledger cannot be reached at the moment"),
    NoAccount: lambda _: Missing("There is no such resource"),
    NotFound: lambda _: Missing("There is no such resource"),
    AccountExists: lambda _: Conflict("Conflict", "The resource exists already"),
    VersionConflict: lambda _: Conflict("Conflict", "The resource has changed"),
}


def _field(location: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in location[1:]]
    if location and location[0] == "body" and not parts:
        return "body: "
    return f"{'.'.join(parts)}: " if parts else ""


def _allowed_methods(request: Request) -> list[str]:
    """The methods of all routes on the request's path: the router only knows those of the first one it met."""
    allowed: set[str] = set()
    for route in request.app.router.routes:
        found = route.path_regex.match(request.scope["path"])
        if found:
            allowed |= route.methods or set()
    return sorted(allowed)
