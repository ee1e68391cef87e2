"""How much each comparison does. ``quick`` shows that everything works; figures are published from ``full`` only."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of all comparisons; ``seconds`` fields are of one side in one round."""

    rounds: int
    events: int
    """Orders of 300 bytes that a worker is fed with in a round."""

    plain_events: int
    """How many of them the plain worker gets: it is slow."""

    real_events: int
    http_seconds: float
    http_warm_up_seconds: float
    redemptions: int
    replayed: int
    grown_lots: int
    """Lots of the large ledger."""

    small_lots: int
    added_lots: int
    """Lots added in a round to each of the two ledgers."""

    hot_rounds: int
    read_seconds: float
    many_lots: int
    """Lots of the customer who has many."""

    batch_customers: int
    load_seconds: float


FULL = Sizes(
    rounds=5,
    events=24_000,
    plain_events=1_000,
    real_events=6_000,
    http_seconds=4,
    http_warm_up_seconds=2,
    redemptions=1_000,
    replayed=15_000,
    grown_lots=1_000_000,
    small_lots=10_000,
    added_lots=10_000,
    hot_rounds=5,
    read_seconds=3,
    many_lots=10_000,
    batch_customers=100_000,
    load_seconds=60,
)

QUICK = replace(
    FULL,
    rounds=3,
    events=12_000,
    plain_events=400,
    real_events=2_000,
    http_seconds=1,
    http_warm_up_seconds=0.5,
    redemptions=150,
    replayed=3_000,
    grown_lots=60_000,
    added_lots=4_000,
    hot_rounds=2,
    read_seconds=0.7,
    batch_customers=8_000,
    load_seconds=8,
)
