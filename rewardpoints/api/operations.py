"""What operators and orchestrators ask of a process: health, readiness, metrics, and the description of its events."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from rewardpoints.api.views import json_answer
from rewardpoints.domain.ports import Readiness
from rewardpoints.telemetry import Metrics

CHECK_TIMEOUT_SECONDS: Final = 2.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadinessChecks:
    """What a process depends on, by name: without ``required`` it is not ready, without ``optional`` it is degraded."""

    required: Mapping[str, Readiness]
    optional: Mapping[str, Readiness] = field(default_factory=dict)


class OperatorEndpoints:
    """``/healthz``, ``/readyz``, ``/metrics`` and ``/asyncapi``. They ask for no token: do not expose them publicly."""

    def __init__(self, metrics: Metrics, checks: ReadinessChecks, asyncapi: Mapping[str, Any] | None = None) -> None:
        self._metrics = metrics
        self._checks = checks
        self._asyncapi = asyncapi

    def routes(self) -> list[Route]:
        """The routes."""
        routes = [
            Route("/healthz", self.health),
            Route("/readyz", self.readiness),
            Route("/metrics", self.metrics),
        ]
        if self._asyncapi is not None:
            routes.append(Route("/asyncapi", self.asyncapi))
        return routes

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """200 while the process answers at all."""
        return json_answer({"status": "ok"})

    async def readiness(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """200 where everything required answers, else 503; what is optional is shown as degraded.

        What it finds becomes the metric ``server_up`` too.
        """
        names = [*self._checks.required, *self._checks.optional]
        checks = [*self._checks.required.values(), *self._checks.optional.values()]
        states = dict(zip(names, await asyncio.gather(*map(_state, checks)), strict=True))
        ready = all(states[name]["status"] == "up" for name in self._checks.required)
        for name, state in states.items():
            self._metrics.server_up.labels(name).set(state["status"] == "up")
        for name in self._checks.optional:
            if states[name]["status"] != "up":
                states[name]["status"] = "degraded"
        return json_answer({"status": "ready" if ready else "unavailable", "checks": states}, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """The process's metrics in Prometheus' text format."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def asyncapi(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """The AsyncAPI document of the service's topics."""
        return json_answer(self._asyncapi)


def create_operations_app(*, metrics: Metrics, readiness: ReadinessChecks) -> ASGIApp:
    """Health, readiness and metrics alone, for a process without the API."""
    return Starlette(routes=list(OperatorEndpoints(metrics, readiness).routes()))


async def _state(check: Readiness) -> dict[str, Any]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            return {**await check.check(), "status": "up"}
    except Exception as error:  # noqa: BLE001 - whatever a check raises, its server does not answer
        _log.debug("readiness check failed", error=repr(error))
        return {"status": "down", "error": type(error).__name__}
