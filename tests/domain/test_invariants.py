"""What is wrong with an account, what would set it right, and that it then counts as corrected."""

from datetime import timedelta
from decimal import Decimal

import pytest

from rewardpoints.domain.adjustments import Adjustment, adjusting_intent, adjusting_lot, adjustment_of
from rewardpoints.domain.chargebacks import chargeback_lot
from rewardpoints.domain.earned_lots import misearned
from rewardpoints.domain.earning import earn
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.invariants import AccountUnderTest, Correction, Invariant, Violation, broken
from rewardpoints.domain.lots import Draw, Lot, LotKind, lot_id
from rewardpoints.domain.redemptions import CouponOrder, Redemption, RedemptionState, redemption_from
from rewardpoints.domain.site_settings import DEFAULT_SITE_SETTINGS, OrderValueBase, SettingsHistory
from tests.altered import altered
from tests.domain.builders import ACCOUNT, NOON, a_history, a_lot, a_redemption, a_version, an_order

DAY = timedelta(days=1)
NOW = NOON + 10 * DAY


def an_earned_lot(**settings: object) -> Lot:
    lot = earn(an_order(), a_history(**settings), recorded_at=NOON)
    assert isinstance(lot, Lot)
    return lot


def found(lots: list[Lot], redemptions: list[Redemption] | None = None) -> list[Violation]:
    return list(broken(AccountUnderTest(ACCOUNT, lots, redemptions or [], NOW)))


def charged_back(lot: Lot, points: int) -> tuple[Redemption, Lot]:
    redemption = altered(
        a_redemption("r", [(lot, points)], at=NOON + DAY),
        state=RedemptionState.CHARGED_BACK,
        coupon=CouponOrder(code="C", option={}),
    )
    return redemption, chargeback_lot(redemption, DEFAULT_SITE_SETTINGS, at=NOON + 2 * DAY, recorded_at=NOON + 2 * DAY)


def corrections(violations: list[Violation]) -> dict[tuple[Invariant, str], int | None]:
    return {(one.invariant, one.entry): one.correction.points if one.correction else None for one in violations}


def test_where_a_lot_lost_more_than_was_drawn_the_difference_is_given_back_for_as_long_as_it_was_valid() -> None:
    lot = a_lot("a", 100, remaining=40)
    redemption = a_redemption("r", [(lot, 30)], at=NOON + DAY)
    draws, balance = found([lot], [redemption])
    assert draws.problem == f"lot {lot.id}: 60 points used, but its draws are 30"
    assert draws.correction == Correction(points=30, site_code="main", valid_until=lot.valid_until)
    assert (balance.invariant, balance.correction) == (Invariant.BALANCE, None)


def test_a_draw_that_took_nothing_is_taken() -> None:
    lot = a_lot("a", 100)
    assert corrections(found([lot], [a_redemption("r", [(lot, 30)], at=NOON + DAY)])) == {
        (Invariant.DRAWS, lot.id): -30,
        (Invariant.BALANCE, ""): None,
    }


def test_a_draw_written_twice_costs_nobody_points() -> None:
    lot = a_lot("a", 100, remaining=70)
    once = a_redemption("r", [(lot, 30)], at=NOON + DAY)
    twice = altered(once, draws=once.draws * 2)
    violations = found([lot], [twice])
    assert {one.invariant for one in violations} == {Invariant.DRAWS, Invariant.REDEMPTION, Invariant.BALANCE}
    assert all(one.correction is None for one in violations)


def test_what_has_expired_is_told_and_not_corrected() -> None:
    lot = a_lot("a", 100, remaining=40, valid_until=NOON + 2 * DAY)
    (draws,) = found([lot], [a_redemption("r", [(lot, 30)], at=NOON + DAY)])
    assert (draws.points, draws.correction) == (30, None)


def test_draws_that_are_more_or_less_than_the_points() -> None:
    lot = a_lot("a", 100, remaining=70)
    redemption = a_redemption("r", [(lot, 30)], at=NOON + DAY)
    assert corrections(found([lot], [altered(redemption, points=31)])) == {(Invariant.REDEMPTION, redemption.id): -1}
    assert corrections(found([lot], [altered(redemption, points=25)])) == {(Invariant.REDEMPTION, redemption.id): 5}


def test_a_second_chargeback_is_taken_back_and_the_first_stands() -> None:
    lot = a_lot("a", 100, remaining=70)
    redemption, back = charged_back(lot, 30)
    assert found([lot, back], [redemption]) == []
    second = altered(back, id="0" * 64, public_id="0" * 64)
    for lots in ([lot, back, second], [second, back, lot]):
        (violation,) = found(lots, [redemption])
        assert (violation.invariant, violation.entry) == (Invariant.CHARGEBACK, second.id)
        assert "a second time" in violation.problem
        assert violation.correction == Correction(points=-30, site_code="main")


def test_a_chargeback_that_never_came_is_given() -> None:
    lot = a_lot("a", 100, remaining=70)
    redemption, _ = charged_back(lot, 30)
    assert corrections(found([lot], [redemption])) == {(Invariant.CHARGEBACK, redemption.id): 30}


def test_a_chargeback_of_what_was_not_charged_back_is_taken() -> None:
    lot = a_lot("a", 100, remaining=70)
    redemption, back = charged_back(lot, 30)
    issued = altered(redemption, state=RedemptionState.ISSUED)
    assert corrections(found([lot, back], [issued])) == {(Invariant.CHARGEBACK, back.id): -30}
    assert corrections(found([lot, altered(back, points=50, remaining=50)], [redemption])) == {
        (Invariant.CHARGEBACK, back.id): -20
    }


def test_a_second_lot_of_an_order_is_taken() -> None:
    lot = an_earned_lot()
    second = altered(lot, id="0" * 64)
    assert corrections(found([lot, second])) == {(Invariant.ONE_LOT, second.id): -333}
    assert corrections(found([second])) == {(Invariant.ONE_LOT, second.id): None}  # it may be the right one


def misearnings(lot: Lot, history: SettingsHistory) -> list[Violation]:
    return list(misearned(AccountUnderTest(ACCOUNT, [lot], [], NOW), lot, history))


def test_a_lot_that_is_what_its_order_earns() -> None:
    assert misearnings(an_earned_lot(), a_history()) == []
    manual = a_lot("a", 7)
    assert misearnings(manual, a_history()) == []


def test_a_lot_with_other_points_than_its_order_earns() -> None:
    lot = altered(an_earned_lot(), points=400, remaining=400)
    (violation,) = misearnings(lot, a_history())
    assert violation.invariant is Invariant.EARNING
    assert violation.problem == f"lot {lot.id}: points 400, but should be 333"
    assert violation.correction == Correction(points=-67, site_code="main")
    fewer = altered(lot, points=300, remaining=300)
    (violation,) = misearnings(fewer, a_history())
    assert violation.correction == Correction(points=33, site_code="main", valid_until=fewer.valid_until)


def test_a_lot_that_expires_at_another_time() -> None:
    lot = an_earned_lot()
    (violation,) = misearnings(altered(lot, valid_until=lot.valid_until + DAY), a_history())
    assert "valid until" in violation.problem
    assert violation.correction is None


def test_a_lot_judged_by_another_version_than_was_in_force() -> None:
    versions = SettingsHistory(
        [a_version(1, NOON - 9 * DAY), a_version(2, NOON - DAY, factor=Decimal(2)), a_version(3, NOON + DAY)]
    )
    lot = an_earned_lot()
    (violation,) = misearnings(lot, versions)
    assert "settings version 1, but should be 2" in violation.problem
    assert violation.correction is not None
    assert violation.correction.points == 667 - 333
    recorded_late = altered(lot, recorded_at=NOON - DAY + timedelta(seconds=30))
    assert misearnings(recorded_late, versions) == [], "version 2 was saved within the clocks' difference"


def test_a_lot_by_another_base_has_no_points_to_correct() -> None:
    history = a_history(base=OrderValueBase.SUB_TOTAL_PRICE)
    (violation,) = misearnings(an_earned_lot(), history)
    assert "base totalPrice, but should be subTotalPrice" in violation.problem
    assert violation.correction is None


def test_a_lot_whose_settings_awarded_nothing_or_are_not_there() -> None:
    lot = an_earned_lot()
    (disabled,) = misearnings(lot, a_history(enabled=False))
    assert disabled.correction == Correction(points=-333, site_code="main")
    (missing,) = misearnings(lot, SettingsHistory(()))
    assert "which does not exist" in missing.problem
    (silent,) = misearnings(altered(lot, earned=None), a_history())
    assert "does not say" in silent.problem
    broken_version = altered(a_version(1, NOON - DAY), problem="factor: is missing")
    assert misearnings(lot, SettingsHistory([broken_version])) == []


def test_an_adjustment_under_the_violations_key_corrects_it_whichever_way_it_goes() -> None:
    lot = a_lot("a", 100, remaining=40)
    violation = found([lot], [a_redemption("r", [(lot, 30)], at=NOON + DAY)])[0]
    assert violation.correction is not None
    given = Adjustment(account=ACCOUNT, points=30, key=violation.key, reason="given", site_code="main")
    entry = adjusting_lot(given, DEFAULT_SITE_SETTINGS, now=NOW)
    assert entry.id == lot_id(ACCOUNT, LotKind.MANUAL, f"adjust:{violation.key}")
    assert (entry.points, entry.description, entry.public_id) == (30, "given", f"adjust:{violation.key}")
    assert adjustment_of(ACCOUNT, violation.key, [lot, entry], []) == entry
    taken = redemption_from(adjusting_intent(altered(given, points=-30)), (Draw(lot.id, 30),), NOW)
    assert (taken.points, taken.state) == (30, RedemptionState.DONE)
    assert adjustment_of(ACCOUNT, violation.key, [lot], [taken]) == taken
    assert adjustment_of(ACCOUNT, "another", [lot, entry], [taken]) is None


def test_a_violation_keeps_its_key_when_its_points_expire_and_changes_it_when_they_change() -> None:
    lot = a_lot("a", 100, remaining=40)
    redemption = a_redemption("r", [(lot, 30)], at=NOON + DAY)
    first = found([lot], [redemption])[0]
    later = next(iter(broken(AccountUnderTest(ACCOUNT, [lot], [redemption], lot.valid_until))))
    assert later.correction is None
    assert later.key == first.key
    worse = found([altered(lot, remaining=39)], [redemption])[0]
    assert worse.key != first.key


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"points": 0}, "points"),
        ({"points": 1_000_000_001}, "points"),
        ({"points": -1_000_000_001}, "points"),
        ({"key": ""}, "key"),
        ({"key": "a\x00b"}, "key"),
        ({"reason": " "}, "reason"),
        ({"site_code": ""}, "site"),
        ({"points": -1, "valid_until": NOW}, "validUntil"),
    ],
)
def test_an_adjustment_that_cannot_be(changes: dict[str, object], field: str) -> None:
    fields: dict[str, object] = {"account": ACCOUNT, "points": 1, "key": "k", "reason": "r", "site_code": "main"}
    with pytest.raises(InvalidInput) as refused:
        Adjustment(**(fields | changes))  # type: ignore[arg-type]  # fields of several types in one mapping
    assert refused.value.field == field
