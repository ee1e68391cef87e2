"""Earned lots judged afterwards: whether an order's lot is what the order earns."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from rewardpoints.domain.accounts import customer_of, tenant_of
from rewardpoints.domain.earning import Skipped, earn
from rewardpoints.domain.errors import RecordRejected
from rewardpoints.domain.invariants import AccountUnderTest, Invariant, Violation
from rewardpoints.domain.lots import Earned, Lot, LotKind
from rewardpoints.domain.orders import Order
from rewardpoints.domain.site_settings import SettingsHistory, SettingsVersion

CLOCKS_DIFFER: Final = timedelta(minutes=1)
"""A version saved this shortly before a lot was recorded need not have been seen by whoever recorded it."""


def misearned(case: AccountUnderTest, lot: Lot, history: SettingsHistory) -> Iterator[Violation]:
    """What is wrong with an order's lot by what it says of its order and by its site's settings; nothing for others."""
    if lot.kind is not LotKind.ORDER:
        return
    name, earned = f"lot {lot.id}", lot.earned
    if earned is None:
        yield case.violation(Invariant.EARNING, lot.id, f"{name}: does not say what it was earned with")
        return
    named = next((version for version in history.versions if version.version == earned.settings_version), None)
    if named is None:
        problem = f"{name}: names version {earned.settings_version} of the settings of site {lot.site_code!r}"
        yield case.violation(Invariant.EARNING, lot.id, f"{problem}, which does not exist")
        return
    in_force = history.in_force_at(lot.created_at) or named
    late = in_force.version > named.version and in_force.saved_at + CLOCKS_DIFFER >= lot.recorded_at
    judge = named if late else in_force
    if judge.problem is not None:
        return  # nobody can say what it awarded
    yield from _compared(case, lot, earned, judge)


def _compared(case: AccountUnderTest, lot: Lot, earned: Earned, judge: SettingsVersion) -> Iterator[Violation]:
    name = f"lot {lot.id}"
    try:
        right = earn(_order_of(lot, earned), SettingsHistory([judge]), recorded_at=lot.recorded_at)
    except RecordRejected as error:
        yield case.violation(Invariant.EARNING, lot.id, f"{name}: its order would be refused ({error})")
        return
    if isinstance(right, Skipped) or right.earned is None:
        reason = right.reason.value if isinstance(right, Skipped) else "none"
        problem = f"{name}: has {lot.points} points, but its order earns nothing ({reason})"
        yield case.violation(Invariant.EARNING, lot.id, problem, points=-lot.points, lot=lot)
        return
    differing = [
        f"{what} {is_now}, but should be {should}"
        for what, is_now, should in (
            ("settings version", earned.settings_version, judge.version),
            ("rule", earned.rule, right.earned.rule),
            ("base", earned.base, right.earned.base),
            ("factor", earned.factor, right.earned.factor),
            ("points", lot.points, right.points),
            ("valid until", lot.valid_until.isoformat(), right.valid_until.isoformat()),
        )
        if is_now != should
    ]
    if differing:
        # By another base the order's value is not known, and so nobody can say from here what it should have earned
        points = right.points - lot.points if earned.base == right.earned.base else 0
        yield case.violation(Invariant.EARNING, lot.id, f"{name}: {'; '.join(differing)}", points=points, lot=lot)


def _order_of(lot: Lot, earned: Earned) -> Order:
    return Order(
        tenant=tenant_of(lot.account),
        id=lot.source_id,
        customer_id=customer_of(lot.account),
        site_code=lot.site_code,
        completed_at=lot.created_at,
        total_price=earned.value,
        sub_total_price=earned.value,
        currency=earned.currency,
    )
