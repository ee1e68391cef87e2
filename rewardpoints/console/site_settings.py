"""Site settings: what a site awards, its versions, and a form that appends one."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from rewardpoints.console.forms import Form
from rewardpoints.console.gate import SITE
from rewardpoints.console.numbers import number_of
from rewardpoints.console.pages import Pages, Visit
from rewardpoints.console.ports import SiteSettings
from rewardpoints.domain.accounts import DEFAULT_SITE_CODE, check_id
from rewardpoints.domain.errors import InvalidInput, VersionConflict
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.redeem_options import merge
from rewardpoints.domain.site_settings import (
    DEFAULT_SITE_SETTINGS,
    OrderValueBase,
    Rounding,
    SettingsHistory,
    SettingsVersion,
    canonical_content,
    parse_site_settings,
)
from rewardpoints.settings import SiteSettingsMode, SiteSettingsSettings

PAGE: Final = "/console/site-settings"
MOST_VERSIONS: Final = 100
TEXTS: Final = {
    "code_prefix": "codePrefix",
    "base": "orderValueBase",
    "rounding": "rounding",
    "description_template": "descriptionTemplate",
    "time_zone": "timeZone",
}


class SiteSettingsPages:
    """The settings of the tenant's sites. A version is appended only after the one that the form showed."""

    def __init__(self, store: SiteSettings, settings: SiteSettingsSettings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock

    def add_to(self, pages: Pages) -> None:
        """Add the pages."""
        pages.add(PAGE, self.show, scope=SITE)
        pages.add(f"{PAGE}/save", self.save, scope=SITE, method="POST")

    async def show(self, visit: Visit) -> Response:
        """A site's settings as they were saved last, and the versions before."""
        site_code = check_id("site", visit.query.text("site") or DEFAULT_SITE_CODE)
        return await self._page(visit, site_code, saved=visit.query.chosen("saved"))

    async def save(self, visit: Visit) -> Response:
        """Append a version, unless another has been appended since the form was shown."""
        form = visit.form
        site_code = check_id("site", form.text("site"))
        given = {**{name: form.text(name) for name in TEXTS}, **{n: form.text(n) for n in ("factor", "months")}}
        shown: dict[str, Any] = {"fields": {**given, "enabled": form.chosen("enabled")}}
        if self._settings.mode is SiteSettingsMode.REMOTE:
            problem = "The settings are managed by the Site Settings Service; change them there."
            return await self._page(visit, site_code, status=409, problem=problem, **shown)
        try:
            await self._append(visit.tenant, site_code, form)
        except InvalidInput as error:
            return await self._page(visit, site_code, status=400, problem=str(error), **shown)
        except VersionConflict:
            problem = (
                "Somebody has saved another version meanwhile. Nothing was saved. "
                "Look at the newest version and make your change again."
            )
            shown["version"] = form.whole("version")
            return await self._page(visit, site_code, status=409, problem=problem, **shown)
        return visit.go_to(f"{PAGE}?{urlencode({'site': site_code, 'saved': '1'})}")

    async def _append(self, tenant: str, site_code: str, form: Form) -> None:
        latest = (await self._store.history(tenant, site_code)).latest
        content = merge(canonical_content(latest.content if latest else {}), content_of(form))
        settings = parse_site_settings(content)
        if latest is not None and content == latest.content:
            return
        number = latest.version if latest else 0
        if number != form.whole("version"):
            raise VersionConflict
        now = to_milliseconds(self._clock())
        version = SettingsVersion(
            tenant=tenant,
            site_code=site_code,
            version=number + 1,
            saved_at=now,
            effective_at=now + timedelta(seconds=self._settings.cache_seconds),
            settings=settings,
            content=content,
        )
        if not await self._store.append(version):
            raise VersionConflict

    async def _page(
        self,
        visit: Visit,
        site_code: str,
        *,
        status: int = 200,
        problem: str | None = None,
        saved: bool = False,
        fields: Mapping[str, Any] | None = None,
        version: int | None = None,
    ) -> Response:
        history: SettingsHistory = await self._store.history(visit.tenant, site_code)
        latest = history.latest
        sites = await self._store.site_codes(visit.tenant)
        return visit.show(
            "site_settings.html",
            status=status,
            problem=problem,
            saved=saved,
            site_code=site_code,
            sites=sorted({*sites, DEFAULT_SITE_CODE, site_code}),
            latest=latest,
            in_force=history.in_force_at(self._clock()),
            versions=list(reversed(history.versions))[:MOST_VERSIONS],
            fields=fields or fields_of(latest),
            version=version if version is not None else latest.version if latest else 0,
            remote=self._settings.mode is SiteSettingsMode.REMOTE,
            bases=[one.value for one in OrderValueBase],
            roundings=[one.value for one in Rounding],
        )


def fields_of(version: SettingsVersion | None) -> dict[str, Any]:
    """Settings as the form shows them; the defaults where there are none."""
    settings = version.settings if version else DEFAULT_SITE_SETTINGS
    return {
        "enabled": settings.enabled,
        "factor": f"{settings.factor:f}",
        "months": str(settings.validity_months),
        "code_prefix": settings.code_prefix,
        "base": settings.base.value,
        "rounding": settings.rounding.value,
        "description_template": settings.description_template,
        "time_zone": settings.time_zone,
    }


def content_of(form: Form) -> dict[str, Any]:
    """What a form says of settings, to be laid over the stored ones.

    Raises:
        InvalidInput: a number is none.
    """
    content: dict[str, Any] = {stored: form.text(name) for name, stored in TEXTS.items()}
    content["enabled"] = form.chosen("enabled")
    content["orderValueToRewardPointsFactor"] = number_of(form, "factor")
    content["validityInMonths"] = form.whole("months")
    return content
