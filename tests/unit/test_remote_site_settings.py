"""Site settings managed elsewhere: changes are appended, trouble changes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx
import pytest
from structlog.testing import capture_logs

from rewardpoints.domain.site_settings import SettingsHistory, SettingsVersion
from rewardpoints.remote_site_settings import MAX_ANSWER_BYTES, RemoteSiteSettings
from rewardpoints.settings import SiteSettingsSettings
from rewardpoints.telemetry import Metrics

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
GOOD = {"rewardpoints": {"enable": True, "orderValueToRewardPointsFactor": 1.5, "validityInMonths": 12}}


class FakeStore:
    def __init__(self) -> None:
        self.versions: list[SettingsVersion] = []
        self.taken = False

    async def history(self, tenant: str, site_code: str) -> SettingsHistory:
        assert (tenant, site_code) == ("shop", "main site")
        return SettingsHistory(list(self.versions))

    async def append(self, version: SettingsVersion) -> bool:
        if self.taken:
            return False
        self.versions.append(version)
        return True


class RemoteService:
    """Answers what it is told to, and keeps the requests."""

    def __init__(self) -> None:
        self.answer = httpx.Response(200, content=json.dumps(GOOD))
        self.error: Exception | None = None
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.error:
            raise self.error
        return httpx.Response(self.answer.status_code, content=self.answer.content)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def service() -> RemoteService:
    return RemoteService()


@pytest.fixture
async def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def remote(store: FakeStore, service: RemoteService, metrics: Metrics) -> AsyncIterator[RemoteSiteSettings]:
    settings = SiteSettingsSettings.model_validate(
        {
            "mode": "remote",
            "url": "https://settings.example",
            "token": "t0ken",
            "sites": "shop/main site",
            "poll_seconds": 1,
        }
    )
    async with httpx.AsyncClient(transport=httpx.MockTransport(service)) as client:
        yield RemoteSiteSettings(client, store, settings, clock=lambda: NOW, metrics=metrics)


async def test_a_change_becomes_a_version_effective_after_the_cache_time(
    remote: RemoteSiteSettings, store: FakeStore, service: RemoteService
) -> None:
    assert await remote.poll("shop", "main site") == "changed"
    (version,) = store.versions
    assert (version.version, version.saved_at, version.effective_at) == (1, NOW, NOW + timedelta(seconds=900))
    assert version.settings.factor == Decimal("1.5")
    (request,) = service.requests
    assert request.url.raw_path == b"/site/shop/sites/main%20site/mixins/couponSettings"
    assert request.headers["Authorization"] == "Bearer t0ken"

    assert await remote.poll("shop", "main site") == "unchanged"
    changed = {"rewardpoints": {**GOOD["rewardpoints"], "orderValueToRewardPointsFactor": 2}}
    service.answer = httpx.Response(200, content=json.dumps(changed))
    assert await remote.poll("shop", "main site") == "changed"
    assert [version.version for version in store.versions] == [1, 2]


async def test_two_pollers_append_one_version(remote: RemoteSiteSettings, store: FakeStore) -> None:
    store.taken = True
    assert await remote.poll("shop", "main site") == "unchanged"


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (b"not json", "unusable"),
        (b"\xff", "unusable"),
        (b"[" * 100_000, "unusable"),
        (b'{"rewardpoints": {"orderValueToRewardPointsFactor": 1e9999999999999999999999}}', "unusable"),
        (b"[]", "unusable"),
        (b'{"rewardpoints": 5}', "unusable"),
        (b'{"rewardpoints": {}}', "unusable"),
        (b'{"rewardpoints": {"orderValueToRewardPointsFactor": -1}}', "unusable"),
        (b'{"rewardpoints": {"a": "' + b"x" * MAX_ANSWER_BYTES + b'"}}', "unusable"),
    ],
)
async def test_what_cannot_be_used_changes_nothing(
    remote: RemoteSiteSettings,
    store: FakeStore,
    service: RemoteService,
    metrics: Metrics,
    *,
    content: bytes,
    outcome: str,
) -> None:
    await remote.poll("shop", "main site")
    service.answer = httpx.Response(200, content=content)
    await one_round(remote, metrics, outcome)
    assert len(store.versions) == 1


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_a_service_that_refuses_changes_nothing(
    remote: RemoteSiteSettings, store: FakeStore, service: RemoteService, metrics: Metrics, status: int
) -> None:
    service.answer = httpx.Response(status)
    await one_round(remote, metrics, "failed")
    assert store.versions == []


async def test_a_refusal_is_logged_in_one_line_without_the_address(store: FakeStore, metrics: Metrics) -> None:
    """A password in the address would be in the log else."""
    settings = SiteSettingsSettings.model_validate(
        {"mode": "remote", "url": "https://points:pa55word@settings.example", "sites": "shop/main site"}
    )
    service = RemoteService()
    service.answer = httpx.Response(503)
    async with httpx.AsyncClient(transport=httpx.MockTransport(service)) as client:
        remote = RemoteSiteSettings(client, store, settings, clock=lambda: NOW, metrics=metrics)
        with capture_logs() as logs:
            await one_round(remote, metrics, "failed")
    (line,) = [log for log in logs if log["event"] == "remote_site_settings_unavailable"]
    assert line["error"] == "status 503"
    assert "pa55word" not in str(logs)


async def test_a_service_that_is_down_is_asked_again(
    remote: RemoteSiteSettings, store: FakeStore, service: RemoteService, metrics: Metrics
) -> None:
    service.error = httpx.ConnectError("down")
    await one_round(remote, metrics, "failed")
    service.error = None
    await one_round(remote, metrics, "changed")
    assert len(store.versions) == 1


async def one_round(remote: RemoteSiteSettings, metrics: Metrics, outcome: str) -> None:
    """Run until the outcome is counted once more."""
    name, labels = "rewardpoints_site_settings_polls_total", {"outcome": outcome}
    before = metrics.registry.get_sample_value(name, labels) or 0
    stopping = asyncio.Event()
    running = asyncio.create_task(remote.run(stopping))
    async with asyncio.timeout(10):
        while (metrics.registry.get_sample_value(name, labels) or 0) == before:  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0)
    stopping.set()
    await running
