"""Progress of something long, on a terminal and in a file."""

import io

import pytest
from rich.console import Console

from rewardpoints.operate.progress import Progressing
from rewardpoints.operate.terminal import print_line


class Stopwatch:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def shown(total: int | None, *, terminal: bool) -> list[str]:
    watch, output = Stopwatch(), io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120)
    with Progressing("entries judged", total, clock=watch, console=console) as progress:
        for second in range(25):
            watch.seconds = second
            progress.at(second * 100)
    return output.getvalue().splitlines()


def test_in_a_file_it_is_a_plain_line_every_ten_seconds_with_rate_and_time_left() -> None:
    assert shown(5000, terminal=False) == [
        "entries judged: 1,000 of about 5,000 (100/s, 40 s left)",
        "entries judged: 2,000 of about 5,000 (100/s, 30 s left)",
    ]
    assert shown(None, terminal=False)[0] == "entries judged: 1,000 (100/s)"


def test_on_a_terminal_it_is_a_bar_that_goes_away() -> None:
    text = "\n".join(shown(5000, terminal=True))
    assert "entries judged" in text
    assert "2,400 (100/s)" in text
    assert text.endswith("\x1b[2K"), "the last thing it does is to clear its line"


def test_what_is_printed_meanwhile_goes_where_it_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = io.StringIO()
    with Progressing("reading", 10, console=Console(file=terminal, force_terminal=True, width=40)):
        print_line("x" * 200)
    assert capsys.readouterr().out == f"{'x' * 200}\n"
    assert "xxx" not in terminal.getvalue()
