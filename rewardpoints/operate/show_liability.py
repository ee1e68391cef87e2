"""A liability report as a table, as CSV and as JSON."""

import csv
import sys
from decimal import Decimal
from typing import Any, Final

from rich import box
from rich.table import Table

from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.liability import Liability, Row
from rewardpoints.operate.terminal import out, print_json, print_line

COLUMNS: Final = ("earned", "given", "given_back", "redeemed", "expired", "outstanding", "expiring", "breakage")


def print_table(report: Liability) -> None:
    """For a person."""
    site = f" of site {report.site_code}" if report.site_code is not None else ""
    at = format_instant(report.at)
    print_line(f"{report.outstanding:,} points{site} outstanding in {report.accounts:,} accounts at {at}.")
    print_line(f"Of the points whose validity had ended, {_percent(report.breakage)} had expired unspent (breakage).")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    totals = _totals(report)
    table.add_column(report.by.value, no_wrap=True, footer="total")
    for column in COLUMNS:
        total = totals.get(column, report.outstanding)
        shown = _percent(report.breakage) if column == "breakage" else f"{total:,}"
        table.add_column(column.replace("_", " "), justify="right", no_wrap=True, footer=shown)
    for row in report.rows():
        values = _values(row)
        cells = [f"{values[column]:,}" if values[column] else "" for column in COLUMNS[:-1]]
        table.add_row(row.period, *cells, _percent(row.flows.breakage) if row.flows.ended else "")
    out().print(table)


def print_csv(report: Liability) -> None:
    """For a spreadsheet: a line a period."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([report.by.value, *COLUMNS])
    for row in report.rows():
        values = _values(row)
        writer.writerow([row.period, *("" if values[name] is None else values[name] for name in COLUMNS)])


def print_report_json(report: Liability, *, tenant: str | None) -> None:
    """For a program."""
    totals = _totals(report)
    print_json(
        {
            "at": format_instant(report.at),
            "by": report.by.value,
            "tenant": tenant,
            "siteCode": report.site_code,
            "accounts": report.accounts,
            "outstanding": report.outstanding,
            "breakage": _number(report.breakage),
            "totals": {_camel(name): points for name, points in totals.items()},
            "periods": [
                {"period": row.period, **{_camel(name): _number(value) for name, value in _values(row).items()}}
                for row in report.rows()
            ],
        }
    )


def _values(row: Row) -> dict[str, int | Decimal | None]:
    flows = row.flows
    return {
        "earned": flows.earned,
        "given": flows.given,
        "given_back": flows.given_back,
        "redeemed": flows.redeemed,
        "expired": flows.expired,
        "outstanding": row.outstanding,
        "expiring": flows.expiring,
        "breakage": flows.breakage,
    }


def _totals(report: Liability) -> dict[str, int]:
    flows = list(report.flows.values())
    return {
        "earned": sum(one.earned for one in flows),
        "given": sum(one.given for one in flows),
        "given_back": sum(one.given_back for one in flows),
        "redeemed": sum(one.redeemed for one in flows),
        "expired": sum(one.expired for one in flows),
        "expiring": sum(one.expiring for one in flows),
    }


def _number(value: int | Decimal | None) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _percent(share: Decimal | None) -> str:
    return "none" if share is None else f"{share:.2%}"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
