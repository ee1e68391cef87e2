"""Site settings managed elsewhere: a poller that appends a version to the ledger when the remote content changes."""

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
import structlog

from rewardpoints.domain.errors import InvalidInput, LedgerUnavailable
from rewardpoints.domain.ports import Clock, SettingsStore
from rewardpoints.domain.site_settings import SettingsVersion, canonical_content, parse_site_settings
from rewardpoints.settings import SiteSettingsSettings
from rewardpoints.telemetry import Metrics

MIXIN: Final = "couponSettings"
FIELD: Final = "rewardpoints"
MAX_ANSWER_BYTES: Final = 262_144

_decoder: Final = msgspec.json.Decoder(float_hook=Decimal)
logger = structlog.get_logger(__name__)


class RemoteSiteSettings:
    """Polls the Site Settings Service for the configured sites.

    While the service is down, or answers what is no usable setting, what the ledger has stays in force. A change takes
    effect at observation + cache time, as a local one does at save + cache time.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        store: SettingsStore,
        settings: SiteSettingsSettings,
        *,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._http = http
        self._store = store
        self._settings = settings
        self._clock = clock
        self._metrics = metrics

    async def run(self, stopping: asyncio.Event) -> None:
        """Poll every site, pause, and again, until ``stopping``; no failure ends it."""
        while not stopping.is_set():
            for site in self._settings.sites:
                tenant, _, site_code = site.partition("/")
                if stopping.is_set():
                    return
                outcome = await self._poll_safely(tenant, site_code)
                self._metrics.site_settings_polls.labels(outcome).inc()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._settings.poll_seconds)

    async def _poll_safely(self, tenant: str, site_code: str) -> str:
        try:
            return await self.poll(tenant, site_code)
        except InvalidInput as error:
            logger.warning("remote_site_settings_unusable", tenant=tenant, site=site_code, problem=str(error))
            return "unusable"
        except (httpx.HTTPError, TimeoutError, LedgerUnavailable) as error:
            logger.warning("remote_site_settings_unavailable", tenant=tenant, site=site_code, error=_told(error))
            return "failed"
        except Exception:
            # Somebody else's answer must never end this process: what the ledger has stays in force.
            logger.exception("remote_site_settings_failed", tenant=tenant, site=site_code)
            return "failed"

    async def poll(self, tenant: str, site_code: str) -> str:
        """Read one site's settings: ``changed`` when a version was appended, else ``unchanged``.

        Raises:
            InvalidInput: the answer holds no usable settings.
            httpx.HTTPError, TimeoutError, LedgerUnavailable: it could not be read or stored.
        """
        async with asyncio.timeout(self._settings.timeout_seconds):
            content = canonical_content(_settings_of(await self._fetch(tenant, site_code)))
        parsed = parse_site_settings(content)
        latest = (await self._store.history(tenant, site_code)).latest
        if latest is not None and latest.content == content:
            return "unchanged"
        now = self._clock()
        appended = await self._store.append(
            SettingsVersion(
                tenant=tenant,
                site_code=site_code,
                version=latest.version + 1 if latest else 1,
                saved_at=now,
                effective_at=now + timedelta(seconds=self._settings.cache_seconds),
                settings=parsed,
                content=content,
            )
        )
        # Another process's poller was first: its version is compared with at the next poll.
        return "changed" if appended else "unchanged"

    async def _fetch(self, tenant: str, site_code: str) -> bytes:
        path = f"/site/{quote(tenant, safe='')}/sites/{quote(site_code, safe='')}/mixins/{MIXIN}"
        token = self._settings.token
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        body = bytearray()
        async with self._http.stream("GET", f"{self._settings.url}{path}", headers=headers) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise InvalidInput(MIXIN, f"is larger than {MAX_ANSWER_BYTES} bytes")
        return bytes(body)


def _told(error: Exception) -> str:
    """What failed, in one line. The client's own words for a status repeat the address, credentials in it included."""
    return f"status {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else repr(error)


def _settings_of(body: bytes) -> Mapping[str, Any]:
    try:
        mixin = _decoder.decode(body)
    except (ValueError, ArithmeticError, RecursionError) as error:  # msgspec.DecodeError is a ValueError
        raise InvalidInput(MIXIN, f"is no usable JSON ({type(error).__name__})") from error
    settings = mixin.get(FIELD) if isinstance(mixin, dict) else None
    if not isinstance(settings, dict):
        raise InvalidInput(MIXIN, f"has no object {FIELD!r}")
    return settings
