from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardpoints.domain.earning import Skipped, SkipReason, earn, points_for
from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.lots import MAX_POINTS, Lot, LotKind, lot_id
from rewardpoints.domain.orders import check_amount, check_not_ahead
from rewardpoints.domain.site_settings import OrderValueBase, Rounding, SettingsHistory
from tests.domain.builders import ACCOUNT, NOON, a_history, a_version, an_order


def earned(order_changes: dict[str, object], **settings: object) -> Lot | Skipped:
    return earn(an_order(**order_changes), a_history(**settings), recorded_at=NOON)


@pytest.mark.parametrize(
    ("total", "sub_total", "base", "points"),
    [
        ("333.92", "300", OrderValueBase.TOTAL_PRICE, 333),
        ("812.79", "820", OrderValueBase.TOTAL_PRICE, 812),
        ("333.92", "300", OrderValueBase.SUB_TOTAL_PRICE, 300),
        ("812.79", "820", OrderValueBase.SUB_TOTAL_PRICE, 820),
    ],
)
def test_the_base_of_the_site_earns(total: str, sub_total: str, base: OrderValueBase, points: int) -> None:
    lot = earned({"total_price": Decimal(total), "sub_total_price": Decimal(sub_total)}, base=base)
    assert isinstance(lot, Lot)
    assert (lot.points, lot.remaining) == (points, points)


@pytest.mark.parametrize(
    ("value", "factor", "rounding", "points"),
    [
        ("0.3", "10", Rounding.FLOOR, 3),  # 2.9999999999999996 in binary floating point
        ("1.1", "1.1", Rounding.FLOOR, 1),
        ("29.99", "0.1", Rounding.FLOOR, 2),
        ("29.99", "0.1", Rounding.CEILING, 3),
        ("25", "0.1", Rounding.HALF_UP, 3),
        ("24.9", "0.1", Rounding.HALF_UP, 2),
        ("999999999.99", "1", Rounding.FLOOR, 999_999_999),
    ],
)
def test_points_are_exact(value: str, factor: str, rounding: Rounding, points: int) -> None:
    assert points_for(Decimal(value), Decimal(factor), rounding) == points


@given(
    st.decimals(0, 10**12, allow_nan=False, allow_infinity=False, places=4),
    st.decimals(0, 10**6, allow_nan=False, allow_infinity=False, places=6),
)
def test_floor_takes_less_than_a_point_away(value: Decimal, factor: Decimal) -> None:
    points = points_for(value, factor, Rounding.FLOOR)
    scaled = int(value.scaleb(4)) * int(factor.scaleb(6))  # whole numbers: an exact reference
    assert points * 10**10 <= scaled < (points + 1) * 10**10


def test_a_lot_says_why_it_has_its_points() -> None:
    lot = earned({"id": "EON1200"}, factor=Decimal("0.5"), validity_months=12)
    assert isinstance(lot, Lot)
    assert lot.id == lot.public_id == lot_id(ACCOUNT, LotKind.ORDER, "EON1200")
    assert (lot.reference_id, lot.description) == ("EON1200", "Reward points for order EON1200")
    assert (lot.created_at, lot.valid_until) == (NOON, NOON + timedelta(days=365))
    assert lot.earned is not None
    assert (lot.earned.base, lot.earned.factor, lot.earned.value, lot.earned.currency, lot.earned.settings_version) == (
        "totalPrice",
        Decimal("0.5"),
        Decimal("333.92"),
        "EUR",
        1,
    )


@pytest.mark.parametrize(
    ("order", "settings", "reason"),
    [
        ({}, {"enabled": False}, SkipReason.SITE_DISABLED),
        ({"total_price": Decimal("0.99")}, {}, SkipReason.ZERO_POINTS),
        ({"total_price": Decimal(0)}, {}, SkipReason.ZERO_POINTS),
        ({}, {"factor": Decimal(0)}, SkipReason.ZERO_POINTS),
    ],
)
def test_what_earns_nothing_says_why(order: dict[str, object], settings: dict[str, object], reason: SkipReason) -> None:
    assert earned(order, **settings) == Skipped(reason)


def test_a_site_without_settings_earns_nothing() -> None:
    assert earn(an_order(), SettingsHistory([]), recorded_at=NOON) == Skipped(SkipReason.NO_SETTINGS)


def test_settings_that_cannot_be_read_refuse_the_order() -> None:
    unreadable = replace(a_version(1, datetime(2025, 1, 1, tzinfo=UTC)), problem="rounding: must be one of FLOOR")
    with pytest.raises(RecordRejected, match="rounding") as refusal:
        earn(an_order(), SettingsHistory([unreadable]), recorded_at=NOON)
    assert refusal.value.reason is RejectReason.UNREADABLE_SETTINGS


def test_saving_settings_again_does_not_mend_what_was_in_force_before() -> None:
    """An order keeps the version of its instant: otherwise whatever is saved next would judge it."""
    unreadable = replace(a_version(1, datetime(2025, 1, 1, tzinfo=UTC)), problem="rounding: must be one of FLOOR")
    saved_again = a_version(2, NOON + timedelta(hours=1))
    history = SettingsHistory([unreadable, saved_again])
    with pytest.raises(RecordRejected, match="version 1"):
        earn(an_order(completed_at=NOON), history, recorded_at=NOON)
    later = earn(an_order(completed_at=NOON + timedelta(hours=1)), history, recorded_at=NOON + timedelta(hours=1))
    assert isinstance(later, Lot)


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"total_price": None}, RejectReason.INVALID_AMOUNT),
        ({"total_price": Decimal(-1)}, RejectReason.INVALID_AMOUNT),
        ({"total_price": Decimal("-0.01")}, RejectReason.INVALID_AMOUNT),
        ({"total_price": Decimal("1e400")}, RejectReason.INVALID_AMOUNT),
        ({"total_price": Decimal("1e-400")}, RejectReason.INVALID_AMOUNT),
        ({"total_price": Decimal("9" * 40)}, RejectReason.INVALID_AMOUNT),
        ({"total_price": Decimal("NaN")}, RejectReason.INVALID_AMOUNT),
        ({"total_price": Decimal("-Infinity")}, RejectReason.INVALID_AMOUNT),
        ({"total_price": Decimal(MAX_POINTS + 1)}, RejectReason.TOO_MANY_POINTS),
    ],
)
def test_unusable_values_are_refused(order: dict[str, object], reason: RejectReason) -> None:
    with pytest.raises(RecordRejected) as refusal:
        earned(order)
    assert refusal.value.reason is reason


def test_the_most_a_lot_may_hold_is_earned() -> None:
    lot = earned({"total_price": Decimal(MAX_POINTS)})
    assert isinstance(lot, Lot)
    assert lot.points == MAX_POINTS


def test_only_the_base_that_earns_is_judged() -> None:
    lot = earned({"total_price": Decimal(-5), "sub_total_price": Decimal(7)}, base=OrderValueBase.SUB_TOTAL_PRICE)
    assert isinstance(lot, Lot)


@pytest.mark.parametrize("amount", ["0", "-0", "0.00", "123456789012345.123456789012345"])
def test_plain_amounts_are_accepted(amount: str) -> None:
    check_amount("totalPrice", Decimal(amount))


def test_the_version_in_force_at_the_orders_instant_counts() -> None:
    history = SettingsHistory(
        [
            a_version(1, datetime(2025, 1, 1, tzinfo=UTC), factor=Decimal(1)),
            a_version(2, datetime(2025, 6, 1, tzinfo=UTC), factor=Decimal(2)),
            a_version(3, datetime(2025, 7, 1, tzinfo=UTC), factor=Decimal(3)),
        ]
    )
    table = {
        datetime(2024, 1, 1, tzinfo=UTC): 1,  # before the first version the first counts
        datetime(2025, 1, 1, tzinfo=UTC): 1,
        datetime(2025, 5, 31, 23, 59, 59, 999_000, tzinfo=UTC): 1,
        datetime(2025, 6, 1, tzinfo=UTC): 2,
        datetime(2025, 8, 1, tzinfo=UTC): 3,
    }
    for instant, version in table.items():
        lot = earn(an_order(completed_at=instant), history, recorded_at=NOON)
        assert isinstance(lot, Lot)
        assert lot.earned is not None
        assert lot.earned.settings_version == version
        assert lot.points == points_for(Decimal("333.92"), Decimal(version), Rounding.FLOOR)


def test_origin_and_receipt_are_not_compared_but_settings_are() -> None:
    first = earn(an_order(), a_history(), recorded_at=NOON)
    later = earn(an_order(), a_history(), recorded_at=NOON + timedelta(days=1))
    other = earn(an_order(total_price=Decimal(334)), a_history(), recorded_at=NOON)
    assert isinstance(first, Lot)
    assert isinstance(later, Lot)
    assert isinstance(other, Lot)
    assert first.same_grant(later)
    assert not first.same_grant(other)


@pytest.mark.parametrize(("ahead_seconds", "refused"), [(600, False), (601, True), (-86_400 * 400, False)])
def test_orders_from_the_future_are_refused(ahead_seconds: int, refused: bool) -> None:  # noqa: FBT001 - a table's column
    instant = NOON + timedelta(seconds=ahead_seconds)
    if not refused:
        check_not_ahead(instant, NOON)
        return
    with pytest.raises(RecordRejected) as refusal:
        check_not_ahead(instant, NOON)
    assert refusal.value.reason is RejectReason.FUTURE_TIME
