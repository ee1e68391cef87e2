"""The command line. Every command answers 0 only where it did what it was asked."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rewardpoints import __version__
from rewardpoints.app import commands
from rewardpoints.app.process import serve
from rewardpoints.app.service import Parts
from rewardpoints.app.worker_processes import MOST_PROCESSES, serve_processes
from rewardpoints.domain.accounts import check_tenant
from rewardpoints.domain.errors import RewardPointsError
from rewardpoints.operate import commands_dead_letters, commands_lag, commands_ledger, commands_rebuild, commands_replay
from rewardpoints.operate.terminal import AsJson, TrialFolder
from rewardpoints.operate.terminal import load_settings as _settings
from rewardpoints.operate.terminal import run as _run
from rewardpoints.settings import Settings, SettingsInvalid
from rewardpoints.telemetry import configure_logging
from rewardpoints.trial.dev import run_dev
from rewardpoints.trial.environment import DEFAULT_FOLDER, TrialEnvironment
from rewardpoints.trial.simulate import Load, Report
from rewardpoints.trial.simulate import simulate as offer
from rewardpoints.trial.tokens import TrialTokens

# As Markdown: Rich's own markup would take what stands in [brackets] for a style, and break paragraphs in their middle
cli = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
topics = typer.Typer(no_args_is_help=True)
indexes = typer.Typer(no_args_is_help=True)
cli.add_typer(topics, name="topics", help="Create, read and write Kafka topics.")
cli.add_typer(indexes, name="indexes", help="Create MongoDB's indexes.")
commands_lag.add_to(cli)
commands_ledger.add_to(cli)
commands_replay.add_to(cli)
commands_dead_letters.add_to(cli)
commands_rebuild.add_to(cli)

DataFolder = Annotated[Path, typer.Option("--data", help="Folder of the trial environment.")]


def main() -> None:
    """Run the command line; what is refused on purpose is one line on standard error and status 1."""
    try:
        cli()
    except (RewardPointsError, SettingsInvalid, OSError) as error:
        print(f"rewardpoints: {error}", file=sys.stderr)  # noqa: T201 - the command's own output
        sys.exit(1)


@cli.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Event-driven reward points: Kafka orders in, a MongoDB ledger of lots, an HTTP API, coupon requests out.

    Settings are environment variables with the prefix REWARDPOINTS_; see docs/settings.md.
    """
    if version:
        typer.echo(__version__)
        raise typer.Exit


@cli.command()
def worker(
    processes: Annotated[
        int,
        typer.Option(
            help="How many worker processes to run, restarted and stopped together.", min=1, max=MOST_PROCESSES
        ),
    ] = 1,
) -> None:
    """Run the order consumer and the relay; health and metrics on REWARDPOINTS_HTTP_WORKER_PORT.

    With several processes that port answers for all of them, and each has its own above it, on this machine only.
    """
    settings = Settings.load()
    _log_as(settings)
    _run(serve(settings, Parts.of_worker(settings)) if processes == 1 else serve_processes(settings, processes))


@cli.command()
def api() -> None:
    """Run the HTTP API and the consumers of chargebacks and coupon results."""
    settings = Settings.load(tokens=True)
    _log_as(settings)
    _run(serve(settings, Parts.of_api(settings)))


@cli.command()
def dev(
    host: Annotated[str, typer.Option(help="Address the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port the API listens on; 0 takes a free one.", min=0, max=65535)] = 8080,
    data: DataFolder = DEFAULT_FOLDER,
    orders_per_second: Annotated[float, typer.Option(help="Publish sample orders at this rate.", min=0, max=1000)] = 0,
) -> None:
    """Run everything on this machine, with embedded servers and sample data, to try it out."""
    configure_logging("WARNING", json=False)
    environment = TrialEnvironment(data)
    _run(run_dev(environment, host=host, port=port, orders_per_second=orders_per_second, say=_say))


@cli.command()
def token(
    tenant: Annotated[str, typer.Option(help="Tenant the token is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="A scope; may be given several times.")] = None,
    customer: Annotated[str | None, typer.Option(help="Make it this customer's token.")] = None,
    data: DataFolder = DEFAULT_FOLDER,
    *,
    create_key: Annotated[bool, typer.Option("--create-key", help="Make the signing key where there is none.")] = False,
) -> None:
    """Print a token for the trial environment, and nothing else."""
    tokens = TrialTokens(TrialEnvironment(data).keys_folder)
    if create_key:
        tokens.ensure_key()
    typer.echo(tokens.issue(tenant=check_tenant(tenant), scopes=scope or (), customer_id=customer))


@topics.command("create")
def topics_create(data: TrialFolder = None) -> None:
    """Create the topics that are missing; those that exist are left as they are."""
    created = _run(commands.create_topics(_settings(data).kafka))
    typer.echo(f"created: {', '.join(created)}" if created else "all topics exist")


@topics.command("read")
def topics_read(
    topic: Annotated[str, typer.Argument(help="The topic.")],
    last: Annotated[int, typer.Option(help="How many of the newest records.", min=1, max=10_000)] = 10,
    at: Annotated[
        str | None, typer.Option(metavar="PARTITION/OFFSET", help="The one record there, as 3/1042, instead.")
    ] = None,
    data: TrialFolder = None,
) -> None:
    """Print the newest records of a topic, oldest first, as JSON; or one record, as logs and dead letters name it."""
    kafka = _settings(data).kafka
    if at is None:
        records = _run(commands.read_topic(kafka, topic, last))
    else:
        records = [_run(commands.read_record(kafka, topic, *_place(at)))]
    for record in records:
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False))


@topics.command("publish")
def topics_publish(
    topic: Annotated[str, typer.Argument(help="The topic.")],
    value: Annotated[str, typer.Argument(help="The record's value, or - for standard input.")],
    key: Annotated[str | None, typer.Option(help="The record's key.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="A header, NAME=VALUE; may be given several times.")] = None,
    data: TrialFolder = None,
) -> None:
    """Publish one record and wait for the broker's acknowledgement."""
    content = sys.stdin.buffer.read() if value == "-" else value.encode()
    headers = [_header(text) for text in header or ()]
    _run(commands.publish_record(_settings(data).kafka, topic, content, key=key, headers=headers))


@indexes.command("create")
def indexes_create(data: TrialFolder = None) -> None:
    """Create the collections, indexes and validators that are missing."""
    for name in _run(commands.create_indexes(_settings(data))):
        typer.echo(name)


@cli.command()
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

        report = _run(offer(TrialEnvironment(data), load, on_tick=show if console.is_terminal else None))
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


def _place(text: str) -> tuple[int, int]:
    partition, separator, offset = text.partition("/")
    if not (separator and partition.isdecimal() and offset.isdecimal()):
        raise typer.BadParameter(f"{text!r} is not PARTITION/OFFSET", param_hint="--at")
    return int(partition), int(offset)


def _header(text: str) -> tuple[str, bytes]:
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--header")
    return name, value.encode()


def _log_as(settings: Settings) -> None:
    configure_logging(settings.service.log_level, json=settings.service.log_json)


def _say(text: str) -> None:
    # plain text in one piece: a terminal's wrapping would break the commands that are meant to be pasted
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
