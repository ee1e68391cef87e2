from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardpoints.domain.explanation import MomentKind, explain
from rewardpoints.domain.history import History, balance_at
from rewardpoints.domain.liability import Flows, Liability, PeriodLength
from rewardpoints.domain.lots import LotKind
from tests.altered import altered
from tests.domain.builders import ACCOUNT, NOON, a_lot, a_redemption
from tests.domain.played import operations, played

DAY = timedelta(days=1)


def report(history: History, at: datetime, **options: object) -> Liability:
    liability = Liability(at, **options)  # type: ignore[arg-type]  # options of several types
    liability.add(history)
    return liability


def test_each_period_and_the_points_outstanding() -> None:
    order = altered(a_lot("o", 100, at=datetime(2025, 1, 31, 23, tzinfo=UTC)), kind=LotKind.ORDER)
    order = altered(order, valid_until=datetime(2025, 12, 1, tzinfo=UTC))
    back = altered(a_lot("c", 20, at=datetime(2025, 3, 1, tzinfo=UTC)), kind=LotKind.CHARGEBACK)
    by_hand = a_lot("m", 7, at=datetime(2025, 3, 2, tzinfo=UTC), valid_until=datetime(2025, 4, 1, tzinfo=UTC))
    spent = a_redemption("r", [(order, 30), (by_hand, 2)], at=datetime(2025, 3, 31, tzinfo=UTC))
    history = History(ACCOUNT, [order, back, by_hand], [spent])
    liability = report(history, NOON)  # 10 June
    assert liability.flows == {
        "2025-01": Flows(earned=100),
        "2025-03": Flows(given=7, given_back=20, redeemed=32),
        "2025-04": Flows(expired=5, ended=7),
        "2025-12": Flows(expiring=70),
        "2026-03": Flows(expiring=20),
    }
    assert (liability.outstanding, liability.accounts, liability.entries) == (90, 1, 4)
    assert [(row.period, row.outstanding) for row in liability.rows()] == [
        ("2025-01", 100),
        ("2025-03", 95),
        ("2025-04", 90),
        ("2025-12", None),
        ("2026-03", None),
    ]
    assert liability.breakage == Decimal("0.7143")
    assert report(history, NOON - 365 * DAY).breakage is None
    assert set(report(history, NOON, by=PeriodLength.QUARTER).flows) == {"2025-Q1", "2025-Q2", "2025-Q4", "2026-Q1"}
    assert set(report(history, NOON, by=PeriodLength.YEAR).flows) == {"2025", "2026"}


def test_an_import_that_had_expired_expires_when_it_comes() -> None:
    gone = a_lot("a", 10, at=NOON, valid_until=NOON - 90 * DAY)
    assert report(History(ACCOUNT, [gone], []), NOON + DAY).flows == {"2025-06": Flows(given=10, expired=10, ended=10)}


def test_what_a_redemption_takes_counts_for_the_lots_site() -> None:
    here, there = a_lot("a", 10), altered(a_lot("b", 10), site_code="other")
    history = History(ACCOUNT, [here, there], [a_redemption("r", [(here, 10), (there, 3)], at=NOON + DAY)])
    at = NOON + 2 * DAY
    assert [report(history, at, site_code=site).outstanding for site in ("main", "other", None)] == [0, 7, 7]
    assert report(history, at, site_code="other").flows["2025-06"] == Flows(given=10, redeemed=3)


@pytest.mark.parametrize(
    ("instant", "month", "quarter"),
    [
        (datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC), "2025-12", "2025-Q4"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01", "2026-Q1"),
        (datetime(2026, 3, 31, tzinfo=UTC), "2026-03", "2026-Q1"),
        (datetime(2026, 4, 1, 1, tzinfo=UTC), "2026-04", "2026-Q2"),
        (datetime.fromisoformat("2026-04-01T01:00:00+02:00"), "2026-03", "2026-Q1"),
    ],
)
def test_periods_are_of_utc(instant: datetime, month: str, quarter: str) -> None:
    assert (PeriodLength.MONTH.of(instant), PeriodLength.QUARTER.of(instant)) == (month, quarter)


@given(operations, st.integers(-100, 700), st.sampled_from(PeriodLength))
def test_it_agrees_with_the_fold_at_every_instant(
    script: list[tuple[str, int, int, int]], hours: int, by: PeriodLength
) -> None:
    history = played(script)
    lots = [altered(lot, site_code="odd" if lot.points % 2 else "even") for lot in history.lots]
    history = History(ACCOUNT, lots, history.redemptions)
    at = NOON + timedelta(hours=hours)
    liability = report(history, at, by=by)
    assert liability.outstanding == balance_at(history.lots, history.redemptions, at)
    flows = liability.flows.values()
    assert sum(one.net for one in flows) == liability.outstanding == sum(one.expiring for one in flows)
    assert all(value >= 0 for one in flows for value in (one.earned, one.redeemed, one.expired, one.ended))
    if liability.breakage is not None:
        assert 0 <= liability.breakage <= 1
    sites = [report(history, at, by=by, site_code=site) for site in ("odd", "even")]
    assert sum(one.outstanding for one in sites) == liability.outstanding

    expected: dict[str, Flows] = {}
    explained = explain(history, at)
    for moment in explained.timeline:
        period = expected.setdefault(by.of(moment.at), Flows())
        if moment.kind is MomentKind.ADDED:
            period.given += moment.change
        elif moment.kind is MomentKind.REDEEMED:
            period.redeemed -= moment.change
        else:
            period.expired -= moment.change
    for expiry in explained.expiries:
        expected.setdefault(by.of(expiry.at), Flows()).expiring += expiry.points
    shown = {period: (one.given, one.redeemed, one.expired, one.expiring) for period, one in expected.items()}
    gone = {lot.id for lot in lots if lot.valid_until <= lot.created_at}  # the timeline has them come with nothing
    if not gone:
        assert {
            period: figures
            for period, one in liability.flows.items()
            if any(figures := (one.given, one.redeemed, one.expired, one.expiring))
        } == {period: figures for period, figures in shown.items() if any(figures)}
