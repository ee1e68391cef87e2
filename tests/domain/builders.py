"""Lots, orders and settings with the fields a test does not care about filled in."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from rewardpoints.domain.accounts import account_of, entry_id
from rewardpoints.domain.lots import Draw, Lot, LotKind, lot_id
from rewardpoints.domain.orders import Order
from rewardpoints.domain.redemptions import Redemption, RedemptionState
from rewardpoints.domain.site_settings import SettingsHistory, SettingsVersion, SiteSettings

NOON = datetime(2025, 6, 10, 12, tzinfo=UTC)
ACCOUNT = account_of("shop", "c1")


def a_lot(
    source_id: str,
    points: int,
    *,
    remaining: int | None = None,
    at: datetime = NOON,
    valid_until: datetime | None = None,
) -> Lot:
    identity = lot_id(ACCOUNT, LotKind.MANUAL, source_id)
    return Lot(
        id=identity,
        account=ACCOUNT,
        kind=LotKind.MANUAL,
        source_id=source_id,
        public_id=source_id,
        reference_id=None,
        description="",
        points=points,
        remaining=points if remaining is None else remaining,
        created_at=at,
        valid_until=valid_until or at + timedelta(days=365),
        site_code="main",
        recorded_at=at,
    )


def a_redemption(source_id: str, draws: list[tuple[Lot, int]], *, at: datetime) -> Redemption:
    return Redemption(
        id=entry_id(ACCOUNT, "redemption", source_id),
        public_id=source_id,
        account=ACCOUNT,
        points=sum(points for _, points in draws),
        draws=tuple(Draw(lot.id, points) for lot, points in draws),
        description="",
        site_code="main",
        created_at=at,
        state=RedemptionState.DONE,
        fingerprint="",
    )


def an_order(**changes: Any) -> Order:
    fields: dict[str, Any] = {
        "tenant": "shop",
        "id": "o1",
        "customer_id": "c1",
        "site_code": "main",
        "completed_at": NOON,
        "total_price": Decimal("333.92"),
        "sub_total_price": Decimal(300),
        "currency": "EUR",
    }
    return Order(**(fields | changes))


def a_version(number: int, effective_at: datetime, **settings: Any) -> SettingsVersion:
    return SettingsVersion(
        tenant="shop",
        site_code="main",
        version=number,
        saved_at=effective_at,
        effective_at=effective_at,
        settings=SiteSettings(**settings),
        content={},
    )


def a_history(**settings: Any) -> SettingsHistory:
    return SettingsHistory([a_version(1, datetime(2020, 1, 1, tzinfo=UTC), **settings)])
