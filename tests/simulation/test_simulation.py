"""The service under simulated faults: a seed is a run, and every run must end as the reference says."""

import os

import pytest

from tests.simulation.mutants import MUTANTS, reads_outside_the_transaction
from tests.simulation.world import simulate

SEEDS = int(os.environ.get("REWARDPOINTS_TEST_SIMULATION_SEEDS", "60"))
PARTS = 6
MOST_SEEDS_TO_FIND = 600

FOUND_BY = {
    "draw_without_condition": 7,
    "commit_before_write": 13,
    "published_before_ack": 11,
    "tombstones_before_insert_only": 33,
    "unknown_commit_is_a_failure": 2,
    "erase_without_second_look": 57,
    "one_tombstone_for_a_long_erasure": 32,
    "batch_stops_at_a_duplicate": 11,
    "outage_swallowed": 6,
    "dead_letter_dropped": 16,
}
"""Seeds that found a planted bug when it was planted, tried first to be quick. Any other will do as well."""


def violated(first: int, seeds: int) -> list[str]:
    """What went wrong, with the seed and the step to replay it by."""
    return [f"seed {seed}, {problem}" for seed in range(first, first + seeds) for problem in simulate(seed).problems]


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_lost_doubled_or_left(part: int) -> None:
    each = SEEDS // PARTS
    assert violated(part * each, each) == []


@pytest.mark.parametrize("seed", [3, 11])
def test_one_seed_is_one_run(seed: int) -> None:
    first, second = simulate(seed), simulate(seed)
    assert first == second
    assert first.trace != simulate(seed + 1).trace


def test_runs_are_eventful() -> None:
    counts = [simulate(seed).counts for seed in range(5)]
    for event in ("kills", "redeemed", "refused", "unknown", "erased"):
        assert sum(count[event] for count in counts), f"nothing was {event}"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    seeds = (FOUND_BY.get(name, 0), *range(MOST_SEEDS_TO_FIND))
    assert any(simulate(seed).problems for seed in seeds), "the simulation is blind to it"


def test_the_condition_of_a_draw_holds_even_without_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    reads_outside_the_transaction(monkeypatch)
    assert violated(0, 20) == []
