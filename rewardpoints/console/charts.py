"""Charts: where the marks of a chart stand, in the units of its view box. The templates draw them as SVG."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from rewardpoints.domain.explanation import ExplainedLot, Explanation
from rewardpoints.domain.liability import Liability

WIDTH: Final = 720.0
HEIGHT: Final = 240.0
LEFT: Final = 64.0
RIGHT: Final = 708.0
TOP: Final = 14.0
BOTTOM: Final = 208.0
MOST_TICKS: Final = 5
MOST_LABELS: Final = 9
FINEST_STEP: Final = 0.25
"""Steps of a line that are nearer to each other than this are one."""

BAR_WIDTH: Final = 100.0
LEAST_BAR: Final = 4.0
"""A lot's bar is never shorter, however small the lot beside the largest."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceChart:
    """A balance as a line of steps: as it was, and as it will be when nothing is earned or spent any more."""

    past: str
    ahead: str
    now: float
    across: Sequence[Tick]
    up: Sequence[Tick]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a lot's bar; ``kind`` is ``used``, ``remaining`` or ``expired``."""

    kind: str
    at: float
    width: float


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a chart, and its label where there is room for one."""

    at: float
    top: float
    width: float
    height: float
    period: str
    points: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnChart:
    """Points by period."""

    columns: Sequence[Column]
    up: Sequence[Tick]


def balance_chart(explanation: Explanation) -> BalanceChart | None:
    """The chart of an account; None where nothing has happened on it."""
    if not explanation.timeline:
        return None
    now = explanation.at
    past = [(moment.at, moment.balance) for moment in explanation.timeline]
    ahead = [(one.at, one.balance_after) for one in explanation.expiries]
    begin = past[0][0]
    end = max(now, ahead[-1][0] if ahead else now)
    if end - begin < timedelta(hours=1):
        begin = end - timedelta(hours=1)
    most = max(balance for _, balance in past)
    top = _ticks(most)[-1]

    def across(instant: datetime) -> float:
        return LEFT + (RIGHT - LEFT) * ((instant - begin) / (end - begin))

    def up(points: int) -> float:
        return BOTTOM - (BOTTOM - TOP) * (points / top)

    line = [(across(at), up(points)) for at, points in past]
    coming = [(across(at), up(points)) for at, points in ahead]
    return BalanceChart(
        past=_steps((line[0][0], BOTTOM), line, across(now)),
        ahead=_steps((across(now), line[-1][1]), coming, across(end)) if coming else "",
        now=round(across(now), 2),
        across=_instants(begin, end, across),
        up=[Tick(round(up(value), 2), f"{value:,}") for value in _ticks(most)],
    )


def lot_bar(lot: ExplainedLot, largest: int) -> list[Segment]:
    """What of a lot is used, remains and has expired, as long as its share of the largest lot."""
    if not lot.lot.points:
        return []
    long = max(BAR_WIDTH * lot.lot.points / max(largest, 1), LEAST_BAR)
    used = lot.lot.points - lot.remaining - lot.expired
    segments, at = [], 0.0
    for kind, points in (("used", used), ("remaining", lot.remaining), ("expired", lot.expired)):
        if points > 0:
            width = long * points / lot.lot.points
            segments.append(Segment(kind, round(at, 2), round(width, 2)))
            at += width
    return segments


def expiry_chart(report: Liability) -> ColumnChart | None:
    """What of the outstanding points expires when; None where nothing is outstanding."""
    expiring = [(row.period, row.flows.expiring) for row in report.rows() if row.flows.expiring]
    if not expiring:
        return None
    most = max(points for _, points in expiring)
    top = _ticks(most)[-1]
    room = (RIGHT - LEFT) / len(expiring)
    every = -(-len(expiring) // MOST_LABELS)
    columns = []
    for place, (period, points) in enumerate(expiring):
        height = (BOTTOM - TOP) * points / top
        width = min(room * 0.8, 60.0)
        columns.append(
            Column(
                at=round(LEFT + room * place + (room - width) / 2, 2),
                top=round(BOTTOM - height, 2),
                width=round(width, 2),
                height=round(height, 2),
                period=period,
                points=points,
                label=period if place % every == 0 else "",
            )
        )
    up = [Tick(round(BOTTOM - (BOTTOM - TOP) * value / top, 2), f"{value:,}") for value in _ticks(most)]
    return ColumnChart(columns=columns, up=up)


def _steps(first: tuple[float, float], places: Sequence[tuple[float, float]], end: float) -> str:
    """A path that keeps its height until the next place, and then to ``end``. Of places very near the last counts."""
    parts = [f"M{first[0]:.2f} {first[1]:.2f}"]
    for number, (x, y) in enumerate(places):
        following = places[number + 1][0] if number + 1 < len(places) else None
        if following is None or following // FINEST_STEP != x // FINEST_STEP:
            parts.append(f"H{x:.2f}V{y:.2f}")
    return "".join([*parts, f"H{end:.2f}"])


def _ticks(most: int) -> list[int]:
    """0 and round numbers up to one that is not below ``most``."""
    step, factors, exponent = 1, (1, 2, 5), 0
    while step * (MOST_TICKS - 1) < most:
        exponent += 1
        step = factors[exponent % 3] * 10 ** (exponent // 3)
    return [step * number for number in range(-(-max(most, 1) // step) + 1)]


def _instants(begin: datetime, end: datetime, across: Callable[[datetime], float]) -> list[Tick]:
    form = "%Y-%m-%d" if end - begin > timedelta(days=5) else "%m-%d %H:%M"
    instants = [begin + (end - begin) * part / (MOST_TICKS - 1) for part in range(MOST_TICKS)]
    return [Tick(round(across(instant), 2), instant.astimezone(UTC).strftime(form)) for instant in instants]
