"""Results: a JSON file for each choice of servers, holding the last run of every comparison with where it ran."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from bench.context import Bench
from bench.measuring import Outcome, Point, Row

PACKAGES: Final = (
    "aiokafka", "fastapi", "faststream", "motor", "msgspec", "noida-db", "pyjwt", "pymongo", "secantusdb", "uvicorn",
    "uvloop",
)  # fmt: skip
_ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Stored:
    """A comparison as it was stored: when, on what, and what it came to."""

    name: str
    facts: Mapping[str, Any]
    rows: Sequence[Row]
    curves: Mapping[str, Sequence[Point]]


def machine_facts(bench: Bench) -> dict[str, Any]:
    """What a reader must know of where the figures come from."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cores": len(os.sched_getaffinity(0)),
        "memoryGigabytes": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "mongodb": bench.choice.mongodb_kind,
        "kafka": bench.choice.kafka_kind,
        "rounds": bench.sizes.rounds,
    }


def store(folder: Path, bench: Bench, name: str, facts: Mapping[str, Any], outcome: Outcome) -> Path:
    """Put a comparison into the file of its servers, in place of its last run; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{bench.choice.name}.json"
    content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    content[name] = {
        "facts": dict(facts),
        "rows": [row.as_dict() for row in outcome.rows],
        "curves": {curve: [list(point) for point in points] for curve, points in outcome.curves.items()},
    }
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return file


def load(file: Path) -> list[Stored]:
    """Every comparison in a file."""
    return [
        Stored(
            name,
            found["facts"],
            [Row.from_dict(row) for row in found["rows"]],
            {curve: [(x, y) for x, y in points] for curve, points in found["curves"].items()},
        )
        for name, found in json.loads(file.read_text()).items()
    ]


def _commit() -> str:
    """The commit that was measured; with ``+`` where files had changed since."""
    try:
        done = [
            subprocess.run(  # noqa: S603 - our own command, no shell
                ["git", "-C", str(_ROOT), *command],  # noqa: S607 - whichever git is on the PATH
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for command in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "rewardpoints", "bench"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{done[0]}+" if done[1] else done[0]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
