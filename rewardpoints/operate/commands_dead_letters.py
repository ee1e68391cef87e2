"""The commands around dead letters, as Typer has them."""

from datetime import datetime
from typing import Annotated

import typer

from rewardpoints.app.stopping import stop_signals
from rewardpoints.domain.accounts import check_text
from rewardpoints.domain.dead_letters import Chosen, Handled, LetterFilter, LetterId, LetterState
from rewardpoints.domain.errors import RejectReason
from rewardpoints.events.dead_letter_desk import DeadLetter
from rewardpoints.operate.dead_letters import (
    Listing,
    discard_letters,
    list_letters,
    retry_letters,
    show_letter,
)
from rewardpoints.operate.ledgers import open_ledger
from rewardpoints.operate.progress import Progressing
from rewardpoints.operate.show_dead_letters import print_handled, print_letter, print_listing
from rewardpoints.operate.terminal import AsJson, TrialFolder, instant, load_settings, run
from rewardpoints.settings import Settings
from rewardpoints.telemetry import configure_logging

dead_letters_cli = typer.Typer(no_args_is_help=True)

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Letters, as 3-1042; or choose by options.")]
Reason = Annotated[
    list[RejectReason] | None,
    typer.Option(metavar="REASON", help="Of this reason, as dead-letters list shows it; may be given several times."),
]
Tenant = Annotated[str | None, typer.Option(help="Of this tenant.")]
SourceTopic = Annotated[str | None, typer.Option("--topic", help="From this topic.")]
Since = Annotated[
    datetime | None,
    typer.Option(
        "--from", parser=instant, metavar="TIME", help="Dead letters since then (2025-06-10 or 2025-06-10T12:31:39Z)."
    ),
]
Before = Annotated[
    datetime | None, typer.Option("--to", parser=instant, metavar="TIME", help="Dead letters of before then.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do nothing; count what would be done.")]
Everything = Annotated[bool, typer.Option("--all", help="All that are open.")]


def add_to(cli: typer.Typer) -> None:
    """Register the commands."""
    cli.add_typer(dead_letters_cli, name="dead-letters", help="Read dead letters, publish them again, or discard them.")


@dead_letters_cli.command("list")
def letters_list(
    *,
    reason: Reason = None,
    tenant: Tenant = None,
    topic: SourceTopic = None,
    since: Since = None,
    before: Before = None,
    state: Annotated[
        list[LetterState] | None, typer.Option(help="In this state (open and retrying if not given); may be repeated.")
    ] = None,
    last: Annotated[int, typer.Option(help="At most so many of the newest.", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
    data: TrialFolder = None,
) -> None:
    """List dead letters, oldest first: why each could not be applied, where it came from, what was done about it."""
    states = frozenset(state) if state else frozenset({LetterState.OPEN, LetterState.RETRYING})
    wanted = _filter(reason, tenant, topic, since, before, states)
    print_listing(run(_list(load_settings(data), wanted, last)), as_json=as_json)


@dead_letters_cli.command("show")
def letters_show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="The letter, as 3-1042.")],
    *,
    as_json: AsJson = False,
    data: TrialFolder = None,
) -> None:
    """Show one dead letter with its payload and headers, as JSON."""
    print_letter(run(_show(load_settings(data), LetterId.parse(letter_id))), as_json=as_json)


@dead_letters_cli.command("retry")
def letters_retry(
    ids: Ids = None,
    *,
    reason: Reason = None,
    tenant: Tenant = None,
    topic: SourceTopic = None,
    since: Since = None,
    before: Before = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    data: TrialFolder = None,
) -> None:
    """Publish dead letters again to the topic each came from, once its cause is mended.

    What was applied before is not applied twice. What fails again comes back as a new dead letter with the new reason,
    one attempt more, and where it first stood. Answers 0 only if every letter chosen was published.
    """
    chosen = _chosen(ids, _filter(reason, tenant, topic, since, before), everything=everything)
    handled = run(_retry(load_settings(data), chosen, dry_run=dry_run))
    print_handled(handled, done="retried", dry_run=dry_run, as_json=as_json)
    _answer(handled)


@dead_letters_cli.command("discard")
def letters_discard(
    ids: Ids = None,
    *,
    reason: Reason = None,
    tenant: Tenant = None,
    topic: SourceTopic = None,
    since: Since = None,
    before: Before = None,
    everything: Everything = False,
    note: Annotated[str | None, typer.Option(help="Why, for whoever asks later.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    data: TrialFolder = None,
) -> None:
    """Mark dead letters as done with: nothing will be done about them. They stay in the topic for its retention."""
    chosen = _chosen(ids, _filter(reason, tenant, topic, since, before), everything=everything)
    text = None if note is None else check_text("note", note)
    handled = run(_discard(load_settings(data), chosen, text, dry_run=dry_run))
    print_handled(handled, done="discarded", dry_run=dry_run, as_json=as_json)
    _answer(handled)


def _filter(  # noqa: PLR0917 - the options as every command has them, in their order
    reason: list[RejectReason] | None,
    tenant: str | None,
    topic: str | None,
    since: datetime | None,
    before: datetime | None,
    states: frozenset[LetterState] = frozenset({LetterState.OPEN, LetterState.RETRYING}),
) -> LetterFilter:
    return LetterFilter(
        states=states,
        reasons=frozenset(one.value for one in reason or ()),
        tenant=tenant,
        source_topic=topic,
        since=since,
        before=before,
    )


def _chosen(ids: list[str] | None, matching: LetterFilter, *, everything: bool) -> Chosen:
    given = (matching.reasons, matching.tenant, matching.source_topic, matching.since, matching.before)
    filtered = any(given) or everything
    if bool(ids) == filtered:
        raise typer.BadParameter("name letters by their ids, or choose them by options (--all for every open one)")
    return Chosen(ids=[LetterId.parse(one) for one in ids or ()], matching=matching)


def _answer(handled: Handled) -> None:
    if handled.done < handled.matched:
        raise typer.Exit(1)


async def _list(settings: Settings, wanted: LetterFilter, last: int) -> Listing:
    async with open_ledger(settings) as ledger:
        return await list_letters(settings, ledger, wanted, last=last)


async def _show(settings: Settings, letter_id: LetterId) -> DeadLetter:
    async with open_ledger(settings) as ledger:
        return await show_letter(settings, ledger, letter_id)


async def _retry(settings: Settings, chosen: Chosen, *, dry_run: bool) -> Handled:
    configure_logging("WARNING", json=False)
    async with stop_signals() as stopping, open_ledger(settings) as ledger:
        with Progressing("dead letters", None) as progress:
            return await retry_letters(
                settings,
                ledger,
                chosen,
                dry_run=dry_run,
                stopping=stopping,
                on_progress=lambda handled: progress.at(handled.matched),
            )


async def _discard(settings: Settings, chosen: Chosen, note: str | None, *, dry_run: bool) -> Handled:
    configure_logging("WARNING", json=False)
    async with stop_signals() as stopping, open_ledger(settings) as ledger:
        with Progressing("dead letters", None) as progress:
            return await discard_letters(
                settings,
                ledger,
                chosen,
                note=note,
                dry_run=dry_run,
                stopping=stopping,
                on_progress=lambda handled: progress.at(handled.matched),
            )
