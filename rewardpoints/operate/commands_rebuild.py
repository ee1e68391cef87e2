"""The command around rebuilding, as Typer has it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from rewardpoints.app.stopping import stop_signals
from rewardpoints.domain.accounts import check_tenant
from rewardpoints.operate.ledgers import open_ledger
from rewardpoints.operate.progress import Progressing
from rewardpoints.operate.rebuild_check import Check, Checker, CheckRequest, Finding
from rewardpoints.operate.rebuild_into import Rebuild, Rebuilt, check_target
from rewardpoints.operate.show_rebuild import (
    check_json,
    finding_json,
    finding_text,
    print_check,
    print_rebuilt,
    rebuilt_json,
)
from rewardpoints.operate.terminal import AsJson, TrialFolder, load_settings, print_json, print_line, run
from rewardpoints.operate.tombstones import check_tombstones, read_tombstones, tombstone_json
from rewardpoints.settings import Settings
from rewardpoints.telemetry import configure_logging

MOST_FINDINGS_SHOWN: Final = 10_000

Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", help="A topic with orders, the order topic if not given; may be given several times."),
]


tombstones_cli = typer.Typer(no_args_is_help=True)


def add_to(cli: typer.Typer) -> None:
    """Register the commands."""
    cli.command()(rebuild)
    cli.add_typer(tombstones_cli, name="tombstones", help="Export who was erased, to keep beside each backup.")


def rebuild(
    *,
    check: Annotated[bool, typer.Option("--check", help="Compare with the ledger; write nothing.")] = False,
    into: Annotated[
        str | None, typer.Option(metavar="DATABASE", help="Write into this database, whose name begins with rebuild.")
    ] = None,
    tombstones: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --into: tombstones exported since the backup was made.", exists=True),
    ] = None,
    topic: Topics = None,
    tenant: Annotated[str | None, typer.Option(help="With --check: only this tenant.")] = None,
    as_json: AsJson = False,
    data: TrialFolder = None,
) -> None:
    """Derive the ledger from the topics: compare it with the one that stands, or write it into a database.

    --check names each lot of an order that is missing, extra or differing, with the reason; beside live workers it
    judges what they have committed. It answers 0 only if everything agrees.

    --into takes a database that is empty or was restored from a backup, and that nobody serves. It honours tombstones,
    adds the lots of orders, and redemptions (same id, code and draws), chargebacks and results in the order of time.
    It lists as lost what was done by hand after the backup. It may be repeated. Neither publishes anything.
    """
    configure_logging("WARNING", json=False)
    if check == (into is not None):
        raise typer.BadParameter("say --check or --into DATABASE", param_hint="--check")
    settings = load_settings(data)
    if into is None:
        request = CheckRequest(topics=topic or (), tenant=None if tenant is None else check_tenant(tenant))
        good = run(_check(settings, request, as_json=as_json)).clean
    else:
        if tenant is not None:
            raise typer.BadParameter("only with --check", param_hint="--tenant")
        check_target(settings, into)
        if tombstones is not None:
            check_tombstones(tombstones)
        good = run(_rebuild(settings, into, topic or (), tombstones, as_json=as_json)).finished
    if not good:
        raise typer.Exit(1)


@tombstones_cli.command("export")
def tombstones_export(data: TrialFolder = None) -> None:
    """Print every tombstone as a line of JSON."""
    run(_export(load_settings(data)))


async def _export(settings: Settings) -> None:
    async with open_ledger(settings) as ledger:
        async for tombstone in ledger.restoring.every_tombstone():
            print_json(tombstone_json(tombstone), indent=None)


async def _rebuild(
    settings: Settings, into: str, topics: Sequence[str], tombstones: Path | None, *, as_json: bool
) -> Rebuilt:
    changed = settings.mongodb.model_copy(update={"database": into})
    async with (
        stop_signals() as stopping,
        open_ledger(settings) as serving,
        open_ledger(settings, changed) as target,
    ):
        with Progressing("rebuilding", None) as progress:
            rebuilt = await Rebuild(
                settings,
                serving,
                target,
                topics=topics,
                tombstones=None if tombstones is None else lambda: read_tombstones(tombstones),
                stopping=stopping,
                on_progress=lambda rebuilt: progress.at(rebuilt.read),
            ).run()
    if as_json:
        print_json(rebuilt_json(rebuilt))
    else:
        print_rebuilt(rebuilt)
    return rebuilt


async def _check(settings: Settings, request: CheckRequest, *, as_json: bool) -> Check:
    findings: list[Finding] = []
    async with stop_signals() as stopping, open_ledger(settings) as ledger:
        with Progressing("reading and comparing", None) as progress:
            checker = Checker(
                settings,
                ledger,
                request,
                stopping=stopping,
                on_progress=lambda check: progress.at(check.read + check.compared),
            )
            async for found in checker.findings():
                if not as_json:
                    print_line(finding_text(found))
                elif len(findings) < MOST_FINDINGS_SHOWN:
                    findings.append(found)
    if as_json:
        print_json({**check_json(checker.check), "findings": [finding_json(found) for found in findings]})
    else:
        print_check(checker.check)
    return checker.check
