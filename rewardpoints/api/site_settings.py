"""The operations on site settings: the mixins of a site."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import Body
from starlette.requests import Request
from starlette.responses import Response

from rewardpoints.api import schemas
from rewardpoints.api.access import MANAGE_SITE, principal_of
from rewardpoints.api.bodies import object_named
from rewardpoints.api.errors import Conflict, Missing
from rewardpoints.api.parameters import SiteInPath, Tenant
from rewardpoints.api.ports import Ports
from rewardpoints.api.routing import Operations
from rewardpoints.api.views import json_answer
from rewardpoints.domain.errors import LedgerBusy
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.redeem_options import merge
from rewardpoints.domain.site_settings import SettingsVersion, canonical_content, parse_site_settings
from rewardpoints.settings import SiteSettingsMode, SiteSettingsSettings

TAG: Final = "Site Settings"
MAX_TRIES: Final = 5

CouponSettings = Annotated[dict[str, Any], Body(), schemas.COUPON_SETTINGS]


class SiteSettingsOperations:
    """Reading and saving the settings of a tenant's sites."""

    def __init__(self, ports: Ports, clock: Clock, settings: SiteSettingsSettings) -> None:
        self._store = ports.settings_store
        self._clock = clock
        self._settings = settings

    def add_to(self, operations: Operations) -> None:
        """Add the operations."""
        mixins = "/site/{tenant}/sites/{siteCode}/mixins"
        saved = {"description": "The settings as they are saved now.", "model": schemas.CouponSettings}
        operations.add(
            "GET", mixins, self.mixins, access=MANAGE_SITE, tag=TAG, errors=(400,),
            success={"description": "The site's mixins.", "model": schemas.Mixins},
        )  # fmt: skip
        operations.add(
            "GET", f"{mixins}/couponSettings", self.coupon_settings, access=MANAGE_SITE, tag=TAG, errors=(400, 404),
            success=saved,
        )  # fmt: skip
        for method, endpoint in (("PUT", self.replace_coupon_settings), ("PATCH", self.merge_coupon_settings)):
            operations.add(
                method, f"{mixins}/couponSettings", endpoint, access=MANAGE_SITE, tag=TAG, errors=(409,), success=saved
            )

    async def mixins(
        self,
        request: Request,
        _tenant: Tenant,
        site_code: SiteInPath,
    ) -> Response:
        """The mixins of a site; empty where nothing was saved."""
        latest = await self._latest(request, site_code)
        return json_answer({"couponSettings": _view(latest.content)} if latest else {})

    async def coupon_settings(
        self,
        request: Request,
        _tenant: Tenant,
        site_code: SiteInPath,
    ) -> Response:
        """The settings saved last, in force or not yet."""
        latest = await self._latest(request, site_code)
        if latest is None:
            raise Missing(f"No settings found for site {site_code}")
        return json_answer(_view(latest.content))

    async def replace_coupon_settings(
        self,
        request: Request,
        _tenant: Tenant,
        site_code: SiteInPath,
        body: CouponSettings,
    ) -> Response:
        """Save settings in place of the stored ones. They take effect after the configured cache time."""
        given = object_named(body, "rewardpoints")
        return await self._save(request, site_code, given, merged=False)

    async def merge_coupon_settings(
        self,
        request: Request,
        _tenant: Tenant,
        site_code: SiteInPath,
        body: CouponSettings,
    ) -> Response:
        """Lay settings over the stored ones (RFC 7396). They take effect after the configured cache time."""
        given = object_named(body, "rewardpoints")
        return await self._save(request, site_code, given, merged=True)

    async def _latest(self, request: Request, site_code: str) -> SettingsVersion | None:
        return (await self._store.history(principal_of(request).tenant, site_code)).latest

    async def _save(self, request: Request, site_code: str, given: Mapping[str, Any], *, merged: bool) -> Response:
        if self._settings.mode is SiteSettingsMode.REMOTE:
            raise Conflict("Site settings not saved", "The settings are managed by the Site Settings Service")
        for _ in range(MAX_TRIES):
            latest = await self._latest(request, site_code)
            stored = latest.content if latest else {}
            content = merge(canonical_content(stored), canonical_content(given)) if merged else dict(given)
            settings = parse_site_settings(content)
            if latest is not None and content == latest.content:
                return json_answer(_view(content))
            now = to_milliseconds(self._clock())
            version = SettingsVersion(
                tenant=principal_of(request).tenant,
                site_code=site_code,
                version=latest.version + 1 if latest else 1,
                saved_at=now,
                effective_at=now + timedelta(seconds=self._settings.cache_seconds),
                settings=settings,
                content=content,
            )
            if await self._store.append(version):
                return json_answer(_view(content))
        raise LedgerBusy("the site's settings are being saved by others")


def _view(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"rewardpoints": content}
