"""Apache Kafka for the tests, without Docker: its jars from Maven, its brokers as child processes on loopback.

``python -m tests.apache_kafka`` fetches the jars and exits with 0, or says why Apache Kafka cannot be had here and
exits with 75. Java 17, Maven and a repository it reaches are needed; which repository is for Maven's own settings.
"""

import asyncio
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rewardpoints.embedded import Server
from rewardpoints.embedded.ports import HOST, free_port
from rewardpoints.embedded.probes import probe_kafka
from rewardpoints.embedded.server import Program

CACHE = Path(__file__).parents[1] / ".cache" / "apache-kafka"

_SOURCE = Path(__file__).with_name("kafka")
_COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies"
_JAVA_VERSION = 17
_FETCH_SECONDS = 240.0
_VERSION_SECONDS = 30.0
_CLUSTER_ID = "cmV3YXJkcG9pbnRzLXRlcw"  # 16 bytes in base64, any will do
_START_SECONDS = 90.0
_STOP_SECONDS = 15.0

# Formats the log folder where that was not done yet, then becomes the broker: one pid for the launcher to look after.
_FORMAT_AND_RUN = f"""
properties=$1; formatted=$2; users=$3; shift 3
test -e "$formatted" || "$@" kafka.tools.StorageTool format -t {_CLUSTER_ID} -c "$properties" $users || exit 1
exec "$@" kafka.Kafka "$properties"
"""


class ApacheKafkaNotHere(Exception):
    """Apache Kafka cannot be had on this machine; the message is the reason to skip with."""


def fetched_jars() -> Path:
    """The folder with the broker's jars, fetched on the first call and kept in ``CACHE`` for each state of the pom.

    Blocks for at most some minutes. Raises ApacheKafkaNotHere where Java 17 or Maven is missing, or where Maven cannot
    bring the jars.
    """
    _need_java()
    pom = _SOURCE / "pom.xml"
    jars = CACHE / f"libs-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise ApacheKafkaNotHere("Apache Kafka's jars are not here, and neither is mvn to fetch them")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Maven's own store does not bear two at once
        if not jars.is_dir():
            _fetch(maven, pom, jars)
    return jars


class ApacheKafka:
    """A cluster of Apache Kafka brokers, each of them a controller too (KRaft), in a folder of its own.

    Three brokers keep three replicas and need two in sync; one broker keeps one. ``settings`` go over those of the
    brokers' file; ``{own}`` in one stands for what it goes over. ``scram_users`` are names with their passwords.
    ``brokers`` are the single ones, to be killed and restarted; a broker keeps port and data.
    """

    def __init__(
        self,
        jars: Path,
        folder: Path,
        *,
        brokers: int = 1,
        settings: Mapping[str, str] | None = None,
        scram_users: Mapping[str, str] | None = None,
    ) -> None:
        java = shutil.which("java")
        if java is None:
            raise ApacheKafkaNotHere("java is missing")
        self._controllers = {node: free_port() for node in range(1, brokers + 1)}
        self._settings = dict(settings or {})
        self._users = " ".join(
            f"--add-scram {mechanism}=[name={name},password={password}]"
            for name, password in (scram_users or {}).items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        )
        command = [java, "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]  # quick to start, small
        command += [f"-Dlog4j2.configurationFile={_SOURCE / 'log4j2.properties'}", "-cp", f"{jars}/*"]
        self.brokers = tuple(
            Server(
                self._program(node, command),
                folder / f"broker-{node}",
                start_seconds=_START_SECONDS,
                stop_seconds=_STOP_SECONDS,
            )
            for node in self._controllers
        )

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` of every broker, separated by commas. Raises RuntimeError before the first start."""
        return ",".join(broker.address for broker in self.brokers)

    async def start(self) -> None:
        """Starts every broker and returns when all of them answer; raises ServerStartFailed where one does not."""
        try:
            async with asyncio.TaskGroup() as all_of_them:  # a majority has to be there before one can work
                for broker in self.brokers:
                    all_of_them.create_task(broker.start())
        except BaseExceptionGroup as errors:
            await self.kill()
            raise errors.exceptions[0] from None
        except BaseException:
            await self.kill()
            raise

    async def kill(self) -> None:
        """Ends every broker at once (SIGKILL): a cluster that loses its majority cannot stop in order."""
        await asyncio.gather(*(broker.kill() for broker in self.brokers))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    def _program(self, node: int, java: Sequence[str]) -> Program:
        def command(data: Path, port: int) -> list[str]:
            if len(self._controllers) == 1:
                self._controllers[node] = free_port()  # a single one is free to move where its port was taken
            properties = data.with_name("server.properties")
            lines = [f"{name}={value}\n" for name, value in self._properties(node, data, port).items()]
            properties.write_text("".join(lines))
            formatted = str(data / "meta.properties")
            return ["/bin/sh", "-c", _FORMAT_AND_RUN, "sh", str(properties), formatted, self._users, *java]

        return Program(
            name=f"Apache Kafka broker {node}",
            command=command,
            listening="Awaiting socket connections on {address}",
            probe=probe_kafka,
            death_signal=signal.SIGKILL,  # its data goes with the tests
        )

    def _properties(self, node: int, data: Path, port: int) -> dict[str, str]:
        replicas = min(3, len(self._controllers))
        in_sync = max(1, replicas - 1)
        voters = ",".join(f"{voter}@{HOST}:{controller}" for voter, controller in self._controllers.items())
        own = {
            "node.id": str(node),
            "process.roles": "broker,controller",
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{self._controllers[node]}",
            "log.dirs": str(data),
            "num.partitions": "1",
            "default.replication.factor": str(replicas),
            "min.insync.replicas": str(in_sync),
            "offsets.topic.replication.factor": str(replicas),
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": str(replicas),
            "transaction.state.log.min.isr": str(in_sync),
            "transaction.state.log.num.partitions": "2",
            "share.coordinator.state.topic.replication.factor": str(replicas),
            "share.coordinator.state.topic.min.isr": str(in_sync),
            "group.initial.rebalance.delay.ms": "0",  # the tests' members do not come in crowds
            "log.cleaner.dedupe.buffer.size": "8388608",
            "log.index.size.max.bytes": "1048576",
            "num.io.threads": "4",
            "num.network.threads": "2",
        }
        changed = {name: value.replace("{own}", own.get(name, "")) for name, value in self._settings.items()}
        return {**own, **changed}


def _need_java() -> None:
    java = shutil.which("java")
    if java is None:
        raise ApacheKafkaNotHere(f"Apache Kafka 4 needs Java {_JAVA_VERSION}, and there is no java")
    shown = _run([java, "-version"], _VERSION_SECONDS).stdout
    version = re.search(r'version "(\d+)', shown)
    if version is None or int(version[1]) < _JAVA_VERSION:
        raise ApacheKafkaNotHere(f"Apache Kafka 4 needs Java {_JAVA_VERSION}; here is {shown.strip()!r}")


def _fetch(maven: str, pom: Path, jars: Path) -> None:
    """Has Maven copy the jars beside ``jars`` and moves them there when all have come."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        target = Path(folder, secrets.token_hex(4))
        goal = [_COPY_DEPENDENCIES, "-DincludeScope=runtime", f"-DoutputDirectory={target}"]
        fetched = _run([maven, "--batch-mode", "--quiet", "--file", str(pom), *goal], _FETCH_SECONDS)
        if fetched.returncode != 0 or not list(target.glob("kafka_*.jar")):
            lines = re.sub(r"\x1b\[[0-9;]*m", "", fetched.stdout).splitlines()
            told = next((line for line in lines if "ERROR" in line), "without saying why")
            raise ApacheKafkaNotHere(f"Maven could not bring Apache Kafka's jars: {told.strip()[:500]}")
        target.rename(jars)


def _run(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603  # our own command, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ApacheKafkaNotHere(f"{Path(command[0]).name} did not end within {seconds:g} s") from None


def main() -> int:
    """Fetches the jars; answers the exit status."""
    try:
        fetched_jars()
    except ApacheKafkaNotHere as reason:
        sys.stdout.write(f"{reason}\n")
        return os.EX_TEMPFAIL
    return 0


if __name__ == "__main__":
    sys.exit(main())
