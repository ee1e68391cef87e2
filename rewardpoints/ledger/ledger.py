"""The ledger: everything that is kept in MongoDB, opened as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from rewardpoints.domain.ports import Clock
from rewardpoints.ledger.accounts import Accounts
from rewardpoints.ledger.dead_letter_actions import LetterActions
from rewardpoints.ledger.driver import Database, Session, open_database
from rewardpoints.ledger.indexes import ensure_indexes
from rewardpoints.ledger.lots import LotBatches
from rewardpoints.ledger.redeem_options import RedeemOptions
from rewardpoints.ledger.redemptions import Redemptions
from rewardpoints.ledger.replays import Replays
from rewardpoints.ledger.restoring import Restoring
from rewardpoints.ledger.settings_cache import SettingsCache
from rewardpoints.ledger.site_settings import SiteSettingsStore
from rewardpoints.ledger.spending import Spending
from rewardpoints.ledger.tombstones import Tombstones
from rewardpoints.ledger.transactions import run
from rewardpoints.settings import MongodbSettings, ServiceSettings, SiteSettingsSettings
from rewardpoints.telemetry import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The stores over one database. ``app`` hands them to the rooms that need them, as the ports they implement."""

    database: Database
    lots: LotBatches
    accounts: Accounts
    tombstones: Tombstones
    redemptions: Redemptions
    redeem_options: RedeemOptions
    site_settings: SiteSettingsStore
    settings_reader: SettingsCache
    replays: Replays
    letter_actions: LetterActions
    restoring: Restoring

    @classmethod
    def open(
        cls,
        mongodb: MongodbSettings,
        service: ServiceSettings,
        site_settings: SiteSettingsSettings,
        clock: Clock,
        metrics: Metrics,
    ) -> Self:
        """Everything over the database of the settings. Contacts nobody: the server may come up later.

        Raises:
            SettingsInvalid: the URI is not one, or the driver is not installed.
        """
        return cls.over(open_database(mongodb), service, site_settings, clock, metrics)

    @classmethod
    def over(
        cls,
        database: Database,
        service: ServiceSettings,
        site_settings: SiteSettingsSettings,
        clock: Clock,
        metrics: Metrics,
    ) -> Self:
        """Everything over a database that is open already; ``close`` closes it."""
        tombstones = Tombstones(database)
        accounts = Accounts(database, tombstones)
        settings_store = SiteSettingsStore(database)
        spending = Spending(
            database,
            clock,
            metrics,
            timeout_seconds=service.redeem_timeout_seconds,
            queue_per_account=service.redeem_queue_per_account,
        )
        return cls(
            database=database,
            lots=LotBatches(database, accounts),
            accounts=accounts,
            tombstones=tombstones,
            redemptions=Redemptions(database, spending),
            redeem_options=RedeemOptions(database),
            site_settings=settings_store,
            settings_reader=SettingsCache(settings_store, clock, cache_seconds=site_settings.cache_seconds),
            replays=Replays(database),
            letter_actions=LetterActions(database),
            restoring=Restoring(database),
        )

    async def ping(self) -> None:
        """One round trip to the primary.

        Raises:
            LedgerUnavailable: it did not answer.
        """
        await self.database.ping()

    async def ensure_indexes(self) -> Sequence[str]:
        """Create what is missing of the indexes; returns all of them as ``collection.name``. Idempotent.

        Raises:
            LedgerUnavailable: call it again.
        """
        return await ensure_indexes(self.database)

    async def reap(self) -> None:
        """One tiny transaction. The embedded server ends transactions of killed clients only when another one starts.

        Raises:
            LedgerUnavailable
        """

        async def look(session: Session) -> None:
            await self.database.tombstones.find_one({"_id": ""}, session=session)

        await run(self.database, look)

    async def close(self) -> None:
        """Close all connections, within a few seconds. Calls after it fail."""
        await self.database.close()
