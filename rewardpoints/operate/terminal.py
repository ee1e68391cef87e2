"""What the commands of operators share at the terminal: options, settings, how they run and how they print."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
import uvloop
from rich.console import Console

from rewardpoints.domain.instants import parse_instant
from rewardpoints.settings import Settings
from rewardpoints.trial.environment import TrialEnvironment

WIDTH_OF_A_FILE: Final = 160
"""Columns of a table that is not shown on a terminal."""

TrialFolder = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Use the trial environment in this folder (that of make run is .rewardpoints) instead of the variables.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]
Result = TypeVar("Result")


def instant(text: str) -> datetime:
    """An option's instant: ISO 8601 with an offset, or a day, which is its beginning in UTC."""
    given = text.strip()
    try:
        return parse_instant(f"{given}T00:00:00+00:00" if len(given) == len("2025-06-10") else given)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}; write 2025-06-10 or 2025-06-10T12:31:39Z") from error


def load_settings(data: Path | None) -> Settings:
    """Of the running trial environment in ``data``, or of the variables.

    Raises:
        NotRunning, SettingsInvalid: there are none.
    """
    return Settings.load() if data is None else TrialEnvironment(data).running_settings()


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's work in an event loop of its own. Ctrl-C cancels it."""
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def out() -> Console:
    """Where tables are printed: as wide as the terminal, or wide enough to be read from a file."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)


def when(instant: datetime) -> str:
    """An instant in a table whose column says that it is UTC."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def print_line(text: str) -> None:
    """One line of plain text, never wrapped: it may be meant to be pasted or read by a program."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """A value as JSON."""
    print_line(json.dumps(value, indent=indent, ensure_ascii=False))
