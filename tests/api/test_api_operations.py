import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from rewardpoints.api.operations import ReadinessChecks, create_operations_app
from rewardpoints.api.server import HttpServer
from rewardpoints.telemetry import Metrics
from tests.api.fakes import FakeCheck
from tests.api.harness import Api


async def test_health_and_documents_need_no_token(fake_api: Api) -> None:
    health = await fake_api.call("GET", "/healthz", token=None)
    asyncapi = await fake_api.call("GET", "/asyncapi", token=None)
    openapi = await fake_api.call("GET", "/openapi.json", token=None)
    docs = await fake_api.call("GET", "/docs", token=None)

    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert asyncapi.json() == {"asyncapi": "3.0.0"}
    assert openapi.json()["info"]["title"] == "Reward Points Service"
    assert docs.headers["content-type"].startswith("text/html")


async def test_readiness_needs_mongodb_and_shows_kafka(fake_api: Api) -> None:
    both = await fake_api.call("GET", "/readyz", token=None)
    fake_api.server.kafka.up = False
    no_kafka = await fake_api.call("GET", "/readyz", token=None)
    fake_api.server.mongodb.up = False
    neither = await fake_api.call("GET", "/readyz", token=None)

    assert (both.status_code, both.json()["status"]) == (200, "ready")
    assert both.json()["checks"]["mongodb"] == {"version": "1", "status": "up"}
    assert (no_kafka.status_code, no_kafka.json()["checks"]["kafka"]["status"]) == (200, "degraded")
    assert (neither.status_code, neither.json()["checks"]["mongodb"]["status"]) == (503, "down")


async def test_a_check_that_hangs_is_down(monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient) -> None:
    monkeypatch.setattr("rewardpoints.api.operations.CHECK_TIMEOUT_SECONDS", 0.05)

    class Hanging:
        async def check(self) -> Mapping[str, Any]:
            await asyncio.Event().wait()
            return {}

    checks = ReadinessChecks(required={"mongodb": FakeCheck(), "kafka": Hanging()})
    http = HttpServer(
        create_operations_app(metrics=Metrics(), readiness=checks), host="127.0.0.1", port=0, drain_seconds=1
    )
    await http.start()
    try:
        ready = await client.get(f"{http.url}/readyz")
        metrics = await client.get(f"{http.url}/metrics")
        health = await client.get(f"{http.url}/healthz")
    finally:
        await http.stop()

    assert (ready.status_code, ready.json()["checks"]["kafka"]["status"]) == (503, "down")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "rewardpoints_http_requests" in metrics.text
    assert 'rewardpoints_server_up{server="kafka"} 0.0' in metrics.text
    assert 'rewardpoints_server_up{server="mongodb"} 1.0' in metrics.text
    assert "process_resident_memory_bytes" in metrics.text
    assert health.status_code == 200
