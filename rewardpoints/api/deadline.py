"""The time a request has, counted from its arrival."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from rewardpoints.domain.errors import LedgerUnavailable

Endpoint = Callable[..., Awaitable[Response]]

ANSWER_SECONDS: Final = 9.5
"""Clients give up after 10 seconds; an answer after that would lose a redeemed code."""

MARGIN_SECONDS: Final = 0.25
"""Between the verdicts of what is asked of the ledger, of an operation and of the route around it."""

_ARRIVED_AT: Final = "rewardpoints.arrived_at"


def note_arrival(scope: Scope) -> None:
    """Start the request's time."""
    scope[_ARRIVED_AT] = asyncio.get_running_loop().time()


def answer_by(request: Request) -> float:
    """When the request must be answered, in the event loop's time; for ``asyncio.timeout_at``."""
    arrived_at: float = request.scope[_ARRIVED_AT]
    return arrived_at + ANSWER_SECONDS


def seconds_left(request: Request) -> float:
    """Seconds for what is asked of the ledger, a moment less than until the answer: its own verdict comes first."""
    return answer_by(request) - asyncio.get_running_loop().time() - MARGIN_SECONDS


def in_time(endpoint: Endpoint, *, changes: bool) -> Endpoint:
    """The same endpoint, ended a moment after its request must be answered: an earlier verdict of its own comes first.

    It then raises ``LedgerUnavailable``, whose ``outcome_unknown`` is whether the endpoint ``changes`` something: what
    was sent to a server may have been carried out. Only the beginning of a streamed answer counts.
    """

    @wraps(endpoint)
    async def limited(request: Request, **arguments: Any) -> Response:
        limit = asyncio.timeout_at(answer_by(request) + MARGIN_SECONDS)
        try:
            async with limit:
                return await endpoint(request, **arguments)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise LedgerUnavailable("no answer in time", outcome_unknown=changes) from error

    return limited
