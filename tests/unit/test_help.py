"""What ``--help`` says: whole, and what the documents say of commands and options."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rewardpoints.cli import COMMANDS as WHERE
from rewardpoints.cli import command_line

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "CONTRIBUTING.md"]
PLACEHOLDERS = {"…", "..."}


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it, groups too."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


cli = command_line()
COMMANDS = dict(commands(typer.main.get_command(cli)))


def flat(text: str) -> str:
    """Without frames, line breaks and the marks of Markdown."""
    return " ".join(re.sub(r"[│╭╮╰╯─`]", " ", text).split())


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "rewardpoints")
def test_help_shows_everything_it_was_given(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    answer = CliRunner().invoke(cli, [*path, "--help"], env={"COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"})
    assert answer.exit_code == 0
    shown = flat(answer.output)
    for paragraph in (command.help or "").split("\n\n"):
        assert flat(paragraph) in shown
    for parameter in command.params:
        assert flat(getattr(parameter, "help", None) or "") in shown
        assert all(name in shown for name in parameter.opts if name.startswith("--"))


def calls() -> list[Any]:
    """Every call of the command line in the documents, as it is written."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        written = re.findall(r"`(?:[A-Z_]+=\S+ )?rewardpoints ([^`]+)`", text)
        written += re.findall(r"^(?:    |\$ )(?:[A-Z_]+=\S+ )?rewardpoints (.*)$", text, re.MULTILINE)
        found += [pytest.param(call, id=f"{document.name}: {flat(call)[:60]}") for call in written]
    assert len(found) > 20
    return found


@pytest.mark.parametrize("call", calls())
def test_documents_call_commands_and_options_that_exist(call: str) -> None:
    words = re.sub(r"\s#.*", "", call, flags=re.DOTALL).split()
    path: tuple[str, ...] = ()
    while words and (*path, words[0].split("|")[0]) in COMMANDS:
        path = (*path, words.pop(0).split("|")[0])
    assert path or not words or words[0].startswith("--") or words[0] in PLACEHOLDERS
    allowed = {name for parameter in COMMANDS[path].params for name in parameter.opts} | {"--help"}
    asked = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", call))
    assert asked - allowed == set()


def test_every_command_is_found_where_the_command_line_says() -> None:
    whole = getattr(typer.main.get_command(cli), "commands", {})
    assert set(whole) == set(WHERE)
    for name in WHERE:
        assert name in getattr(typer.main.get_command(command_line(name)), "commands", {})


@pytest.mark.parametrize(
    ("command", "needed", "others"),
    [
        ("token", "jwt", {"fastapi", "pymongo", "aiokafka", "rewardpoints.operate.rebuild_into"}),
        ("worker", "faststream", {"fastapi", "jinja2", "rewardpoints.console", "rewardpoints.app.api"}),
    ],
)
def test_a_command_imports_only_what_it_needs(command: str, needed: str, others: set[str]) -> None:
    program = f"import sys; from rewardpoints.cli import command_line; command_line({command!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)  # noqa: S603 - own
    assert needed in done.stdout.split()
    assert not others & set(done.stdout.split())
