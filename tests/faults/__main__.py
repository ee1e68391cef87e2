"""``python -m tests.faults SCENARIO``: the long runs with real processes killed. Prints figures; 1 on a violation."""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.faults.bad_records import BadRecordsOptions, bad_records
from tests.faults.environment import Outcome
from tests.faults.mongodb_kills import MongodbKillsOptions, mongodb_kills
from tests.faults.soak import SoakOptions, soak
from tests.faults.worker_kills import WorkerKillsOptions, worker_kills

SCENARIOS: dict[str, tuple[type[Any], Callable[..., Awaitable[Outcome]]]] = {
    "soak": (SoakOptions, soak),
    "worker-kills": (WorkerKillsOptions, worker_kills),
    "mongodb-kills": (MongodbKillsOptions, mongodb_kills),
    "bad-records": (BadRecordsOptions, bad_records),
}


def main() -> int:
    """Run a scenario with the sizes that were given."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where servers keep data and logs; kept. Default: a temporary one")
    scenarios = parser.add_subparsers(dest="scenario", required=True)
    for scenario, (options, run) in SCENARIOS.items():
        lines = (sys.modules[run.__module__].__doc__ or scenario).splitlines()
        command = scenarios.add_parser(scenario, help=lines[0], description="\n".join(lines))
        for field in dataclasses.fields(options):
            name = f"--{field.name.replace('_', '-')}"
            if isinstance(field.default, bool):
                command.add_argument(name, action=argparse.BooleanOptionalAction, default=field.default)
            else:
                kind = Path if field.default is None else type(field.default)
                command.add_argument(name, type=kind, default=field.default)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the broker is away again and again, as asked for
    asked = vars(parser.parse_args())
    name = asked.pop("scenario")
    options, run = SCENARIOS[name]
    with _folder(asked.pop("folder")) as folder:
        outcome = asyncio.run(_until_stopped(run(options(**asked), Path(folder), _say)))
    for what, figure in outcome.figures.items():
        _say(f"{what}: {json.dumps(figure) if isinstance(figure, dict) else figure}")
    for problem in outcome.problems:
        _say(f"VIOLATION: {problem}")
    _say(f"{name}: {len(outcome.problems)} violations, {outcome.figures.get('seconds', '')}")
    return 1 if outcome.problems else 0


def _folder(given: Path | None) -> contextlib.AbstractContextManager[Path | str]:
    return contextlib.nullcontext(given) if given else tempfile.TemporaryDirectory(prefix="faults-")


async def _until_stopped(run: Awaitable[Outcome]) -> Outcome:
    """SIGTERM ends it as Ctrl-C does: the processes it started go with it."""
    task = asyncio.ensure_future(run)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    began = time.monotonic()
    outcome = await task
    outcome.figures["seconds"] = round(time.monotonic() - began, 1)
    return outcome


def _say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
