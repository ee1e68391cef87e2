"""Observing requests: metrics of each, and an answer or a cut connection when something unforeseen happens."""

import logging
import time
from typing import Final

import structlog
from prometheus_client import Counter, Histogram
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rewardpoints.api.deadline import note_arrival
from rewardpoints.api.errors import ErrorAnswers
from rewardpoints.telemetry import Metrics

UNMATCHED: Final = "unmatched"
_log = structlog.get_logger(__name__)
_debugging = logging.getLogger(__name__).isEnabledFor


class Observed:
    """ASGI middleware: counts and times requests by operation, and turns any unforeseen exception into a 500.

    Where the answer has begun already the exception passes on, and the server cuts the connection.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, answers: ErrorAnswers) -> None:
        self._app = app
        self._metrics = metrics
        # by operation and status, of which there are few: looking a metric's child up costs more than counting
        self._counters: dict[tuple[str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        note_arrival(scope)
        status = 0
        started_at = time.perf_counter()

        async def observing_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observing_send)
        except Exception as error:
            _log.exception("request failed", operation=_operation(scope), answer_cut=bool(status))
            if status:
                status = 499 if isinstance(error, OSError) else 500  # cut, whatever the head of the answer said
                raise
            await self._answers.internal(Request(scope))(scope, receive, observing_send)
        finally:
            seconds = time.perf_counter() - started_at
            operation = _operation(scope)
            self._count(operation, status, seconds)
            if _debugging(logging.DEBUG):
                _log.debug("request", operation=operation, status=status, seconds=round(seconds, 6))

    def _count(self, operation: str, status: int, seconds: float) -> None:
        counter = self._counters.get((operation, status))
        if counter is None:
            counter = self._counters[operation, status] = self._metrics.http_requests.labels(operation, str(status))
        counter.inc()
        timer = self._timers.get(operation)
        if timer is None:
            timer = self._timers[operation] = self._metrics.http_seconds.labels(operation)
        timer.observe(seconds)


def _operation(scope: Scope) -> str:
    """The route's template: one value for each operation, however many customers and methods are tried."""
    route = scope.get("route")
    if route is None or scope["method"] not in (route.methods or ()):
        return UNMATCHED
    return f"{scope['method']} {route.path_format}"
