"""Progress of something long: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_EVERY_SECONDS: Final = 10.0
SHOWN_EVERY_SECONDS: Final = 0.1


class Progressing:
    """Shows how far something is, on standard error. ``total`` may be a guess, or None where nobody knows."""

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self._what = what
        self.total = total
        self._clock = clock
        # Soft wrap: what a command prints meanwhile goes through this console, and may be meant to be pasted
        self._console = console or Console(file=sys.stderr, soft_wrap=True)
        self._began = self._shown = clock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # a file or a pipe gets what is printed, not the terminal
            )
            self._task = self._bar.add_task(self._what, total=self.total, detail="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def at(self, done: int, note: str = "") -> None:
        """So much is done; shown when it is time to, with ``note`` behind it."""
        now = self._clock()
        if now - self._shown < (SHOWN_EVERY_SECONDS if self._bar else PLAIN_EVERY_SECONDS):
            return
        self._shown = now
        rate = done / max(now - self._began, 1e-6)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, total=self.total, completed=done, detail=f"{done:,} ({rate:,.0f}/s) {note}".rstrip()
            )
            return
        share = f" of about {self.total:,}" if self.total else ""
        left = f", {max(self.total - done, 0) / rate:,.0f} s left" if self.total and rate else ""
        line = f"{self._what}: {done:,}{share} ({rate:,.0f}/s{left}) {note}".rstrip()
        self._console.print(line, highlight=False, soft_wrap=True)
