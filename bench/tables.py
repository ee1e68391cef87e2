"""The same figures for a terminal and for a page."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from bench.measuring import Row

_HEADS = ("figure", "median", "spread", "goal", "")


def number(value: float) -> str:
    """A figure with three digits that count, or all before its point."""
    size = abs(value)
    if size >= 1000:  # noqa: PLR2004 - thousands are set apart
        return f"{value:,.0f}"
    places = 0 if size >= 100 else 1 if size >= 10 else 2  # noqa: PLR2004 - three digits
    return f"{value:.{places}f}"


def cells(row: Row) -> tuple[str, str, str, str, str]:
    """A row as texts: figure, median, spread, goal, and whether it is reached."""
    unit = f" {row.unit}" if row.unit else ""
    low, high = row.spread
    reached = {None: "", True: "reached", False: "not reached"}[row.reached]
    return (
        row.title,
        number(row.median) + unit,
        f"{number(low)} … {number(high)}",
        f"{row.goal}{unit}" if row.goal else "reported",
        reached,
    )


def terminal_table(title: str, rows: Iterable[Row]) -> Table:
    """For a terminal."""
    table = Table(title=title, title_justify="left")
    for head in _HEADS:
        table.add_column(head, justify="right" if head in {"median", "spread"} else "left")
    for row in rows:
        colour = {None: "", True: "green", False: "red"}[row.reached]
        *texts, reached = cells(row)
        table.add_row(*texts, f"[{colour}]{reached}[/{colour}]" if colour else reached)
    return table


def markdown_table(rows: Sequence[Row], *, heads: Sequence[str] = _HEADS) -> str:
    """For a page. What must be known to judge a figure stands under its name."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        title, *rest = cells(row)
        noted = f"{title}<br>*{row.note}*" if row.note else title
        lines.append(f"| {' | '.join((noted, *rest))} |")
    return "\n".join(lines) + "\n"
