import importlib.metadata
import importlib.util
import os
import signal
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from rewardpoints.embedded.errors import EmbeddedNotInstalled
from rewardpoints.embedded.ports import HOST
from rewardpoints.embedded.probes import probe_kafka, probe_mongodb
from rewardpoints.embedded.server import Program, Server

_MONGODB_PACKAGE, _MONGODB_SCRIPT = "secantusdb", "secantusd-py"
_KAFKA_PACKAGE, _KAFKA_MODULE, _KAFKA_BINARY = "noida-db", "noida_db", "noida-db"


def mongodb_server(
    folder: Path,
    *,
    port: int | None = None,
    test_commands: bool = False,
    options: Sequence[str] = (),
    start_seconds: float = 30.0,
    stop_seconds: float = 10.0,
) -> Server:
    """A MongoDB-wire server (secantusd-py: one-node replica set, transactions) that keeps its data in ``folder``.

    ``test_commands`` allows fault injection (``configureFailPoint``); ``options`` are further arguments of its command
    line, such as ``--auth``. Without ``port`` a free one is chosen at the first start. Raises EmbeddedNotInstalled.
    """
    script = _mongodb_script()

    def command(data: Path, chosen: int) -> list[str]:
        config = data.with_name("secantusd.toml")
        config.touch()  # an empty one: without it the server looks for one in the user's home and in /etc
        return [
            *(str(script), "--config", str(config), "--host", HOST, "--port", str(chosen)),
            *("--storage-path", str(data)),
            "--sync-on-commit",  # without it a kill loses acknowledged transactions
            *(["--enable-test-commands"] if test_commands else []),
        ]

    program = Program(
        name=f"MongoDB-wire server {_MONGODB_SCRIPT}",
        command=command,
        listening="listening on {address}",
        probe=probe_mongodb,
        death_signal=signal.SIGKILL,  # commits are synced, so nothing is lost and nothing can hang
    )
    return Server(program, folder, port=port, options=options, start_seconds=start_seconds, stop_seconds=stop_seconds)


def kafka_server(
    folder: Path,
    *,
    port: int | None = None,
    options: Sequence[str] = (),
    start_seconds: float = 30.0,
    stop_seconds: float = 10.0,
) -> Server:
    """A Kafka-wire broker (noida-db, one node) that keeps its data in ``folder``.

    ``options`` are further arguments of its command line. Without ``port`` a free one is chosen at the first start.
    Raises EmbeddedNotInstalled.
    """
    binary = _kafka_binary()

    def command(data: Path, chosen: int) -> list[str]:
        where = ["--data-dir", str(data), "--host", HOST]
        return [str(binary), "start", *where, "--only", "kafka", "--kafka-port", str(chosen)]

    program = Program(
        name=f"Kafka-wire broker {_KAFKA_BINARY}",
        command=command,
        listening="{address}",
        probe=probe_kafka,
        death_signal=signal.SIGTERM,  # a kill would lose the last second; this ends it in less than 0.1 s
    )
    return Server(program, folder, port=port, options=options, start_seconds=start_seconds, stop_seconds=stop_seconds)


def _mongodb_script() -> Path:
    try:
        distribution = importlib.metadata.distribution(_MONGODB_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise EmbeddedNotInstalled(_MONGODB_PACKAGE) from None
    installed = [Path(str(file.locate())) for file in distribution.files or [] if file.name == _MONGODB_SCRIPT]
    for script in (*installed, Path(sysconfig.get_path("scripts"), _MONGODB_SCRIPT)):
        if os.access(script, os.X_OK):
            return script.resolve()
    raise EmbeddedNotInstalled(_MONGODB_PACKAGE)


def _kafka_binary() -> Path:
    spec = importlib.util.find_spec(_KAFKA_MODULE)  # finds it without running its code
    for location in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(location, _KAFKA_BINARY)
        if os.access(binary, os.X_OK):
            return binary.resolve()
    raise EmbeddedNotInstalled(_KAFKA_PACKAGE)
