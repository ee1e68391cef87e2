"""The commands that run the service, as Typer has them."""

from typing import Annotated

import typer

from rewardpoints.app.process import serve
from rewardpoints.app.service import Parts
from rewardpoints.app.worker_processes import MOST_PROCESSES, serve_processes
from rewardpoints.operate.terminal import run
from rewardpoints.settings import Settings
from rewardpoints.telemetry import configure_logging


def add_to(cli: typer.Typer) -> None:
    """Register the commands."""
    cli.command()(worker)
    cli.command()(api)


def worker(
    processes: Annotated[
        int,
        typer.Option(
            help="How many worker processes to run, restarted and stopped together.", min=1, max=MOST_PROCESSES
        ),
    ] = 1,
) -> None:
    """Run the order consumer and the relay; health and metrics on REWARDPOINTS_HTTP_WORKER_PORT.

    With several processes that port answers for all of them, and each has its own above it, on this machine only.
    """
    settings = Settings.load()
    _log_as(settings)
    run(serve(settings, Parts.of_worker(settings)) if processes == 1 else serve_processes(settings, processes))


def api() -> None:
    """Run the HTTP API and the consumers of chargebacks and coupon results."""
    settings = Settings.load(tokens=True)
    _log_as(settings)
    run(serve(settings, Parts.of_api(settings)))


def _log_as(settings: Settings) -> None:
    configure_logging(settings.service.log_level, json=settings.service.log_json)
