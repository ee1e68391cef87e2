"""A stack for each test, as the end-to-end tests have it; and the figures that tests of faults came to."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import stack

__all__ = ["stack"]

_FIGURES = "figures"

Figures = Callable[..., None]


@pytest.fixture
def figures(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Iterator[Figures]:
    """Keeps figures by name, to be shown at the end of the run."""
    kept: dict[str, Any] = {}
    yield kept.update
    if kept:
        record_property(_FIGURES, ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in kept.items()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    shown = [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "teardown" or isinstance(report, pytest.TestReport)
        for name, value in getattr(report, "user_properties", ())
        if name == _FIGURES
    ]
    if shown:
        terminalreporter.section("figures")
        for line in dict.fromkeys(shown):
            terminalreporter.write_line(line)
