"""The page: everything between two markers is written from the JSON files, so that no figure is typed by hand."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench import plots
from bench.capacity import LOADS, Assumptions, Measured, Needs, measured_from, needs
from bench.measuring import Row
from bench.results import Stored, load
from bench.tables import markdown_table, number

NOTHING: Final = "*Nothing was measured yet: `make bench`, then `python -m bench report`.*\n"
_CURVES_OF: Final = {
    "growth": "lots in the ledger",
    "summary-batch": "seconds",
    "latency": "seconds",
}

Section = Callable[[Path], str]


def fill(page: str, sections: dict[str, str]) -> str:
    """The page with each section's text between its markers, ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->``.

    Raises:
        ValueError: the page lacks a marker.
    """
    for name, text in sections.items():
        begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page has no markers {begin} and {end}")
        page = f"{before}{begin}\n{text.strip()}\n{end}{after}"
    return page


def write_report(page: Path, results: Path) -> list[Path]:
    """Renew the page and the plots beside the results; returns what was written."""
    files = sorted(results.glob("mongodb-*.json"))
    runs = {file.stem: load(file) for file in files}
    written = [path for name, stored in runs.items() for path in _plots(results, name, stored)]
    sections = {"table": tables(runs, results.name), "capacity": capacity(runs)}
    page.write_text(fill(page.read_text(), sections))
    return [page, *written]


def tables(runs: dict[str, list[Stored]], folder: str) -> str:
    """For each choice of servers: where it ran, the goals, the plots, and what is only reported."""
    if not runs:
        return NOTHING
    parts = []
    for name, stored in runs.items():
        goals = [row for one in stored for row in one.rows if row.goal is not None]
        reported = [row for one in stored for row in one.rows if row.goal is None]
        parts += [f"### {_heading(stored[0])}\n", f"{_where(stored)}\n"]
        if goals:
            parts += [markdown_table(goals), f"![Goals and what was reached]({folder}/{name}-goals.svg)\n"]
        parts += [f"![{curve}]({folder}/{file})\n" for one in stored for curve, file in _curve_files(name, one)]
        if reported:
            parts += ["Reported:\n", markdown_table(reported)]
    return "\n".join(parts)


def capacity(runs: dict[str, list[Stored]]) -> str:
    """What loads need, from the run that has measured everything needed; its inputs and assumptions beside it."""
    for name, stored in runs.items():
        measured = measured_from({row.key: row.median for one in stored for row in one.rows})
        if measured is not None:
            return _capacity_of(name, measured, Assumptions())
    return NOTHING


def _capacity_of(name: str, measured: Measured, assumptions: Assumptions) -> str:
    loads = [needs(orders, lots, measured, assumptions) for orders, lots in LOADS]
    inputs = [f"| {field.name} | {number(getattr(measured, field.name))} |" for field in dataclasses.fields(measured)]
    guesses = [f"| {field.name} | {getattr(assumptions, field.name):g} |" for field in dataclasses.fields(assumptions)]
    return "\n".join(
        [
            _needs_table(loads),
            f"Measured (`{name}.json`):\n",
            "| | |\n|---|---|",
            *inputs,
            "\nAssumed, not measured here; what each means stands in `bench/capacity.py`:\n",
            "| | |\n|---|---|",
            *guesses,
        ]
    )


def _needs_table(loads: Sequence[Needs]) -> str:
    heads = [f"{one.orders_per_second:,.0f} orders/s, {one.lots:,.0f} lots" for one in loads]
    lines: list[tuple[str, Callable[[Needs], str]]] = [
        ("partitions of the order topic", lambda one: f"{one.partitions:,}"),
        ("worker processes (cores)", lambda one: f"{one.workers:,} ({number(one.worker_cores)})"),
        ("API cores", lambda one: number(one.api_cores)),
        ("shards for the writes", lambda one: f"{one.shards_for_writes:,}"),
        ("shards for the storage", lambda one: f"{one.shards_for_storage:,}"),
        ("new lots a day at that rate", lambda one: f"{one.lots_a_day:,.0f}"),
        ("documents on disk, one copy", lambda one: f"{number(one.data_gigabytes)} GB"),
        ("indexes, one copy", lambda one: f"{number(one.index_gigabytes)} GB"),
        ("disk of all members", lambda one: f"{number(one.disk_gigabytes)} GB"),
        ("memory for what is hot, a shard", lambda one: f"{number(one.memory_gigabytes_a_shard)} GB"),
    ]
    return "\n".join(
        [
            f"| | {' | '.join(heads)} |",
            f"|---|{'---|' * len(heads)}",
            *(f"| {title} | {' | '.join(map(tell, loads))} |" for title, tell in lines),
            "",
        ]
    )


def _heading(stored: Stored) -> str:
    names = {
        "embedded": "the embedded one",
        "secantusd-rs": "`secantusd-rs`",
        "apache": "Apache Kafka 4",
        "running": "a running one",
    }
    facts = stored.facts
    return (
        f"MongoDB: {names.get(facts['mongodb'], facts['mongodb'])}, Kafka: {names.get(facts['kafka'], facts['kafka'])}"
    )


def _where(stored: Sequence[Stored]) -> str:
    facts = [one.facts for one in stored]
    commits = sorted({one["commit"] for one in facts})
    first = facts[0]
    packages = ", ".join(f"{name} {version}" for name, version in first["packages"].items())
    return (
        f"{first['at'][:10]}, commit {', '.join(commits)}, {first['cores']} cores, {first['memoryGigabytes']:g} GB, "
        f"Python {first['python']}; load before each comparison {_range([one['load'] for one in facts])}; "
        f"{_range([one['rounds'] for one in facts])} rounds; {packages}."
    )


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _plots(folder: Path, name: str, stored: Sequence[Stored]) -> list[Path]:
    rows: list[Row] = [row for one in stored for row in one.rows]
    drawn = {f"{name}-goals.svg": plots.bars("Each figure as times of its goal", rows)}
    for one in stored:
        for curve, file in _curve_files(name, one):
            drawn[file] = plots.curve(curve, one.curves[curve], of=_CURVES_OF.get(one.name, ""))
    for file, text in drawn.items():
        (folder / file).write_text(text)
    return [folder / file for file in drawn]


def _curve_files(name: str, stored: Stored) -> list[tuple[str, str]]:
    return [(curve, f"{name}-{stored.name}.svg") for curve in stored.curves]
