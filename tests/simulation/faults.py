"""Which faults a run has, and the network that plays them."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from rewardpoints.ledger.driver import TRANSIENT_TRANSACTION, UNKNOWN_COMMIT
from tests.simulation.network import Fate, Network

CODES = (10107, 11600, 91, 112)
"""Not primary, interrupted, shutting down, write conflict."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what happens. Each run has its own mixture, so that no kind of fault hides another."""

    lost_requests: float
    lost_answers: float
    refusals: float
    unconfirmed: float
    slow: float
    slow_seconds: float
    trouble: float
    kills_per_minute: float
    rebalances_per_minute: float

    @classmethod
    def of(cls, chance: random.Random) -> "Faults":
        """A mixture: each kind is off, rare or frequent."""

        def some(rare: float, frequent: float) -> float:
            return chance.choice((0.0, rare, rare, frequent))

        return cls(
            lost_requests=some(0.01, 0.1),
            lost_answers=some(0.01, 0.15),
            refusals=some(0.01, 0.08),
            unconfirmed=some(0.01, 0.08),
            slow=some(0.02, 0.1),
            slow_seconds=chance.choice((0.3, 2.0, 6.0)),
            trouble=some(0.3, 0.8),
            kills_per_minute=some(6, 25),
            rebalances_per_minute=some(4, 20),
        )


class FaultyNetwork(Network):
    """Loses, delays and refuses as the run's faults say, and more while there is ``trouble``; never while ``calm``.

    ``deaf_to_commits``: every commit is carried out, and no answer to one arrives.
    """

    def __init__(self, faults: Faults, chance: random.Random, note: Callable[[str], None]) -> None:
        self._faults = faults
        self._chance = chance
        self._note = note
        self.calm = True
        self.trouble = False
        self.deaf_to_commits = False

    def note(self, event: str) -> None:
        self._note(event)

    def fate(self, command: str) -> Fate:
        chance, faults = self._chance, self._faults
        there, back = chance.uniform(0.0002, 0.01), chance.uniform(0.0002, 0.01)
        if self.calm:
            return Fate(there, back)
        if self.deaf_to_commits and command == "commitTransaction":
            return Fate(there, back, answer_lost=True)
        if chance.random() < faults.slow:
            there, back = there + chance.uniform(0, faults.slow_seconds), back + chance.uniform(0, faults.slow_seconds)
        more = faults.trouble if self.trouble else 0.0
        draw = chance.random()
        if draw < faults.lost_requests + more / 2:
            return Fate(there, back, request_lost=True)
        draw = chance.random()
        if draw < faults.lost_answers + more / 2:
            return Fate(there, back, answer_lost=True)
        if chance.random() < faults.refusals:
            label = UNKNOWN_COMMIT if command == "commitTransaction" else TRANSIENT_TRANSACTION
            return Fate(there, back, code=chance.choice(CODES), labels=(label,))
        return Fate(there, back, unconfirmed=chance.random() < faults.unconfirmed)
