"""The short forms of the long runs of ``make faults``: the same code with smaller sizes."""

import sys
from pathlib import Path

import pytest

from tests.faults.bad_records import BadRecordsOptions, bad_records
from tests.faults.environment import Outcome
from tests.faults.mongodb_kills import MongodbKillsOptions, mongodb_kills
from tests.faults.soak import SoakOptions, soak
from tests.faults.worker_kills import WorkerKillsOptions, worker_kills
from tests.secantusd_rs import is_secantusd
from tests.servers import chosen_servers

pytestmark = pytest.mark.skipif(
    not (chosen_servers()["mongodb"] == "embedded" or is_secantusd(chosen_servers()["mongodb"]))
    or chosen_servers()["kafka"] not in {"embedded", "apache"},
    reason="kills servers of its own: the embedded ones, a secantusd-rs, or a broker of Apache Kafka",
)


def say(line: str) -> None:
    """What happens when; pytest shows it where a test fails."""
    sys.stdout.write(f"{line}\n")


def assert_clean(outcome: Outcome, **figures: int) -> None:
    assert outcome.problems == []
    assert {name: outcome.figures[name.replace("_", " ")] for name in figures} == figures


async def test_workers_killed_again_and_again_lose_and_double_nothing(tmp_path: Path) -> None:
    options = WorkerKillsOptions(orders=3000, kills=3, customers=50)
    outcome = await worker_kills(options, tmp_path / "run", say)
    assert_clean(outcome, kills=3, orders_accepted=3000, orders_lost=0, orders_doubled=0)
    assert outcome.figures["of these with records unread or uncommitted"] > 0
    assert outcome.figures["events"] > 3000


async def test_mongodb_killed_again_and_again_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    options = MongodbKillsOptions(
        kills=2,
        shortest_seconds=1,
        longest_seconds=2,
        orders_per_second=100,
        redemptions_per_second=8,
        customers=50,
        first_orders=500,
        balance_sample=10,
    )
    outcome = await mongodb_kills(options, tmp_path / "run", say)
    assert_clean(outcome, kills=2, orders_lost=0, of_these_lost=0, codes_doubled=0, balances_wrong=0)
    assert outcome.figures["redemptions answered with a code"] > 0


async def test_bad_records_are_explained_and_hold_no_good_one_up(tmp_path: Path) -> None:
    options = BadRecordsOptions(good=2000, bad=200, rounds=1, customers=50)
    outcome = await bad_records(options, tmp_path / "run", say)
    assert_clean(outcome, orders_lost=0, orders_doubled=0, stalls=0, sources_named=200, dead_letters=200)


async def test_a_soak_in_short_with_every_fault_once(tmp_path: Path) -> None:
    """Each kind of fault once; memory and lag of some seconds say nothing, but are sampled and drawn."""
    options = SoakOptions(
        seconds=12,
        fault_seconds=1,
        orders_per_second=60,
        customers=50,
        full_rate_orders=500,
        sample_seconds=1,
        balance_sample=10,
        results=tmp_path / "results",
    )
    outcome = await soak(options, tmp_path / "run", say)
    assert_clean(outcome, orders_lost=0, orders_doubled=0, of_these_lost=0, balances_wrong=0)
    assert outcome.figures["faults"]
    assert (tmp_path / "results" / "soak.svg").read_text().count("<polyline") > 6
