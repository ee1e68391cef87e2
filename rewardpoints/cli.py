"""The command line. Every command answers 0 only where it did what it was asked.

A command's module is imported when the command is called: all of them together take longer than most commands.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Final

import typer

from rewardpoints import __version__
from rewardpoints.domain.errors import RewardPointsError
from rewardpoints.settings import SettingsInvalid

COMMANDS: Final[Mapping[str, str]] = {
    "worker": "commands_serve",
    "api": "commands_serve",
    "dev": "commands_trial",
    "simulate": "commands_trial",
    "token": "commands_token",
    "topics": "commands_servers",
    "indexes": "commands_servers",
    "lag": "commands_lag",
    "verify": "commands_ledger",
    "adjust": "commands_ledger",
    "explain": "commands_ledger",
    "liability": "commands_ledger",
    "replay": "commands_replay",
    "dead-letters": "commands_dead_letters",
    "rebuild": "commands_rebuild",
    "tombstones": "commands_rebuild",
}
"""Where each command is, in ``rewardpoints.operate``."""


def main() -> None:
    """Run the command line; what is refused on purpose is one line on standard error and status 1."""
    try:
        command_line(sys.argv[1] if len(sys.argv) > 1 else None)()
    except (RewardPointsError, SettingsInvalid, OSError) as error:
        print(f"rewardpoints: {error}", file=sys.stderr)  # noqa: T201 - the command's own output
        sys.exit(1)


def command_line(called: str | None = None) -> typer.Typer:
    """The command line with the command that is called and those beside it; with all where it is none of them."""
    # As Markdown: Rich's own markup would take what stands in [brackets] for a style, and break paragraphs
    cli = typer.Typer(
        no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
    )
    cli.callback(invoke_without_command=True)(_root)
    if called == "--version":
        return cli
    alone = COMMANDS.get(called or "")
    for module in [alone] if alone else dict.fromkeys(COMMANDS.values()):
        import_module(f"rewardpoints.operate.{module}").add_to(cli)
    return cli


def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Event-driven reward points: Kafka orders in, a MongoDB ledger of lots, an HTTP API, coupon requests out.

    Settings are environment variables with the prefix REWARDPOINTS_; see docs/settings.md.
    """
    if version:
        typer.echo(__version__)
        raise typer.Exit


if __name__ == "__main__":
    main()
