from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from rewardpoints.domain.errors import TooFewPoints
from rewardpoints.domain.history import History, balance_at, fold, summarize
from rewardpoints.domain.lots import Lot, active_points, drawn, plan_draws
from rewardpoints.domain.redemptions import Redemption
from tests.domain.builders import ACCOUNT, NOON, a_lot, a_redemption

DAY = timedelta(days=1)


def after(lots: list[Lot], redemptions: list[Redemption]) -> list[int]:
    return [step.balance_after for step in fold(lots, redemptions)]


def test_each_entry_shows_the_balance_right_after_it() -> None:
    first = a_lot("a", 209, remaining=0, at=NOON)
    second = a_lot("b", 209, remaining=68, at=NOON + DAY)
    spent = a_redemption("r", [(first, 209), (second, 141)], at=NOON + 2 * DAY)
    third = a_lot("c", 5, at=NOON + 3 * DAY)
    assert after([third, second, first], [spent]) == [209, 418, 68, 73]


def test_a_lot_that_arrived_late_stands_before_its_first_draw() -> None:
    early = a_lot("a", 10, remaining=5, at=NOON + 5 * DAY)  # its clock was ahead
    spent = a_redemption("r", [(early, 5)], at=NOON)
    steps = fold([early], [spent])
    assert [(type(step.entry), step.at, step.balance_after) for step in steps] == [
        (Lot, NOON, 10),
        (Redemption, NOON, 5),
    ]


def test_points_expire_before_an_entry_of_the_same_instant() -> None:
    old = a_lot("a", 10, remaining=7, at=NOON, valid_until=NOON + 2 * DAY)
    spent = a_redemption("r", [(old, 3)], at=NOON + DAY)
    new = a_lot("b", 1, at=NOON + 2 * DAY)
    assert after([old, new], [spent]) == [10, 7, 1]


def test_an_import_that_has_expired_counts_nothing() -> None:
    gone = a_lot("a", 10, at=NOON, valid_until=NOON - DAY)
    assert after([gone], []) == [0]


def test_balances_of_the_past() -> None:
    lot = a_lot("a", 10, remaining=4, at=NOON, valid_until=NOON + 3 * DAY)
    spent = a_redemption("r", [(lot, 6)], at=NOON + DAY)
    instants = [NOON - DAY, NOON, NOON + DAY, NOON + 3 * DAY - timedelta(milliseconds=1), NOON + 3 * DAY]
    assert [balance_at([lot], [spent], instant) for instant in instants] == [0, 10, 4, 4, 0]


def test_a_summary_names_the_redemptions_that_used_a_lot() -> None:
    lot = a_lot("a", 10, remaining=1, at=NOON)
    redemptions = [a_redemption("r2", [(lot, 4)], at=NOON + 2 * DAY), a_redemption("r1", [(lot, 5)], at=NOON + DAY)]
    summary = summarize(History(ACCOUNT, [lot], redemptions), NOON + 3 * DAY)
    assert summary.active_points == 1
    assert [(added.lot.public_id, added.balance_after, added.used_with) for added in summary.added] == [
        ("a", 10, ("r1", "r2"))
    ]
    assert [(entry.redemption.public_id, entry.balance_after) for entry in summary.redeemed] == [("r1", 5), ("r2", 1)]


operations = st.lists(
    st.one_of(
        st.tuples(st.just("earn"), st.integers(1, 40), st.integers(-4, 2), st.integers(1, 12)),
        st.tuples(st.just("redeem"), st.integers(1, 60), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@given(operations)
def test_the_fold_agrees_with_the_ledger_at_every_step(script: list[tuple[str, int, int, int]]) -> None:
    """A ledger played hour by hour, orders arriving late or early: its balance is the fold's, now and in the past."""
    lots: dict[str, Lot] = {}
    redemptions: list[Redemption] = []
    for hour, (kind, points, shift_days, valid_days) in enumerate(script):
        now = NOON + hour * timedelta(hours=7)
        if kind == "earn":
            at = now + shift_days * DAY
            lot = a_lot(str(hour), points, at=at, valid_until=at + valid_days * DAY)
            lots[lot.id] = lot
        else:
            try:
                draws = plan_draws(list(lots.values()), points, now)
            except TooFewPoints:
                continue
            redemptions.append(a_redemption(str(hour), [(lots[draw.lot], draw.points) for draw in draws], at=now))
            for draw in draws:
                lots[draw.lot] = drawn(lots[draw.lot], draw)
        latest = max([now, *(lot.created_at for lot in lots.values())])
        assert balance_at(lots.values(), redemptions, latest) == active_points(lots.values(), latest)
    steps = fold(lots.values(), redemptions)
    assert all(step.balance_after >= 0 for step in steps)
    for index, step in enumerate(steps):
        if index + 1 == len(steps) or steps[index + 1].at != step.at:
            assert step.balance_after == balance_at(lots.values(), redemptions, step.at)
    assert [step.at for step in steps] == sorted(step.at for step in steps)
