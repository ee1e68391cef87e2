"""Measuring: sides run in turns, their figures round by round, and what a figure has to reach."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median, quantiles
from typing import Any, Self

Figures = Mapping[str, float]
Side = Callable[[int], Awaitable[Figures]]
"""One side of a comparison, run once in the round of this number; answers its figures."""

Point = tuple[float, float]


class Kind(StrEnum):
    """Which way a goal lies."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


@dataclass(frozen=True, slots=True)
class Goal:
    """What the median of a figure has to reach."""

    kind: Kind
    bound: float

    def reached(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value >= self.bound if self.kind is Kind.AT_LEAST else value <= self.bound

    def __str__(self) -> str:
        return f"{self.kind} {self.bound:g}"


def at_least(bound: float) -> Goal:
    """The goal of a figure that should be large."""
    return Goal(Kind.AT_LEAST, bound)


def at_most(bound: float) -> Goal:
    """The goal of a figure that should be small."""
    return Goal(Kind.AT_MOST, bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of a comparison: its value in each round. ``key`` names it in JSON, ``title`` in tables.

    ``unit`` is empty for a ratio. Without a ``goal`` the figure is only reported. ``note`` says what a reader must know
    to judge it: sizes, what was done at once.
    """

    key: str
    title: str
    values: Sequence[float]
    unit: str = ""
    goal: Goal | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"{self.key} was not measured")

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of five rounds or more, else the smallest and the largest."""
        if len(self.values) < ROUNDS_FOR_QUARTILES:
            return min(self.values), max(self.values)
        low, _, high = quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the goal; None without one."""
        return None if self.goal is None else self.goal.reached(self.median)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "key": self.key,
            "title": self.title,
            "unit": self.unit,
            "median": self.median,
            "spread": list(self.spread),
            "values": list(self.values),
            "goal": None if self.goal is None else {"kind": self.goal.kind.value, "bound": self.goal.bound},
            "reached": self.reached,
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """What ``as_dict`` made."""
        goal = stored["goal"]
        return cls(
            key=stored["key"],
            title=stored["title"],
            unit=stored["unit"],
            values=stored["values"],
            goal=None if goal is None else Goal(Kind(goal["kind"]), goal["bound"]),
            note=stored["note"],
        )


ROUNDS_FOR_QUARTILES = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a comparison came to: its rows, and curves to be drawn: (x, y) points by the name of the curve."""

    rows: Sequence[Row]
    curves: Mapping[str, Sequence[Point]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rounds:
    """The figures of every side, round by round."""

    figures: Mapping[str, Sequence[Figures]]

    def values(self, side: str, figure: str) -> list[float]:
        """A side's figure in every round."""
        return [figures[figure] for figures in self.figures[side]]

    def ratios(self, figure: str, over: str, under: str) -> list[float]:
        """One side's figure divided by another's, each round by itself: what slows a round slows both."""
        pairs = zip(self.values(over, figure), self.values(under, figure), strict=True)
        return [above / below for above, below in pairs]


async def interleaved(
    sides: Mapping[str, Side], *, rounds: int, warm_up: bool = True, say: Callable[[str], None] = lambda _: None
) -> Rounds:
    """Run the sides in turns, A B A B, and keep the figures of each.

    With ``warm_up`` one more round goes before the others and is thrown away; it has the number 0.
    """
    found: dict[str, list[Figures]] = {name: [] for name in sides}
    for number in range(0 if warm_up else 1, rounds + 1):
        for name, run in sides.items():
            figures = await run(number)
            told = "  ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
            say(f"  {'warm-up' if number == 0 else f'round {number}'}  {name:<28} {told}")
            if number > 0:
                found[name].append(figures)
    return Rounds(found)
