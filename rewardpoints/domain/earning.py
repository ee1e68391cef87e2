"""Earning: what lot a completed order grants under the settings in force at its instant."""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal
from enum import StrEnum
from typing import Final

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.instants import add_months
from rewardpoints.domain.lots import MAX_POINTS, Earned, Lot, LotKind, Origin, lot_id
from rewardpoints.domain.orders import Order
from rewardpoints.domain.site_settings import Rounding, SettingsHistory

RULE: Final = "order-value"
"""Name of the one earning rule there is; a lot names it, so that another can be added without doubt about old lots."""

_ROUNDINGS: Final = {
    Rounding.FLOOR: ROUND_FLOOR,
    Rounding.HALF_UP: ROUND_HALF_UP,
    Rounding.CEILING: ROUND_CEILING,
}
# Wide enough for the product of the largest accepted value and factor: nothing is ever rounded before the rule says so.
_EXACT: Final = Context(prec=100)


class SkipReason(StrEnum):
    """Why a well-formed order earns nothing; counted, never a dead letter."""

    STATUS = "status"
    ANONYMOUS_CUSTOMER = "anonymous_customer"
    NO_SETTINGS = "no_settings"
    SITE_DISABLED = "site_disabled"
    ZERO_POINTS = "zero_points"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Skipped:
    """An order that earns nothing, and why."""

    reason: SkipReason


def points_for(value: Decimal, factor: Decimal, rounding: Rounding) -> int:
    """Whole points for an order value, exactly ``rounding(value x factor)``; both must have passed their checks."""
    return int(_EXACT.multiply(value, factor).to_integral_value(_ROUNDINGS[rounding], _EXACT))


def earn(
    order: Order, history: SettingsHistory, *, recorded_at: datetime, origin: Origin | None = None
) -> Lot | Skipped:
    """The lot an order grants, or why it grants none.

    Raises:
        RecordRejected: the order's value is missing or unusable, or grants more than a lot may hold; or the settings
            in force cannot be read.
    """
    version = history.in_force_at(order.completed_at)
    if version is None:
        return Skipped(SkipReason.NO_SETTINGS)
    if version.problem is not None:
        raise RecordRejected(
            RejectReason.UNREADABLE_SETTINGS, f"version {version.version} of the site's settings: {version.problem}"
        )
    settings = version.settings
    if not settings.enabled:
        return Skipped(SkipReason.SITE_DISABLED)
    value = order.value(settings.base)
    points = points_for(value, settings.factor, settings.rounding)
    if points == 0:
        return Skipped(SkipReason.ZERO_POINTS)
    if points > MAX_POINTS:
        raise RecordRejected(
            RejectReason.TOO_MANY_POINTS, f"the order would earn {points} points, at most {MAX_POINTS} may be"
        )
    account = account_of(order.tenant, order.customer_id)
    identity = lot_id(account, LotKind.ORDER, order.id)
    return Lot(
        id=identity,
        account=account,
        kind=LotKind.ORDER,
        source_id=order.id,
        public_id=identity,
        reference_id=order.id,
        description=settings.describe_order(order.id),
        points=points,
        remaining=points,
        created_at=order.completed_at,
        valid_until=add_months(order.completed_at, settings.validity_months, settings.zone),
        site_code=order.site_code,
        recorded_at=recorded_at,
        earned=Earned(
            rule=RULE,
            base=str(settings.base),
            factor=settings.factor,
            value=value,
            currency=order.currency,
            settings_version=version.version,
        ),
        origin=origin,
    )
