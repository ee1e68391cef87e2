"""The time a request has, counted from its arrival."""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

ANSWER_SECONDS: Final = 9.5
"""Clients give up after 10 seconds; an answer after that would lose a redeemed code."""

MARGIN_SECONDS: Final = 0.25

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
