"""The command that watches the service, as Typer has it."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Annotated

import typer
from rich.live import Live

from rewardpoints.app.clock import utc_now
from rewardpoints.app.commands import ServerRefused
from rewardpoints.app.stopping import stop_signals, until_first
from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.domain.lag import State
from rewardpoints.operate.lag import states
from rewardpoints.operate.ledgers import open_ledger
from rewardpoints.operate.show_lag import state_json, state_tables
from rewardpoints.operate.terminal import AsJson, TrialFolder, load_settings, out, print_json, run
from rewardpoints.settings import Settings

Show = Callable[[State], None]


def add_to(cli: typer.Typer) -> None:
    """Register the command."""
    cli.command()(lag)


def lag(
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Again and again, until Ctrl-C; with --json a line each.")
    ] = False,
    interval: Annotated[
        float, typer.Option(help="Seconds between two looks; rates are those of this time.", min=0.1, max=3600)
    ] = 1,
    as_json: AsJson = False,
    data: TrialFolder = None,
) -> None:
    """Show whether the service keeps up: its lag on Kafka, its groups, what is rejected, and the coupons on their way.

    For every partition the records that wait, the age of the oldest, rates, and who reads it; how many records of the
    last hour became dead letters; coupon requests not yet published; redemptions waiting, overdue and charged back.
    Joins no group and changes nothing.
    """
    settings = load_settings(data)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it cannot reach is said once, below
    if watch:
        run(_watch(settings, interval, as_json=as_json))
        return
    state = run(_once(settings, interval))
    if as_json:
        print_json(state_json(state))
    else:
        out().print(state_tables(state))


async def _once(settings: Settings, interval: float) -> State:
    async with (
        open_ledger(settings) as ledger,
        aclosing(states(settings, ledger, utc_now, interval_seconds=interval)) as following,
    ):
        return await anext(following)


async def _watch(settings: Settings, interval: float, *, as_json: bool) -> None:
    async with stop_signals() as asked:
        if as_json:
            await until_first(asked.wait(), _follow(settings, interval, _print_line, _print_problem))
            return
        console = out()
        if not console.is_terminal:
            tell = console.print
            await until_first(asked.wait(), _follow(settings, interval, lambda one: tell(state_tables(one)), tell))
            return
        with Live(console=console, auto_refresh=False) as live:

            def show(state: State) -> None:
                live.update(state_tables(state), refresh=True)

            def problem(text: str) -> None:
                live.update(text, refresh=True)

            await until_first(asked.wait(), _follow(settings, interval, show, problem))


async def _follow(settings: Settings, interval: float, show: Show, problem: Callable[[str], None]) -> None:
    """Show every state; a server that is down is told and waited for."""
    while True:
        try:
            async with (
                open_ledger(settings) as ledger,
                aclosing(states(settings, ledger, utc_now, interval_seconds=interval)) as following,
            ):
                async for state in following:
                    show(state)
        except (ServerRefused, LedgerUnavailable) as error:
            problem(f"{utc_now():%H:%M:%S} {error}")
            await asyncio.sleep(interval)


def _print_line(state: State) -> None:
    print_json(state_json(state), indent=None)


def _print_problem(text: str) -> None:
    print_json({"problem": text}, indent=None)
