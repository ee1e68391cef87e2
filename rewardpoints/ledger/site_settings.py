"""Site settings as they are stored: an append-only list of versions for each site."""

from collections.abc import Collection as Sites
from collections.abc import Mapping, Sequence

from pymongo.errors import DuplicateKeyError

from rewardpoints.domain.accounts import tenant_range
from rewardpoints.domain.ports import SiteKey
from rewardpoints.domain.site_settings import SettingsHistory, SettingsVersion
from rewardpoints.ledger.documents import settings_document, settings_from, site_key
from rewardpoints.ledger.driver import Collection, Database, driver_errors

SITES_PER_READ = 100


class SiteSettingsStore:
    """Implements the port ``SettingsStore``."""

    def __init__(self, database: Database) -> None:
        self._versions: Collection = database.site_settings

    async def history(self, tenant: str, site_code: str) -> SettingsHistory:
        """All versions of a site, read from the store.

        Raises:
            LedgerUnavailable
        """
        site = (tenant, site_code)
        return (await self.histories([site]))[site]

    async def histories(self, sites: Sites[SiteKey]) -> Mapping[SiteKey, SettingsHistory]:
        """All versions of each of the sites; one query for every hundred sites.

        Raises:
            LedgerUnavailable
        """
        versions: dict[SiteKey, list[SettingsVersion]] = {site: [] for site in sites}
        keys = sorted(site_key(*site) for site in versions)
        for start in range(0, len(keys), SITES_PER_READ):
            with driver_errors():
                found = await self._versions.find({"site": {"$in": keys[start : start + SITES_PER_READ]}}).to_list(None)
            for document in found:
                version = settings_from(document)
                versions[version.tenant, version.site_code].append(version)
        return {
            site: SettingsHistory(tuple(sorted(listed, key=lambda version: version.version)))
            for site, listed in versions.items()
        }

    async def site_codes(self, tenant: str) -> Sequence[str]:
        """The sites of the tenant that have settings, in order.

        Raises:
            LedgerUnavailable
        """
        low, high = tenant_range(tenant)  # a site's key begins as an account's does
        with driver_errors():
            found = await self._versions.find({"site": {"$gte": low, "$lt": high}}, {"siteCode": 1}).to_list(None)
        return sorted({document["siteCode"] for document in found})

    async def append(self, version: SettingsVersion) -> bool:
        """Store the next version; False when that number was taken meanwhile, also by this very version.

        Raises:
            InvalidInput: its content holds a text that is no valid unicode.
            LedgerUnavailable: read the history before another try, this one may have been applied.
        """
        with driver_errors(writing=True):
            try:
                await self._versions.insert_one(settings_document(version))
            except DuplicateKeyError:
                return False
        return True
