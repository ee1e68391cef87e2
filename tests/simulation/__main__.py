"""``python -m tests.simulation``: one seed told at length, or many counted."""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.world import Outcome, simulate

SEEDS_AT_ONCE = 20


def main() -> int:
    """Run what was asked for; 1 where anything was violated."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--seed", type=int, help="run this seed alone, and say what it came to")
    asked.add_argument("--seeds", type=int, default=10_000, help="run so many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of many seeds")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many run at a time")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options.seed)
    return _many(range(options.first, options.first + options.seeds), options.processes)


def _one(seed: int) -> int:
    outcome = simulate(seed)
    _say(f"seed {seed}: {outcome.steps} steps, trace {outcome.trace}, {outcome.counts}")
    return _tell(outcome)


def _many(seeds: range, processes: int) -> int:
    began, done, steps, bad = time.monotonic(), 0, 0, 0
    with ProcessPoolExecutor(processes) as pool:
        for outcome in pool.map(simulate, seeds, chunksize=SEEDS_AT_ONCE):
            done, steps = done + 1, steps + outcome.steps
            bad += _tell(outcome)
            if done % 500 == 0:
                _say(f"{done}/{len(seeds)} seeds, {bad} violated, {time.monotonic() - began:.0f} s")
    _say(f"{done} seeds, {steps} steps, {bad} violated, {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _tell(outcome: Outcome) -> int:
    for problem in outcome.problems:
        _say(f"seed {outcome.seed}, {problem}")
    if outcome.problems:
        _say(f"replay it with: make simulation SEED={outcome.seed}")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
