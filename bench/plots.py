"""Plots: goals and what was reached, as bars; and curves. Plain SVG, no library."""

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from bench.measuring import Goal, Kind, Point, Row
from bench.tables import number

WIDTH: Final = 960
LEFT: Final = 440
RIGHT: Final = 110
LINE: Final = 26
TOP: Final = 56
REACHED: Final = "#2e8b57"
MISSED: Final = "#d1495b"
MOST_TIMES: Final = 2.0
"""Bars end at twice their goal."""


def bars(title: str, rows: Sequence[Row]) -> str:
    """Every row with a goal, as times of its goal: to the right of the line is better, whichever way the goal lies."""
    drawn = [row for row in rows if row.goal is not None]
    height = TOP + LINE * len(drawn) + 24
    goal_x = _x(1.0)
    parts = [
        *_opening(title, height),
        _text(goal_x, TOP - 12, "goal", anchor="middle"),
        f'<line x1="{goal_x:.1f}" y1="{TOP - 6}" x2="{goal_x:.1f}" y2="{height - 16}" stroke="#222222"/>',
    ]
    for place, row in enumerate(drawn):
        parts += _bar(row, TOP + LINE * place)
    return "\n".join([*parts, "</svg>\n"])


def curve(title: str, points: Sequence[Point], *, of: str) -> str:
    """Points as a line; ``of`` names what goes to the right."""
    left, bottom, top = 70, 260, 44
    most_x = max((x for x, _ in points), default=1.0) or 1.0
    most_y = max((y for _, y in points), default=1.0) * 1.05 or 1.0
    parts = _opening(title, bottom + 40)
    for share in (0.0, 0.5, 1.0):
        y = bottom - (bottom - top) * share
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{WIDTH - 40}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(_text(left - 6, y + 4, number(most_y * share), anchor="end"))
        x = left + (WIDTH - 40 - left) * share
        parts.append(_text(x, bottom + 16, number(most_x * share), anchor="middle"))
    parts.append(_text(WIDTH / 2, bottom + 32, of, anchor="middle"))
    places = " ".join(
        f"{left + (WIDTH - 40 - left) * x / most_x:.1f},{bottom - (bottom - top) * y / most_y:.1f}"
        for x, y in sorted(points)
    )
    parts.append(f'<polyline points="{places}" fill="none" stroke="#1b6ca8" stroke-width="1.2"/>')
    return "\n".join([*parts, "</svg>\n"])


def times_of_goal(value: float, goal: Goal) -> float:
    """How many times better than its goal a value is; 1 just reaches it."""
    if goal.kind is Kind.AT_LEAST:
        return value / goal.bound
    return goal.bound / value if value > 0 else MOST_TIMES


def _bar(row: Row, top: float) -> list[str]:
    assert row.goal is not None  # noqa: S101 - chosen so
    times = times_of_goal(row.median, row.goal)
    ends = sorted(_x(times_of_goal(value, row.goal)) for value in row.spread)
    middle = top + LINE / 2 - 4
    unit = f" {row.unit}" if row.unit else ""
    colour = REACHED if row.reached else MISSED
    return [
        _text(LEFT - 8, middle + 4, row.title, anchor="end"),
        f'<rect x="{LEFT}" y="{top}" width="{_x(times) - LEFT:.1f}" height="{LINE - 8}" fill="{colour}"/>',
        f'<line x1="{ends[0]:.1f}" y1="{middle:.1f}" x2="{ends[1]:.1f}" y2="{middle:.1f}" stroke="#222222"/>',
        _text(WIDTH - RIGHT + 8, middle + 4, f"{number(row.median)}{unit}  ({row.goal})"),
    ]


def _x(times: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(times, MOST_TIMES) / MOST_TIMES


def _opening(title: str, height: float) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(20, 22, title, size=14),
    ]


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 11) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222222" font-size="{size}">{escape(text)}</text>'
    )
