"""Commands as an operator types them, run in this process: an interpreter of its own for each takes seconds."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from typer.testing import CliRunner

from rewardpoints.cli import command_line
from rewardpoints.domain.errors import RewardPointsError

COMMAND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Typed:
    """What a command answered."""

    status: int
    out: str
    err: str


async def typed(environment: Mapping[str, str], *arguments: str) -> Typed:
    """Type ``rewardpoints`` with these arguments; what it refuses on purpose is status 1, as ``main`` has it."""

    def invoke() -> Typed:
        result = CliRunner().invoke(command_line(), arguments, env=dict(environment))
        if isinstance(result.exception, RewardPointsError):
            return Typed(1, result.stdout, f"{result.stderr}rewardpoints: {result.exception}\n")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Typed(result.exit_code, result.stdout, result.stderr)

    async with asyncio.timeout(COMMAND_SECONDS):
        return await asyncio.to_thread(invoke)
