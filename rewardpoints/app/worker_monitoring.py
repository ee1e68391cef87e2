"""Health and metrics of several worker processes, on the port that one worker would have."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import httpx
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from rewardpoints.api.operations import OperatorEndpoints, ReadinessChecks
from rewardpoints.domain.errors import RewardPointsError
from rewardpoints.telemetry import Metrics

PROCESS: Final = "process"
"""The label that tells the processes' metrics apart: 1, 2, ..."""


class Monitored(Protocol):
    """A process that answers on a port of its own."""

    @property
    def name(self) -> str:
        """Its number."""
        ...

    @property
    def url(self) -> str:
        """Where it answers."""
        ...

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        ...


class ProcessNotReady(RewardPointsError):
    """It does not run, or says that it is not ready."""


class _ProcessCheck:
    def __init__(self, process: Monitored, client: httpx.AsyncClient) -> None:
        self._process = process
        self._client = client

    async def check(self) -> Mapping[str, Any]:
        """Its process id; raises where it is not ready."""
        pid = self._process.pid
        if pid is None or (await self._client.get(f"{self._process.url}/readyz")).status_code != httpx.codes.OK:
            raise ProcessNotReady
        return {"pid": pid}


def create_monitoring_app(processes: Sequence[Monitored], metrics: Metrics, client: httpx.AsyncClient) -> ASGIApp:
    """``/healthz`` of the parent, ``/readyz`` where every process is ready, ``/metrics`` of all of them."""
    checks = ReadinessChecks(
        required={f"process {process.name}": _ProcessCheck(process, client) for process in processes}
    )

    async def all_metrics(request: Request) -> Response:  # noqa: ARG001 - Starlette passes it
        texts = await asyncio.gather(*(_metrics_of(process, client) for process in processes))
        together = merged({process.name: text for process, text in zip(processes, texts, strict=True)})
        (restarts,) = metrics.process_restarts.collect()  # counted here, by nobody else
        others = [family for family in together if family.name != restarts.name]
        return Response(exposed([*others, restarts]), media_type=CONTENT_TYPE_LATEST)

    own = OperatorEndpoints(metrics, checks)
    health = [route for route in own.routes() if route.path != "/metrics"]
    return Starlette(routes=[*health, Route("/metrics", all_metrics)])


async def _metrics_of(process: Monitored, client: httpx.AsyncClient) -> str:
    """Its metrics as text; none of a process that does not answer, which its readiness says."""
    try:
        answer = await client.get(f"{process.url}/metrics")
    except httpx.HTTPError:
        return ""
    return answer.text if answer.status_code == httpx.codes.OK else ""


def merged(texts: Mapping[str, str]) -> list[Metric]:
    """The metrics of every process, by its name, each with the label ``process`` besides its own."""
    families: dict[str, Metric] = {}
    for process, text in texts.items():
        for family in text_string_to_metric_families(text):
            kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                kept.samples.append(sample._replace(labels={PROCESS: process, **sample.labels}))
    return list(families.values())


class _Collected:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def exposed(families: Iterable[Metric]) -> bytes:
    """Metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collected(families))
    return generate_latest(registry)
