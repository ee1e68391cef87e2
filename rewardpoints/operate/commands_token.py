"""The command that makes tokens for the trial environment, as Typer has it."""

from pathlib import Path
from typing import Annotated

import typer

from rewardpoints.domain.accounts import check_tenant
from rewardpoints.trial.environment import DEFAULT_FOLDER, TrialEnvironment
from rewardpoints.trial.tokens import TrialTokens


def add_to(cli: typer.Typer) -> None:
    """Register the command."""
    cli.command()(token)


def token(
    tenant: Annotated[str, typer.Option(help="Tenant the token is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="A scope; may be given several times.")] = None,
    customer: Annotated[str | None, typer.Option(help="Make it this customer's token.")] = None,
    data: Annotated[Path, typer.Option("--data", help="Folder of the trial environment.")] = DEFAULT_FOLDER,
    *,
    create_key: Annotated[bool, typer.Option("--create-key", help="Make the signing key where there is none.")] = False,
) -> None:
    """Print a token for the trial environment, and nothing else."""
    tokens = TrialTokens(TrialEnvironment(data).keys_folder)
    if create_key:
        tokens.ensure_key()
    typer.echo(tokens.issue(tenant=check_tenant(tenant), scopes=scope or (), customer_id=customer))
