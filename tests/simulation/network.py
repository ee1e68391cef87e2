"""The way between a client and the server: what may become of a command."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one command: seconds there and back, and how it fails, if it does."""

    there: float = 0.0
    back: float = 0.0
    request_lost: bool = False
    answer_lost: bool = False
    code: int | None = None
    labels: Sequence[str] = ()
    unconfirmed: bool = False


class Network:
    """Everything arrives at once. Others lose, delay and refuse."""

    def fate(self, command: str) -> Fate:
        """What becomes of the next command of this name."""
        del command
        return Fate()

    def note(self, event: str) -> None:
        """A command was carried out."""
