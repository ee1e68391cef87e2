"""``python -m bench [NAME]...`` measures; ``python -m bench report`` writes the page from what was measured."""

import asyncio
import contextlib
import dataclasses
import logging
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvloop
from typer.core import TyperGroup

from bench import growth, ingest, latency, many_lots, reads, redemptions, replay, summary_batch
from bench.context import Bench, Comparison
from bench.measuring import Outcome
from bench.profiles import PROFILES
from bench.report import write_report
from bench.results import machine_facts, store
from bench.servers import APACHE, EMBEDDED, Choice, NoServer
from bench.sizes import FULL, QUICK, Sizes
from bench.tables import terminal_table
from rewardpoints.operate.terminal import out
from rewardpoints.telemetry import configure_logging
from tests.apache_kafka import ApacheKafkaNotHere
from tests.secantusd_rs import NAME as SECANTUSD
from tests.secantusd_rs import SecantusdNotHere

Result = TypeVar("Result")

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
PUBLISHED = ROOT / "docs" / "performance"
UNPUBLISHED = ROOT / ".cache" / "bench"

COMPARISONS: dict[str, Comparison] = {
    comparison.name: comparison
    for module in (ingest, replay, reads, redemptions, many_lots, summary_batch, latency, growth)
    for comparison in module.COMPARISONS
}


class _RunsByDefault(TyperGroup):
    """``bench ingest`` is ``bench run ingest``."""

    def parse_args(self, context: "typer.Context", args: list[str]) -> list[str]:  # type: ignore[override]  # click's own
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["run", *args]
        return super().parse_args(context, args)


app = typer.Typer(cls=_RunsByDefault, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(help=f"Which: {', '.join(COMPARISONS)}. All by default.")] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, to see that it works; not published.")] = False,
    rounds: Annotated[int | None, typer.Option(help="Rounds of A B A B; overrides the form's.", min=1)] = None,
    lots: Annotated[int | None, typer.Option(help="Lots of the large ledger; overrides the form's.", min=1000)] = None,
    kafka: Annotated[str, typer.Option(help=f"{EMBEDDED}, {APACHE}, or host:port.")] = EMBEDDED,
    mongodb: Annotated[str, typer.Option(help=f"{EMBEDDED}, {SECANTUSD} (or its path), or a URI.")] = EMBEDDED,
    cache: Annotated[str | None, typer.Option(help=f"Cache of {SECANTUSD}, as 14G; else its default.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of the JSON file.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where servers keep data and logs; kept.")] = None,
) -> None:
    """Measure, print a table, and keep the figures as JSON."""
    wanted = _chosen(names or list(COMPARISONS))
    changes = {name: value for name, value in (("rounds", rounds), ("grown_lots", lots)) if value is not None}
    sizes = dataclasses.replace(QUICK if quick else FULL, **changes)
    with _bench(Choice(mongodb=mongodb, kafka=kafka, cache=cache), sizes, folder) as bench:
        failed = uvloop.run(_until_stopped(_run(bench, wanted, results or (UNPUBLISHED if quick else PUBLISHED))))
    if failed:
        raise typer.Exit(1)


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help=f"Of what: {', '.join(PROFILES)}.")],
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes.")] = False,
    kafka: Annotated[str, typer.Option(help="As for run.")] = EMBEDDED,
    mongodb: Annotated[str, typer.Option(help="As for run.")] = EMBEDDED,
) -> None:
    """Print where a process of the service spends its CPU."""
    if name not in PROFILES:
        raise typer.BadParameter(f"{name}: not among {', '.join(PROFILES)}")
    with _bench(Choice(mongodb=mongodb, kafka=kafka), QUICK if quick else FULL, None) as bench:
        sys.stdout.write(uvloop.run(_until_stopped(_profile(name, bench))))


@app.command()
def report(
    page: Annotated[Path, typer.Option(help="The page.")] = PAGE,
    results: Annotated[Path, typer.Option(help="Folder of the JSON files; the plots go there too.")] = PUBLISHED,
) -> None:
    """Write the tables, the capacity model and the plots of the page from what was measured."""
    for path in write_report(page, results):
        _say(f"written: {path}")


@contextlib.contextmanager
def _bench(choice: Choice, sizes: Sizes, folder: Path | None) -> Iterator[Bench]:
    """A run in ``folder``, which is kept, or in a temporary one."""
    configure_logging("ERROR", json=False)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # groups and topics come and go here
    temporary = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
    with contextlib.nullcontext(folder) if folder else temporary as where:
        yield Bench(choice=choice, sizes=sizes, folder=Path(where).absolute(), say=_say)


async def _until_stopped(work: Coroutine[Any, Any, Result]) -> Result:
    """SIGTERM ends it as Ctrl-C does: the processes it started go with it."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


async def _profile(name: str, bench: Bench) -> str:
    return await PROFILES[name](bench)


def _chosen(names: Sequence[str]) -> list[Comparison]:
    unknown = [name for name in names if name not in COMPARISONS]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: not among {', '.join(COMPARISONS)}")
    return [COMPARISONS[name] for name in names]


async def _run(bench: Bench, wanted: Sequence[Comparison], results: Path) -> bool:
    """Run them one after another; one that breaks does not keep the others from running. Whether one broke."""
    console, failed = out(), False
    for comparison in wanted:
        _say(f"{comparison.name}: {comparison.what}")
        began, facts = time.monotonic(), machine_facts(bench)
        try:
            outcome: Outcome = await comparison.run(bench)
        except (NoServer, SecantusdNotHere, ApacheKafkaNotHere) as reason:
            _say(f"{comparison.name}: {reason}")
            return True
        except Exception:  # noqa: BLE001 - whatever broke it, it is shown, and the others are measured
            _say(f"{comparison.name} FAILED\n{traceback.format_exc()}")
            failed = True
            continue
        facts["seconds"] = round(time.monotonic() - began, 1)
        file = store(results, bench, comparison.name, facts, outcome)
        console.print(terminal_table(f"{comparison.name} ({facts['seconds']:.0f} s)", outcome.rows))
        _say(f"kept in {file}")
    return failed


def _say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    app()
