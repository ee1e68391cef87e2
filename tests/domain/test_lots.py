from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardpoints.domain.errors import TooFewPoints, TooManyLots
from rewardpoints.domain.lots import (
    MAX_LOTS_PER_REDEMPTION,
    Draw,
    Earned,
    Lot,
    LotKind,
    Origin,
    active_points,
    drawn,
    plan_draws,
    spend_order,
)
from tests.altered import altered
from tests.domain.builders import NOON, a_lot

DAY = timedelta(days=1)


def test_what_expires_first_is_spent_first() -> None:
    late = a_lot("late", 10, valid_until=NOON + 3 * DAY)
    soon = a_lot("soon", 10, valid_until=NOON + DAY)
    older = a_lot("older", 10, at=NOON - DAY, valid_until=NOON + 2 * DAY)
    newer = a_lot("newer", 10, at=NOON, valid_until=NOON + 2 * DAY)
    assert plan_draws([late, newer, soon, older], 35, NOON) == (
        Draw(soon.id, 10),
        Draw(older.id, 10),
        Draw(newer.id, 10),
        Draw(late.id, 5),
    )


@pytest.mark.parametrize(("milliseconds", "balance"), [(-1, 0), (0, 0), (1, 10)])
def test_points_expire_exactly_at_their_instant(milliseconds: int, balance: int) -> None:
    lot = a_lot("a", 10, at=NOON - DAY, valid_until=NOON + timedelta(milliseconds=milliseconds))
    assert active_points([lot], NOON) == balance
    if balance:
        assert plan_draws([lot], 10, NOON) == (Draw(lot.id, 10),)
    else:
        with pytest.raises(TooFewPoints):
            plan_draws([lot], 1, NOON)


def test_too_few_points_says_how_many_there_are() -> None:
    with pytest.raises(TooFewPoints) as refusal:
        plan_draws([a_lot("a", 10, remaining=4), a_lot("b", 3, remaining=0)], 5, NOON)
    assert (refusal.value.wanted, refusal.value.available) == (5, 4)


def test_a_redemption_draws_on_a_bounded_number_of_lots() -> None:
    lots = [a_lot(str(number), 1) for number in range(MAX_LOTS_PER_REDEMPTION + 1)]
    assert len(plan_draws(lots, MAX_LOTS_PER_REDEMPTION, NOON)) == MAX_LOTS_PER_REDEMPTION
    with pytest.raises(TooManyLots):
        plan_draws(lots, MAX_LOTS_PER_REDEMPTION + 1, NOON)


@pytest.mark.parametrize("points", [0, -1])
def test_a_redemption_takes_something(points: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        plan_draws([a_lot("a", 10)], points, NOON)


lot_shapes = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(-3, 5)).map(lambda t: (t[0], min(t[0], t[1]), t[2])),
    max_size=12,
)


def lots_of(shapes: list[tuple[int, int, int]]) -> list[Lot]:
    return [
        a_lot(str(number), points, remaining=remaining, at=NOON - 9 * DAY, valid_until=NOON + days * DAY)
        for number, (points, remaining, days) in enumerate(shapes)
    ]


@given(lot_shapes, st.integers(1, 300))
def test_draws_spend_exactly_what_is_asked_or_refuse(shapes: list[tuple[int, int, int]], points: int) -> None:
    lots = lots_of(shapes)
    by_id = {lot.id: lot for lot in lots}
    available = active_points(lots, NOON)
    if points > available:
        with pytest.raises(TooFewPoints):
            plan_draws(lots, points, NOON)
        return
    draws = plan_draws(lots, points, NOON)
    assert sum(draw.points for draw in draws) == points
    after = {**by_id, **{draw.lot: drawn(by_id[draw.lot], draw) for draw in draws}}
    assert all(0 <= lot.remaining <= lot.points for lot in after.values())
    assert active_points(after.values(), NOON) == available - points
    # nothing that expires earlier is left while something later was drawn
    last = max(spend_order(by_id[draw.lot]) for draw in draws)
    assert all(not lot.open for lot in after.values() if lot.is_valid_at(NOON) and spend_order(lot) < last)


@pytest.mark.parametrize("points", [0, -1, 5])
def test_a_lot_gives_no_more_than_it_has(points: int) -> None:
    lot = a_lot("a", 10, remaining=4)
    with pytest.raises(ValueError, match="cannot be taken"):
        drawn(lot, Draw(lot.id, points))


def test_a_draw_is_taken_from_its_own_lot() -> None:
    with pytest.raises(ValueError, match="cannot be taken"):
        drawn(a_lot("a", 10), Draw(a_lot("b", 10).id, 1))


OTHERS: dict[str, Any] = {
    **dict.fromkeys(("id", "account", "source_id", "public_id", "reference_id", "description", "site_code"), "other"),
    **dict.fromkeys(("points", "remaining"), 7),
    **dict.fromkeys(("created_at", "valid_until"), NOON + 9 * DAY),
    "kind": LotKind.CHARGEBACK,
    "earned": Earned(rule="r", base="b", factor=Decimal(1), value=Decimal(1), currency=None, settings_version=1),
}
NOT_COMPARED: dict[str, Any] = {
    "recorded_at": NOON + 9 * DAY,
    "origin": Origin(topic="t", partition=0, offset=1),
    "fingerprint": "other",
}


def test_lots_are_equal_where_all_but_how_they_came_is() -> None:
    lot = a_lot("a", 10)
    assert {*OTHERS, *NOT_COMPARED} == set(Lot.__struct_fields__)
    for field, other in OTHERS.items():
        changed = altered(lot, **{field: other})
        assert changed != lot, field
        assert not changed == lot, field  # noqa: SIM201 - both are asked
    same = altered(lot, **NOT_COMPARED)
    assert same == lot
    assert not same != lot  # noqa: SIM202 - both are asked
    assert hash(same) == hash(lot)
