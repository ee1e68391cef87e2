"""The house: which room may import what. See docs/decisions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rewardpoints"
LEAVES = {"rewardpoints.settings", "rewardpoints.telemetry"}
DRIVERS = {"pymongo", "motor", "bson", "gridfs"}
BROKERS = {"faststream", "aiokafka"}
WEB = {"fastapi", "starlette", "uvicorn"}
ROOMS = ("domain", "ledger", "events", "api", "console")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield node.module or ""
            if node.module == "rewardpoints":
                yield from (f"rewardpoints.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    return module.split(".")[1] if module.startswith("rewardpoints.") else ""


def modules(room: str) -> list[Path]:
    found = sorted((PACKAGE / room).rglob("*.py"))
    assert found, f"room {room} is empty"
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_domain_itself_and_the_leaves(room: str) -> None:
    allowed = {room} if room == "domain" else {room, "domain"}
    leaves = set() if room == "domain" else LEAVES
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in modules(room)
        for name in imports(file)
        if name.startswith("rewardpoints.") and room_of(name) not in allowed and name not in leaves
    ]
    assert not wrong


@pytest.mark.parametrize(("libraries", "room"), [(DRIVERS, "ledger"), (BROKERS, "events"), ({"jinja2"}, "console")])
def test_a_library_has_one_room(libraries: set[str], room: str) -> None:
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if PACKAGE / room not in file.parents
        for name in imports(file)
        if name.split(".")[0] in libraries
    ]
    assert not wrong


def test_the_domain_does_no_io_and_knows_no_framework() -> None:
    forbidden = DRIVERS | BROKERS | WEB | {"httpx", "asyncio", "socket", "os", "pathlib", "time", "random", "secrets"}
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in modules("domain")
        for name in imports(file)
        if name.split(".")[0] in forbidden | {"pydantic", "structlog", "prometheus_client"}
    ]
    assert not wrong


def test_the_domain_reads_no_clock() -> None:
    wrong = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}"
        for file in modules("domain")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}
    ]
    assert not wrong


@pytest.mark.parametrize("leaf", ["settings.py", "telemetry.py"])
def test_the_leaves_import_no_room(leaf: str) -> None:
    assert not [name for name in imports(PACKAGE / leaf) if name.startswith("rewardpoints")]


def test_the_service_knows_nothing_of_what_tests_and_measures_it() -> None:
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for name in imports(file)
        if name.split(".")[0] in {"tests", "bench"}
    ]
    assert not wrong


def test_only_app_and_operate_join_rooms() -> None:
    joiners = {
        str(file.relative_to(PACKAGE))
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.relative_to(PACKAGE).parts[0] not in {"app", "operate"}
        if len({room_of(name) for name in imports(file)} & {"ledger", "events", "api", "console"}) > 1
    }
    assert not joiners


def test_only_the_command_line_and_app_know_operate() -> None:
    """The console calls its functions through what ``app`` hands it."""
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.relative_to(PACKAGE).parts[0] not in {"operate", "app", "cli.py"}
        for name in imports(file)
        if room_of(name) == "operate"
    ]
    assert not wrong
