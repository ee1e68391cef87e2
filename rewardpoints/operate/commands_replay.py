"""The commands around replays, as Typer has them."""

from typing import Annotated, Final

import typer

from rewardpoints.app.stopping import stop_signals
from rewardpoints.domain.differences import Difference
from rewardpoints.domain.errors import NotFound
from rewardpoints.domain.replays import Replay, ReplayRequest, ReplayState, parse_bound
from rewardpoints.operate.ledgers import open_ledger
from rewardpoints.operate.progress import Progressing
from rewardpoints.operate.replay import Hearing, dry_run_replay, resume_replay, start_replay
from rewardpoints.operate.show_replay import (
    difference_text,
    positions_text,
    print_replay,
    print_replays,
    replay_json,
)
from rewardpoints.operate.terminal import AsJson, TrialFolder, load_settings, print_json, print_line, run
from rewardpoints.settings import Settings
from rewardpoints.telemetry import configure_logging

MOST_DIFFERENCES_SHOWN: Final = 1000
ReplayId = Annotated[str, typer.Argument(help="The replay's id.")]

replay_cli = typer.Typer(invoke_without_command=True)


def add_to(cli: typer.Typer) -> None:
    """Register the commands."""
    cli.add_typer(replay_cli, name="replay")


@replay_cli.callback()
def replay(
    context: typer.Context,
    *,
    topic: Annotated[str | None, typer.Option(help="The topic; the order topic if not given.")] = None,
    begin: Annotated[
        str | None, typer.Option("--from", help="beginning, a time (2025-06-10 or 2025-06-10T12:31:39Z) or an offset.")
    ] = None,
    end: Annotated[str, typer.Option("--to", help="end, a time or an offset; itself not included.")] = "end",
    partition: Annotated[int | None, typer.Option(help="Only this partition; needed with offsets.", min=0)] = None,
    tenant: Annotated[str | None, typer.Option(help="Only orders of this tenant.")] = None,
    customer: Annotated[str | None, typer.Option(help="Only orders of this customer; needs --tenant.")] = None,
    rate: Annotated[float | None, typer.Option(help="At most so many records a second.", min=0.1)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; show what would change.")] = False,
    resume: Annotated[str | None, typer.Option(metavar="ID", help="Go on with this replay.")] = None,
    as_json: AsJson = False,
    data: TrialFolder = None,
) -> None:
    """Read a part of a topic once more, beside live workers, and add the lots that are missing.

    Orders that are in the ledger stay as they are; where one would earn something else now, both are shown with the
    reason. Nothing is published. Times are the records' own timestamps. Ctrl-C stops after the batch in flight.
    """
    if context.invoked_subcommand is not None:
        return
    settings = load_settings(data)
    configure_logging("WARNING", json=False)
    if resume is not None:
        if begin is not None or dry_run:
            raise typer.BadParameter("goes on where the replay stands: no --from, no --dry-run", param_hint="--resume")
        ended = run(_resume(settings, resume, rate, as_json=as_json))
    else:
        if begin is None:
            raise typer.BadParameter("say where to begin: beginning, a time or an offset", param_hint="--from")
        request = ReplayRequest(
            topic=topic or settings.kafka.topic_order_completed,
            begin=parse_bound("from", begin),
            end=parse_bound("to", end),
            partition=partition,
            tenant=tenant,
            customer_id=customer,
            rate=rate,
        )
        ended = run(_start(settings, request, dry_run=dry_run, as_json=as_json))
    if ended.state is not ReplayState.FINISHED:
        raise typer.Exit(1)


@replay_cli.command("list")
def replay_list(
    *,
    last: Annotated[int, typer.Option(help="How many of the newest.", min=1, max=1000)] = 20,
    as_json: AsJson = False,
    data: TrialFolder = None,
) -> None:
    """Show the replays that ran, newest first. One that runs without moving was killed: resume it."""
    print_replays(run(_recent(load_settings(data), last)), as_json=as_json)


@replay_cli.command("show")
def replay_show(replay_id: ReplayId, *, as_json: AsJson = False, data: TrialFolder = None) -> None:
    """Show one replay, with the first of its differing lots."""
    found = run(_find(load_settings(data), replay_id))
    if as_json:
        print_json(replay_json(found))
        return
    for one in found.differences:
        print_line(difference_text(one))
    print_replay(found)


@replay_cli.command("stop")
def replay_stop(replay_id: ReplayId, *, data: TrialFolder = None) -> None:
    """Have a replay that runs anywhere stop after its next batch."""
    if not run(_stop(load_settings(data), replay_id)):
        raise NotFound(f"no replay {replay_id} is running")
    print_line(f"replay {replay_id} stops after its next batch")


class _Shown:
    """Shows a replay while it runs, and keeps the differences for JSON."""

    def __init__(self, progress: Progressing, *, as_json: bool) -> None:
        self._progress = progress
        self._as_json = as_json
        self._begun_at = 0
        self.differences: list[Difference] = []

    def moved(self, replay: Replay) -> None:
        if self._progress.total is None:
            self._progress.total = replay.total - replay.done
            self._begun_at = replay.done
        self._progress.at(replay.done - self._begun_at, positions_text(replay))

    def differs(self, found: Difference) -> None:
        if not self._as_json:
            print_line(difference_text(found))
        elif len(self.differences) < MOST_DIFFERENCES_SHOWN:
            self.differences.append(found)

    def ended(self, replay: Replay, *, dry_run: bool) -> Replay:
        if self._as_json:
            print_json(replay_json(replay, self.differences))
        else:
            print_replay(replay, dry_run=dry_run)
        return replay


async def _start(settings: Settings, request: ReplayRequest, *, dry_run: bool, as_json: bool) -> Replay:
    async with stop_signals() as stopping, open_ledger(settings) as ledger:
        with Progressing("checking" if dry_run else "replaying", None) as progress:
            shown = _Shown(progress, as_json=as_json)
            hearing = Hearing(stopping=stopping, on_progress=shown.moved, on_difference=shown.differs)
            begin = dry_run_replay if dry_run else start_replay
            ended = await begin(settings, ledger, request, hearing)
        return shown.ended(ended, dry_run=dry_run)


async def _resume(settings: Settings, replay_id: str, rate: float | None, *, as_json: bool) -> Replay:
    async with stop_signals() as stopping, open_ledger(settings) as ledger:
        with Progressing("replaying", None) as progress:
            shown = _Shown(progress, as_json=as_json)
            hearing = Hearing(stopping=stopping, on_progress=shown.moved, on_difference=shown.differs)
            ended = await resume_replay(settings, ledger, replay_id, hearing, rate=rate)
        return shown.ended(ended, dry_run=False)


async def _recent(settings: Settings, last: int) -> list[Replay]:
    async with open_ledger(settings) as ledger:
        return list(await ledger.replays.recent(last))


async def _find(settings: Settings, replay_id: str) -> Replay:
    async with open_ledger(settings) as ledger:
        found = await ledger.replays.find(replay_id)
    if found is None:
        raise NotFound(f"there is no replay {replay_id}")
    return found


async def _stop(settings: Settings, replay_id: str) -> bool:
    async with open_ledger(settings) as ledger:
        return await ledger.replays.ask_to_stop(replay_id)
