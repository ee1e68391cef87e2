"""The simulation's database for the contract: on the wall clock, with an answer at once, and with faults on demand."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from tests.simulation.network import Fate, Network
from tests.simulation.server import Server


class FailingServer(Server):
    """A server that fails commands as the ``failCommand`` fail point of the real one does."""

    def __init__(self) -> None:
        super().__init__(lambda: datetime.now(UTC))
        self._commands: tuple[str, ...] = ()
        self._how: Mapping[str, Any] = {}
        self._times: int | None = None

    @contextmanager
    def failing(self, *commands: str, how: Mapping[str, Any], times: int | None = None) -> Iterator[None]:
        """Fail these commands while the context lasts: ``times`` times, or always."""
        self._commands, self._how, self._times = commands, how, times
        try:
            yield
        finally:
            self._commands = ()

    def fate(self, command: str) -> Fate:
        """What becomes of the next command of this name."""
        if command not in self._commands or self._times == 0:
            return Fate()
        if self._times is not None:
            self._times -= 1
        return Fate(
            request_lost="closeConnection" in self._how,
            code=self._how.get("errorCode"),
            labels=self._how.get("errorLabels", ()),
            unconfirmed="writeConcernError" in self._how,
        )


class FailingNetwork(Network):
    """The way to a ``FailingServer``."""

    def __init__(self, server: FailingServer) -> None:
        self._server = server

    def fate(self, command: str) -> Fate:
        return self._server.fate(command)
