"""Charts: their marks stand where the figures are."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from rewardpoints.console.charts import BAR_WIDTH, BOTTOM, LEFT, RIGHT, TOP, balance_chart, expiry_chart, lot_bar
from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.explanation import ExplainedLot, explain
from rewardpoints.domain.history import History
from rewardpoints.domain.liability import Liability
from tests.domain.builders import a_lot, a_redemption

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ACCOUNT = account_of("shop", "C1")


def heights(path: str) -> list[float]:
    return [float(y) for y in re.findall(r"V([\d.]+)", path)]


def test_a_line_steps_where_the_balance_changes() -> None:
    first = a_lot("1", 100, at=NOW - timedelta(days=30), valid_until=NOW + timedelta(days=30))
    second = a_lot("2", 300, at=NOW - timedelta(days=10), valid_until=NOW + timedelta(days=10))
    chart = balance_chart(explain(History(ACCOUNT, [first, second], []), NOW))
    assert chart is not None
    scale = (BOTTOM - TOP) / 400
    assert heights(chart.past) == pytest.approx([BOTTOM - 100 * scale, BOTTOM - 400 * scale], abs=0.01)
    assert heights(chart.ahead) == pytest.approx([BOTTOM - 100 * scale, BOTTOM], abs=0.01)
    assert chart.past.startswith(f"M{LEFT:.2f} {BOTTOM:.2f}")
    assert chart.now == pytest.approx((LEFT + RIGHT) / 2)
    assert chart.ahead.endswith(f"H{RIGHT:.2f}")
    assert [tick.label for tick in chart.up] == ["0", "100", "200", "300", "400"]
    assert chart.across[0].label == "2026-10-22"
    assert chart.across[-1].label == "2026-12-21"


def test_an_account_without_entries_has_no_chart() -> None:
    assert balance_chart(explain(History(ACCOUNT, [], []), NOW)) is None


@pytest.mark.parametrize("points", [0, 1, 3, 7, 999, 1_000_000_000])
def test_every_balance_lies_within_the_chart(points: int) -> None:
    lot = a_lot("1", points, at=NOW, valid_until=NOW + timedelta(days=1))
    chart = balance_chart(explain(History(ACCOUNT, [lot], []), NOW))
    assert chart is not None
    assert all(TOP <= y <= BOTTOM for y in heights(chart.past))
    assert 2 <= len(chart.up) <= 6


def test_a_long_history_makes_no_longer_path_than_can_be_seen() -> None:
    lots = [
        a_lot(str(number), 1, at=NOW - timedelta(minutes=number), valid_until=NOW + timedelta(days=1))
        for number in range(20_000)
    ]
    chart = balance_chart(explain(History(ACCOUNT, lots, []), NOW))
    assert chart is not None
    rising = heights(chart.past)
    assert 2000 < len(rising) < 2600
    assert rising == sorted(rising, reverse=True)
    assert rising[-1] == TOP


def bar(points: int, *, used: int, at: datetime = NOW) -> ExplainedLot:
    lot = a_lot("1", points, at=NOW - timedelta(days=2), valid_until=NOW + timedelta(days=1))
    redemptions = [a_redemption("r", [(lot, used)], at=NOW - timedelta(days=1))] if used else []
    return explain(History(ACCOUNT, [lot], redemptions), at).lots[0]


def test_a_bar_shows_what_is_used_remains_and_has_expired() -> None:
    assert [(one.kind, one.width) for one in lot_bar(bar(100, used=25), 100)] == [("used", 25), ("remaining", 75)]
    expired = lot_bar(bar(100, used=25, at=NOW + timedelta(days=2)), 200)
    assert [(one.kind, one.at, one.width) for one in expired] == [("used", 0, 12.5), ("expired", 12.5, 37.5)]
    assert sum(one.width for one in lot_bar(bar(1, used=0), 1_000_000)) == 4
    assert sum(one.width for one in lot_bar(bar(5, used=5), 5)) == BAR_WIDTH
    assert lot_bar(bar(0, used=0), 0) == []


def test_columns_are_as_high_as_what_expires() -> None:
    report = Liability(at=NOW)
    lots = [
        a_lot(str(months), 100 * months, at=NOW, valid_until=NOW + timedelta(days=31 * months))
        for months in range(1, 31)
    ]
    report.add(History(ACCOUNT, lots, []))
    chart = expiry_chart(report)
    assert chart is not None
    assert sum(one.points for one in chart.columns) == report.outstanding
    assert chart.columns[0].period == "2026-12"
    scale = chart.columns[-1].height / chart.columns[-1].points
    assert all(one.height == pytest.approx(one.points * scale, abs=0.02) for one in chart.columns)
    assert all(one.top >= TOP and one.at >= LEFT and one.at + one.width <= RIGHT for one in chart.columns)
    assert 0 < sum(bool(one.label) for one in chart.columns) <= 12


def test_nothing_outstanding_has_no_columns() -> None:
    assert expiry_chart(Liability(at=NOW)) is None
