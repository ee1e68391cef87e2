"""Ledgers, and what is put into them, with the fields a test does not care about filled in."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from rewardpoints.domain.accounts import Account, account_of, tenant_range
from rewardpoints.domain.chargebacks import chargeback_lot
from rewardpoints.domain.history import History
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.lots import Earned, Lot, LotKind, Origin, lot_id
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.redeem_options import RedeemOption
from rewardpoints.domain.redemptions import CouponOrder, Redemption, RedemptionIntent, redemption_id
from rewardpoints.domain.site_settings import DEFAULT_SITE_SETTINGS, SettingsVersion, parse_site_settings
from rewardpoints.ledger.account_pages import AccountPages
from rewardpoints.ledger.accounts import history_from
from rewardpoints.ledger.driver import Database
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.verify import violations
from rewardpoints.settings import MongodbDriver, MongodbSettings, ServiceSettings, SiteSettingsSettings
from rewardpoints.telemetry import Metrics
from tests.altered import altered
from tests.contracts.simulated import FailingNetwork, FailingServer
from tests.simulation.client import SimulatedClient

ACCOUNT = account_of("shop", "c1")
OTHER = account_of("shop", "c2")
YEAR = timedelta(days=365)

Driver = MongodbDriver | FailingServer
LedgerOpener = Callable[..., AbstractAsyncContextManager[Ledger]]


def now() -> datetime:
    return to_milliseconds(datetime.now(UTC))


def open_ledger(
    uri: str,
    database: str,
    driver: Driver = MongodbDriver.PYMONGO,
    *,
    mongodb: dict[str, Any] | None = None,
    clock: Clock = now,
    **service: Any,
) -> Ledger:
    settings = MongodbSettings.model_validate({"uri": uri, "database": database, **(mongodb or {})})
    others = (
        ServiceSettings.model_validate(service),
        SiteSettingsSettings.model_validate({"cache_seconds": 0}),
        clock,
        Metrics(),
    )
    if isinstance(driver, FailingServer):
        seconds = settings.operation_timeout_seconds
        client = SimulatedClient(driver, FailingNetwork(driver), operation_timeout_seconds=seconds)
        return Ledger.over(Database(client, settings), *others)
    return Ledger.open(settings.model_copy(update={"driver": driver}), *others)


def order_lot(source_id: str, points: int = 100, **changes: Any) -> Lot:
    """The lot of an order, earned an hour ago and valid for a year."""
    account = changes.pop("account", ACCOUNT)
    created_at = changes.pop("created_at", now() - timedelta(hours=1))
    identity = lot_id(account, LotKind.ORDER, source_id)
    lot = Lot(
        id=identity,
        account=account,
        kind=LotKind.ORDER,
        source_id=source_id,
        public_id=identity,
        reference_id=source_id,
        description=f"Reward points for order {source_id}",
        points=points,
        remaining=points,
        created_at=created_at,
        valid_until=created_at + YEAR,
        site_code="main",
        recorded_at=now(),
        earned=Earned(
            rule="order-value",
            base="totalPrice",
            factor=Decimal("1.0"),
            value=Decimal(f"{points}.92"),
            currency="EUR",
            settings_version=1,
        ),
        origin=Origin(topic="order-completed", partition=0, offset=7),
    )
    return altered(lot, **changes)


def manual_lot(source_id: str, points: int = 100, **changes: Any) -> Lot:
    account = changes.pop("account", ACCOUNT)
    kind = changes.pop("kind", LotKind.MANUAL)
    at = now()
    lot = Lot(
        id=lot_id(account, kind, "" if kind is LotKind.OPENING else source_id),
        account=account,
        kind=kind,
        source_id="" if kind is LotKind.OPENING else source_id,
        public_id=source_id,
        reference_id=None,
        description="by hand",
        points=points,
        remaining=points,
        created_at=at,
        valid_until=at + YEAR,
        site_code="main",
        recorded_at=at,
        fingerprint="f1",
    )
    return altered(lot, **changes)


def opening_lot(points: int = 0, **changes: Any) -> Lot:
    return manual_lot("start", points, kind=LotKind.OPENING, **changes)


def an_intent(points: int, key: str | None = None, *, coupon: bool = False, **changes: Any) -> RedemptionIntent:
    """A redemption to be made; of the same key the same one."""
    account: Account = changes.pop("account", ACCOUNT)
    identity = redemption_id(account, key or secrets.token_hex(16))
    intent = RedemptionIntent(
        id=identity,
        public_id=identity,
        account=account,
        points=points,
        description="Voucher",
        site_code="main",
        fingerprint="f1",
        coupon=CouponOrder(code=f"RP-{secrets.token_hex(5)}", option=an_option().snapshot()) if coupon else None,
    )
    return altered(intent, **changes)


def lot_back(redemption: Redemption) -> Lot:
    at = now()
    return chargeback_lot(redemption, DEFAULT_SITE_SETTINGS, at=at, recorded_at=at)


def an_option(option_id: str = "o1", **changes: Any) -> RedeemOption:
    at = now()
    content = {
        "type": "coupon",
        "name": "Voucher",
        "points": 50,
        "coupon": {
            "name": "5 off",
            "discountType": "ABSOLUTE",
            "discountAbsolute": {"amount": Decimal("5.10"), "currency": "EUR"},
            "$odd.key": {"$where": "1"},
        },
    }
    option = RedeemOption(tenant="shop", id=option_id, content=content, version=1, created_at=at, modified_at=at)
    return altered(option, **changes)


def a_version(number: int, *, site_code: str = "main", tenant: str = "shop", factor: str = "1.50") -> SettingsVersion:
    at = now()
    content = {"enabled": True, "orderValueToRewardPointsFactor": Decimal(factor), "validityInMonths": 12}
    return SettingsVersion(
        tenant=tenant,
        site_code=site_code,
        version=number,
        saved_at=at,
        effective_at=at,
        settings=parse_site_settings(content),
        content=content,
    )


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until the condition holds, for at most ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - clocks and counters have no event to wait for
            await asyncio.sleep(0)


async def broken(ledger: Ledger, tenant: str | None = None) -> list[str]:
    """The invariants that do not hold."""
    return [str(violation) async for violation in violations(ledger.database, now, tenant=tenant)]


async def contents(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    """Every document of the accounts, to show that something changed nothing."""
    database = ledger.database
    return {
        collection.name: sorted(await collection.find({}).to_list(None), key=lambda document: str(document["_id"]))
        for collection in (database.lots, database.redemptions, database.tombstones)
    }


async def histories(ledger: Ledger, tenant: str) -> AsyncIterator[History]:
    """Everything of each of a tenant's accounts."""
    async with aclosing(AccountPages(ledger.database).entries(tenant_range(tenant))) as pages:
        async for entries in pages:
            yield history_from(entries)
