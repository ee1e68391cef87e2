"""An API to be killed and started hundreds of times: a process that has imported it all forks for each start.

``python -m tests.faults.forked_api`` does that for its parent: a line on standard input starts an API, whose pid is
answered; when it has ended, its status is.
"""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx

from rewardpoints import cli
from rewardpoints.embedded import tether
from tests.e2e.stack import until

_ROOT = Path(__file__).parents[2]
_PR_SET_PDEATHSIG = 1

START_SECONDS = 180.0
"""The bound is for a broken build, not for a slow machine."""


class ForkedApi:
    """Starts, kills and stops APIs, one at a time, on the port their settings name."""

    def __init__(self, url: str, environment: Mapping[str, str], folder: Path) -> None:
        self.url = url
        self._environment = {**os.environ, **environment, "PYTHONPATH": str(_ROOT)}
        self._folder = folder
        self._forks: asyncio.subprocess.Process | None = None
        self._pid: int | None = None

    async def __aenter__(self) -> Self:
        tied = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), str(int(signal.SIGKILL))]
        with (self._folder / "api.log").open("ab") as log:
            self._forks = await asyncio.create_subprocess_exec(
                *tied,
                *(sys.executable, "-m", "tests.faults.forked_api"),
                env=self._environment,
                cwd=self._folder,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._forks is not None
        if self._pid is not None:
            await self.kill()
        self._forks.kill()
        await self._forks.wait()

    @property
    def log(self) -> str:
        return (self._folder / "api.log").read_text()[-3000:]

    async def start(self) -> None:
        """Returns when MongoDB and Kafka are up for it."""
        assert self._forks is not None
        assert self._forks.stdin is not None
        self._forks.stdin.write(b"start\n")
        self._pid = await self._answer()
        async with httpx.AsyncClient(base_url=self.url, timeout=5) as client:
            await until(lambda: _is_ready(client), seconds=START_SECONDS, what=f"the API ready:\n{self.log}")

    async def kill(self) -> None:
        """kill -9."""
        assert await self._end(signal.SIGKILL) == -signal.SIGKILL

    async def stop(self) -> int:
        """SIGTERM; answers the exit status."""
        return await self._end(signal.SIGTERM)

    async def _end(self, how: signal.Signals) -> int:
        assert self._pid is not None
        os.kill(self._pid, how)
        self._pid = None
        return await self._answer()

    async def _answer(self) -> int:
        assert self._forks is not None
        assert self._forks.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await self._forks.stdout.readline()
        assert line, f"it ended:\n{self.log}"
        return int(line)


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        answer = await client.get("/readyz")
    except httpx.HTTPError:
        return False
    return answer.is_success and all(check["status"] == "up" for check in answer.json()["checks"].values())


def main() -> None:
    """Ends when its parent closes standard input, or ends."""
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
            sys.argv = ["rewardpoints", "api"]
            cli.main()
            os._exit(0)
        _say(pid)
        _, status = os.waitpid(pid, 0)
        _say(os.waitstatus_to_exitcode(status))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
