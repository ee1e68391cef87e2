"""The commands of the trial environment, as Typer has them."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rewardpoints.operate.terminal import AsJson, run
from rewardpoints.telemetry import configure_logging
from rewardpoints.trial.dev import run_dev
from rewardpoints.trial.environment import DEFAULT_FOLDER, TrialEnvironment
from rewardpoints.trial.simulate import Load, Report
from rewardpoints.trial.simulate import simulate as offer

DataFolder = Annotated[Path, typer.Option("--data", help="Folder of the trial environment.")]


def add_to(cli: typer.Typer) -> None:
    """Register the commands."""
    cli.command()(dev)
    cli.command()(simulate)


def dev(
    host: Annotated[str, typer.Option(help="Address the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port the API listens on; 0 takes a free one.", min=0, max=65535)] = 8080,
    data: DataFolder = DEFAULT_FOLDER,
    orders_per_second: Annotated[float, typer.Option(help="Publish sample orders at this rate.", min=0, max=1000)] = 0,
) -> None:
    """Run everything on this machine, with embedded servers and sample data, to try it out."""
    configure_logging("WARNING", json=False)
    environment = TrialEnvironment(data)
    run(run_dev(environment, host=host, port=port, orders_per_second=orders_per_second, say=_say))


def simulate(
    *,
    orders_per_second: Annotated[float, typer.Option(help="Rate at which orders are offered.", min=0.1)] = 100,
    seconds: Annotated[float, typer.Option(help="How long.", min=0.1, max=86_400)] = 10,
    customers: Annotated[int, typer.Option(help="How many customers they are spread over.", min=1)] = 1000,
    duplicates: Annotated[float, typer.Option(help="Share of orders that are published twice.", min=0, max=1)] = 0,
    bad: Annotated[float, typer.Option(help="Share of orders that a broken record comes with.", min=0, max=1)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the load.")] = 0,
    data: DataFolder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Publish realistic orders to the running trial environment and report what became of them.

    Offered: by the clock, whatever the service does. Accepted: acknowledged by the broker. Visible: in the balance that
    the API answers, measured on single orders of new customers. Answers 0 only if all were accepted and became visible.
    """
    load = Load(
        orders_per_second=orders_per_second,
        seconds=seconds,
        customers=customers,
        duplicate_share=duplicates,
        bad_share=bad,
        seed=seed,
    )
    console = Console(stderr=True)
    with console.status("offering") as status:

        def show(report: Report) -> None:
            status.update(f"{report.seconds:.0f} s: {report.offered} offered, {report.accepted} accepted")

        report = run(offer(TrialEnvironment(data), load, on_tick=show if console.is_terminal else None))
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _print_report(report)
    if not report.complete:
        raise typer.Exit(1)


def _print_report(report: Report) -> None:
    figures = report.as_dict()
    table = Table(title="Simulation", show_header=False)
    for name in ("seconds", "offered", "offeredPerSecond", "duplicates", "bad", "accepted", "acceptedPerSecond"):
        table.add_row(name, str(figures[name]))
    for name in ("refused", "dropped", "probes", "acceptedMs", "visibleMs"):
        value = figures[name]
        parts = value.items() if isinstance(value, dict) else ()
        table.add_row(name, "  ".join(f"{key} {number}" for key, number in parts) or str(value))
    Console().print(table)


def _say(text: str) -> None:
    # plain text in one piece: a terminal's wrapping would break the commands that are meant to be pasted
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
