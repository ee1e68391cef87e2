from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from rewardpoints.domain.explanation import LotState, MomentKind, explain, timeline
from rewardpoints.domain.history import History, balance_at, fold
from tests.domain.builders import ACCOUNT, NOON, a_lot, a_redemption
from tests.domain.played import operations, played

DAY = timedelta(days=1)
MILLISECOND = timedelta(milliseconds=1)

first = a_lot("a", 209, remaining=0, at=NOON, valid_until=NOON + 30 * DAY)
second = a_lot("b", 209, remaining=68, at=NOON + DAY, valid_until=NOON + 40 * DAY)
third = a_lot("c", 141, at=NOON + 3 * DAY, valid_until=NOON + 41 * DAY)
fourth = a_lot("d", 7, at=NOON + 4 * DAY, valid_until=NOON + 6 * DAY)
spent = a_redemption("r", [(first, 209), (second, 141)], at=NOON + 2 * DAY)
history = History(ACCOUNT, [third, second, fourth, first], [spent])


def test_the_timeline_names_every_moment_with_its_change_and_the_balance_after_it() -> None:
    assert [(one.at - NOON, one.kind, one.entry.public_id, one.change, one.balance) for one in timeline(history)] == [
        (0 * DAY, MomentKind.ADDED, "a", 209, 209),
        (1 * DAY, MomentKind.ADDED, "b", 209, 418),
        (2 * DAY, MomentKind.REDEEMED, "r", -350, 68),
        (3 * DAY, MomentKind.ADDED, "c", 141, 209),
        (4 * DAY, MomentKind.ADDED, "d", 7, 216),
        (6 * DAY, MomentKind.EXPIRED, "d", -7, 209),
        (40 * DAY, MomentKind.EXPIRED, "b", -68, 141),
        (41 * DAY, MomentKind.EXPIRED, "c", -141, 0),
    ]


def test_why_209_points_and_when_they_expire() -> None:
    now = NOON + 10 * DAY
    explained = explain(history, now)
    assert (explained.balance, explained.at) == (209, now)
    assert [(expiry.at, expiry.points, expiry.balance_after) for expiry in explained.expiries] == [
        (NOON + 40 * DAY, 68, 141),
        (NOON + 41 * DAY, 141, 0),
    ]
    assert [lot.public_id for expiry in explained.expiries for lot in expiry.lots] == ["b", "c"]
    assert [(one.lot.public_id, one.state, one.remaining, one.expired) for one in explained.lots] == [
        ("b", LotState.OPEN, 68, 0),
        ("c", LotState.OPEN, 141, 0),
        ("d", LotState.EXPIRED, 0, 7),
        ("a", LotState.USED_UP, 0, 0),
    ]
    assert [(draw.redemption, draw.points) for draw in explained.lots[0].draws] == [(spent, 141)]
    assert explained.timeline[-1].balance == 209


def test_what_expires_at_one_instant_is_one_expiry() -> None:
    lots = [a_lot(name, 5, valid_until=NOON + DAY) for name in "ab"]
    (expiry,) = explain(History(ACCOUNT, lots, []), NOON).expiries
    assert (expiry.points, expiry.balance_after, len(expiry.lots)) == (10, 0, 2)


def test_the_account_as_it_was() -> None:
    before = explain(history, NOON + 2 * DAY - MILLISECOND)
    assert before.balance == 418
    assert [(one.lot.public_id, one.remaining, one.draws) for one in before.lots] == [("a", 209, ()), ("b", 209, ())]
    assert [(expiry.points, expiry.balance_after) for expiry in before.expiries] == [(209, 209), (209, 0)]
    nothing = explain(history, NOON - DAY)
    assert (nothing.balance, nothing.timeline, nothing.lots, nothing.expiries) == (0, (), (), ())


def test_an_import_that_had_expired_already_is_shown_and_counts_nothing() -> None:
    gone = a_lot("a", 10, at=NOON, valid_until=NOON - DAY)
    explained = explain(History(ACCOUNT, [gone], []), NOON + DAY)
    assert [(one.kind, one.change, one.balance) for one in explained.timeline] == [(MomentKind.ADDED, 0, 0)]
    assert [(one.state, one.expired) for one in explained.lots] == [(LotState.EXPIRED, 10)]


@given(operations, st.integers(-100, 700))
def test_at_every_instant_all_of_it_agrees_with_the_fold(script: list[tuple[str, int, int, int]], hours: int) -> None:
    account = played(script)
    at = NOON + timedelta(hours=hours)
    balance = balance_at(account.lots, account.redemptions, at)
    explained = explain(account, at)
    assert explained.balance == balance
    assert sum(moment.change for moment in explained.timeline) == balance
    assert (explained.timeline[-1].balance if explained.timeline else 0) == balance
    assert sum(expiry.points for expiry in explained.expiries) == balance
    assert all(expiry.at > at for expiry in explained.expiries)
    if explained.expiries:
        assert explained.expiries[-1].balance_after == 0
    for one in explained.lots:
        assert one.lot.points == one.remaining + one.expired + sum(draw.points for draw in one.draws)


@given(operations)
def test_the_moments_that_are_entries_are_the_folds_steps(script: list[tuple[str, int, int, int]]) -> None:
    account = played(script)
    moments = list(timeline(account))
    entries = [(one.at, one.entry, one.balance) for one in moments if one.kind is not MomentKind.EXPIRED]
    assert entries == [(step.at, step.entry, step.balance_after) for step in fold(account.lots, account.redemptions)]
    assert [one.at for one in moments] == sorted(one.at for one in moments)
    assert (moments[-1].balance if moments else 0) == 0, "in the end everything is spent or expired"
