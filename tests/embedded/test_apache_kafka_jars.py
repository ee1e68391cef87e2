"""Where Apache Kafka's jars come from, and what is said where they cannot come."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import apache_kafka
from tests.apache_kafka import ApacheKafkaNotHere, fetched_jars, main

Program = Callable[[str, str], None]

JAVA = """echo 'openjdk version "17.0.15" 2025-04-15' >&2"""
MAVEN = """for argument; do case "$argument" in -DoutputDirectory=*) folder=${argument#*=};; esac; done
echo run >> "$0.runs"; /bin/mkdir -p "$folder"; : > "$folder/kafka_2.13-4.jar" """


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Makes a program that stands in for one of this machine, which are all out of reach."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(apache_kafka, "CACHE", tmp_path / "cache")

    def make(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return make


def test_without_java_it_says_so(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 75  # what `make test-apache-kafka` takes for a reason to skip
    assert "there is no java" in capsys.readouterr().out


def test_an_old_java_is_named(program: Program) -> None:
    program("java", """echo 'openjdk version "11.0.2" 2019-01-15' >&2""")
    with pytest.raises(ApacheKafkaNotHere, match=r"needs Java 17; here is .*11\.0\.2"):
        fetched_jars()


def test_without_maven_it_says_so(program: Program) -> None:
    program("java", JAVA)
    with pytest.raises(ApacheKafkaNotHere, match="neither is mvn"):
        fetched_jars()


def test_a_failed_fetch_says_why_leaves_nothing_and_is_made_good_by_the_next(program: Program, tmp_path: Path) -> None:
    program("java", JAVA)
    program("mvn", f"{MAVEN}; echo '[ERROR] Unknown host'; exit 1")
    with pytest.raises(ApacheKafkaNotHere, match="Unknown host"):
        fetched_jars()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]
    program("mvn", MAVEN)
    assert [jar.name for jar in fetched_jars().iterdir()] == ["kafka_2.13-4.jar"]


def test_jars_are_fetched_once(program: Program, tmp_path: Path) -> None:
    program("java", JAVA)
    program("mvn", MAVEN)
    assert fetched_jars() == fetched_jars()
    assert (tmp_path / "bin" / "mvn.runs").read_text() == "run\n"
    assert main() == 0
