"""A MongoDB-wire server to be found on the machine: ``secantusd-rs``, which cargo installs and builds.

It does more in a second than the embedded one, so that what is measured or broken over it is this service. It has no
fail points.
"""

import os
import shutil
import signal
from pathlib import Path
from typing import Final

from rewardpoints.embedded import Server
from rewardpoints.embedded.ports import HOST
from rewardpoints.embedded.probes import probe_mongodb
from rewardpoints.embedded.server import Program

NAME: Final = "secantusd-rs"


class SecantusdNotHere(Exception):
    """It is not where it was said to be; the message says where that was."""


def is_secantusd(choice: str) -> bool:
    """Whether a choice of a server names it, or a path to it."""
    return Path(choice).name == NAME


def secantusd_server(choice: str, folder: Path, *, cache: str | None = None, start_seconds: float = 30.0) -> Server:
    """A server with its data in ``folder``, started as a context. What it acknowledged survives kill -9.

    ``cache`` is the size of its cache (``14G``), else its own default.

    Raises:
        SecantusdNotHere
    """
    program = shutil.which(choice)
    if program is None or not is_secantusd(choice):
        raise SecantusdNotHere(f"{choice}: no {NAME}, neither on the PATH nor as a path")

    def command(data: Path, port: int) -> list[str]:
        config = data.with_name("secantusd.toml")
        config.touch()  # without it the server looks for one in the user's home and in /etc
        return [
            *(os.path.realpath(program), "--config", str(config), "--host", HOST, "--port", str(port)),
            *("--storage-path", str(data), "--sync-on-commit"),
            *(("--cache-size", cache) if cache else ()),
        ]

    return Server(
        Program(
            name=f"MongoDB-wire server {NAME}",
            command=command,
            listening="listening on {address}",
            probe=probe_mongodb,
            death_signal=signal.SIGKILL,  # its data goes with the run
        ),
        folder,
        start_seconds=start_seconds,
    )
