"""Running what operators run: the functions in this process, the commands as processes of their own."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardpoints.app.service import Parts, Service
from rewardpoints.domain.differences import Difference
from rewardpoints.domain.replays import Replay
from rewardpoints.operate.replay import Hearing
from rewardpoints.settings import HttpSettings, MongodbSettings, ServiceSettings, Settings, SiteSettingsSettings
from tests.e2e.stack import Stack

COMMAND_SECONDS = 180.0


def settings_of(stack: Stack, *, max_batch_records: int = 1000) -> Settings:
    return Settings(
        mongodb=MongodbSettings.model_validate({"uri": stack.mongodb_uri, "database": stack.database}),
        kafka=stack.kafka.model_copy(update={"max_batch_records": max_batch_records}),
        http=HttpSettings(),
        site_settings=SiteSettingsSettings(cache_seconds=0),
        service=ServiceSettings(),
    )


@contextlib.asynccontextmanager
async def live(stack: Stack) -> AsyncIterator[None]:
    """All consumers of the service in this process, until the context ends."""
    settings = Settings(
        mongodb=settings_of(stack).mongodb,
        kafka=stack.kafka.model_copy(update={"group_instance_id": "w1"}),
        http=HttpSettings(worker_port=0),
        site_settings=SiteSettingsSettings(cache_seconds=0),
        service=ServiceSettings(flood_pause=False),
    )
    service = Service(settings, Parts(orders=True, coupon_answers=True))
    await service.start()
    try:
        yield
    finally:
        await service.stop()


@dataclass
class Ear:
    """Hears everything a replay says."""

    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    progress: list[Replay] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    @property
    def hearing(self) -> Hearing:
        return Hearing(stopping=self.stopping, on_progress=self.progress.append, on_difference=self.differences.append)


@dataclass
class Command:
    """A ``rewardpoints`` command as a process."""

    process: asyncio.subprocess.Process

    async def output(self) -> tuple[int, str, str]:
        """Status, standard output and standard error, when it has ended."""
        async with asyncio.timeout(COMMAND_SECONDS):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()

    async def interrupt(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGINT)
        return await self.output()

    async def kill(self) -> None:
        self.process.kill()
        await self.process.communicate()


async def command(stack: Stack, *arguments: str, **changes: str) -> Command:
    """Start a command over the stack's servers."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REWARDPOINTS")}
    return Command(
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "rewardpoints.cli",
            *arguments,
            env=environment | stack.environment(**changes),
            cwd=stack.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    )


async def answered(stack: Stack, arguments: Sequence[str], *, status: int = 0, **changes: str) -> Any:
    """The JSON a command prints."""
    code, out, err = await (await command(stack, *arguments, "--json", **changes)).output()
    assert code == status, f"{arguments} ended with {code}:\n{err[-3000:]}\n{out[-3000:]}"
    return json.loads(out)
