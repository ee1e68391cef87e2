"""A small plot: panels of lines over the same time, with a mark for each fault. Plain SVG, no library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP = 960, 70, 150, 64
PANEL, GAP = 120, 34
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#c98a1b", "#555555")
FAULT_COLOURS = ("#d1495b", "#c98a1b", "#8e5ea2", "#2e8b57", "#1b6ca8", "#777777")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its title with the unit, and its lines by name."""

    title: str
    lines: Mapping[str, Points]


def plot(title: str, panels: Sequence[Panel], faults: Sequence[tuple[float, str]], seconds: float) -> str:
    """The SVG text. ``faults`` are (seconds, kind)."""
    height = TOP + len(panels) * (PANEL + GAP) + 20
    kinds = sorted({kind for _, kind in faults})
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(LEFT, 20, title, size=14),
        *_fault_legend(kinds),
    ]
    for number, panel in enumerate(panels):
        top = TOP + number * (PANEL + GAP)
        parts += _panel(panel, top, faults, kinds, seconds)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _panel(
    panel: Panel, top: float, faults: Sequence[tuple[float, str]], kinds: Sequence[str], seconds: float
) -> list[str]:
    values = [value for points in panel.lines.values() for _, value in points]
    most = _round_up(max(values, default=1.0))
    inner = WIDTH - LEFT - RIGHT
    parts = [_text(LEFT, top - 6, panel.title, weight="bold")]
    for share in (0.0, 0.5, 1.0):
        y = top + PANEL * (1 - share)
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{LEFT + inner}" y2="{y}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{most * share:g}", anchor="end"))
    for at, kind in faults:
        x = LEFT + inner * at / seconds
        colour = FAULT_COLOURS[kinds.index(kind) % len(FAULT_COLOURS)]
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + 6}" stroke="{colour}" stroke-width="2"/>')
    for tick in range(5):
        label = f"{seconds * tick / 4 / 60:.3g} min"
        parts.append(_text(LEFT + inner * tick / 4, top + PANEL + 14, label, anchor="middle"))
    for number, (name, points) in enumerate(panel.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = " ".join(
            f"{LEFT + inner * at / seconds:.1f},{top + PANEL * (1 - value / most):.1f}" for at, value in points
        )
        parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
        parts.append(_text(LEFT + inner + 8, top + 12 + 14 * number, name, colour=colour))
    return parts


def _fault_legend(kinds: Sequence[str]) -> list[str]:
    parts, x = [], float(LEFT)
    for number, kind in enumerate(kinds):
        colour = FAULT_COLOURS[number % len(FAULT_COLOURS)]
        parts.append(f'<rect x="{x}" y="32" width="8" height="8" fill="{colour}"/>')
        parts.append(_text(x + 12, 40, kind))
        x += 30 + 6.2 * len(kind)
    return parts


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    step = 10.0 ** (len(str(int(value))) - 1) / 2
    return step * (int(value / step) + 1)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = "#222222",
    size: int = 11,
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
