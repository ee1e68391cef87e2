"""The pure parts of the benchmark: what is made of figures, and what the page says of them."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import plots, report
from bench.capacity import Assumptions, Measured, measured_from, needs
from bench.http_load import request_bytes
from bench.latency import at_share
from bench.measuring import Outcome, Row, at_least, at_most, interleaved
from bench.orders import SMALL_BYTES, real, small
from bench.processes import family, resident_megabytes, used
from bench.profiles import library_of
from bench.results import load, store
from bench.servers import Choice
from bench.tables import markdown_table, number
from rewardpoints.events.order_messages import decode_order

MEASURED = Measured(
    worker_cpu_us=50,
    worker_cpu_real_us=100,
    inserts_per_second=5_000,
    lot_bytes=800,
    index_bytes=200,
    balance_cpu_us=400,
)


def a_row(*values: float, **changes: Any) -> Row:
    return Row(**{"key": "k", "title": "a ÷ b", "values": values, "goal": at_least(0.8), **changes})


async def test_sides_run_in_turns_and_the_warm_up_counts_for_nothing() -> None:
    turns: list[str] = []

    async def slow(number: int) -> dict[str, float]:
        turns.append(f"a{number}")
        return {"rate": 10.0 * (number + 1)}

    async def fast(number: int) -> dict[str, float]:
        turns.append(f"b{number}")
        return {"rate": 40.0 * (number + 1)}

    rounds = await interleaved({"a": slow, "b": fast}, rounds=2)
    assert turns == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert rounds.values("a", "rate") == [20, 30]
    assert rounds.ratios("rate", "a", "b") == [0.25, 0.25]


def test_a_row_is_judged_by_its_median() -> None:
    assert a_row(0.1, 0.9, 0.85).reached is True
    assert a_row(0.1, 0.9, 0.7).reached is False
    assert a_row(60, 61, 59, goal=at_most(60)).reached is True
    assert a_row(5, goal=None).reached is None


def test_the_spread_is_of_all_rounds_while_they_are_few_and_of_the_middle_half_then() -> None:
    assert a_row(3, 1, 2).spread == (1, 3)
    assert a_row(1, 2, 3, 4, 100).spread == (2, 4)


def test_a_figure_that_was_not_measured_is_none() -> None:
    with pytest.raises(ValueError, match="k was not measured"):
        a_row()


@pytest.mark.parametrize(
    ("value", "text"), [(0.8567, "0.86"), (12.34, "12.3"), (456.7, "457"), (12345.6, "12,346"), (0, "0.00")]
)
def test_numbers_show_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_table_says_what_is_reached_and_what_is_not() -> None:
    table = markdown_table([a_row(0.9, note="in turns"), a_row(70, unit="µs", goal=at_most(60)), a_row(5, goal=None)])
    first, second, third = table.splitlines()[2:]
    assert first == "| a ÷ b<br>*in turns* | 0.90 | 0.90 … 0.90 | ≥ 0.8 | reached |"
    assert second == "| a ÷ b | 70.0 µs | 70.0 … 70.0 | ≤ 60 µs | not reached |"
    assert third == "| a ÷ b | 5.00 | 5.00 … 5.00 | reported |  |"


def test_what_is_stored_is_read_back_and_a_later_run_replaces_it(tmp_path: Path) -> None:
    bench: Any = SimpleNamespace(choice=Choice(kafka="apache"))
    facts = {"commit": "abc"}
    store(tmp_path, bench, "one", facts, Outcome([a_row(1, 2)], {"curve": [(0.0, 1.5)]}))
    store(tmp_path, bench, "two", facts, Outcome([a_row(3)]))
    file = store(tmp_path, bench, "one", facts, Outcome([a_row(4, note="again")], {"curve": [(1.0, 2.5)]}))
    assert file.name == "mongodb-embedded-kafka-apache.json"
    one, two = load(file)
    assert (one.name, two.name) == ("one", "two")
    assert one.rows == [replace(a_row(4, note="again"), values=[4])]
    assert one.curves == {"curve": [(1.0, 2.5)]}


def test_a_choice_of_servers_names_no_address_and_no_path() -> None:
    assert Choice(mongodb="mongodb://u:secret@h/", kafka="h:9092").name == "mongodb-running-kafka-running"
    fast = Choice(mongodb="/opt/bin/secantusd-rs")
    assert (fast.name, fast.is_fastest) == ("mongodb-secantusd-rs-kafka-embedded", True)


FACTS = {
    "at": "2026-01-31T10:00:00+00:00",
    "commit": "abc1234",
    "cores": 2,
    "memoryGigabytes": 24.0,
    "load": 0.1,
    "python": "3.11.7",
    "packages": {"pymongo": "4.20.0"},
    "mongodb": "embedded",
    "kafka": "apache",
    "rounds": 5,
}
PAGE = """# Page
<!-- bench:table -->
old
<!-- /bench:table -->
kept
<!-- bench:capacity -->
<!-- /bench:capacity -->
"""


def test_the_page_is_written_from_the_figures_and_twice_is_as_once(tmp_path: Path) -> None:
    page, results = tmp_path / "page.md", tmp_path / "performance"
    page.write_text(PAGE)
    bench: Any = SimpleNamespace(choice=Choice(kafka="apache"))
    keys = {"worker_cpu": 50, "worker_cpu_real": 100, "raw_rate": 5000, "lot_bytes": 800, "balance_cpu": 400}
    rows = [a_row(value, key=key, title=key, goal=None) for key, value in keys.items()]
    store(results, bench, "growth", FACTS, Outcome([a_row(0.9), *rows], {"lots/s": [(1.0, 5.0), (2.0, 6.0)]}))
    written = report.write_report(page, results)
    text = page.read_text()
    assert "old" not in text
    assert "kept" in text
    assert "| a ÷ b | 0.90 | 0.90 … 0.90 | ≥ 0.8 | reached |" in text
    assert "commit abc1234" in text
    assert "1,000,000 orders/s, 1,000,000,000 lots" in text
    assert all(path.exists() for path in written)
    for plot in results.glob("*.svg"):
        ET.fromstring(plot.read_text())  # noqa: S314 - written just now, by us
        assert f"performance/{plot.name}" in text
    report.write_report(page, results)
    assert page.read_text() == text


def test_a_page_without_results_says_so_and_one_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    report.write_report(page, tmp_path / "none")
    assert page.read_text().count("Nothing was measured yet") == 2
    with pytest.raises(ValueError, match="bench:table"):
        report.fill("# Page", {"table": ""})


def test_bars_grow_with_what_is_better_whichever_way_the_goal_lies() -> None:
    assert plots.times_of_goal(0.9, at_least(0.6)) == pytest.approx(1.5)
    assert plots.times_of_goal(40, at_most(60)) == pytest.approx(1.5)
    assert plots.times_of_goal(0, at_most(20)) == plots.MOST_TIMES


def test_what_a_load_needs_grows_with_the_load() -> None:
    given = Assumptions(
        busy_share=0.5, shard_inserts_per_second=10_000, shard_gigabytes=100, partition_events_per_second=5000
    )
    small_load, large = (needs(orders, lots, MEASURED, given) for orders, lots in ((1_000, 1e6), (100_000, 1e9)))
    assert (small_load.workers, small_load.partitions, small_load.shards) == (1, 1, 1)
    # 100,000 x 50 µs = 5 cores, at half use 10; 100,000 inserts/s over shards that may take 5,000 each
    assert (large.workers, large.partitions, large.shards_for_writes) == (10, 20, 20)
    # 1e9 x (800 bytes x 0.5 + 200 bytes) = 600 GB
    assert (large.data_gigabytes, large.index_gigabytes, large.shards_for_storage) == (400, 200, 6)
    assert large.disk_gigabytes == 600 * given.replicas
    assert large.lots_a_day == 100_000 * 86_400


def test_capacity_takes_index_sizes_from_the_server_where_it_told_them() -> None:
    medians = {"worker_cpu": 50, "worker_cpu_real": 100, "raw_rate": 5000, "lot_bytes": 800, "balance_cpu": 400}
    assert measured_from({}) is None
    told = measured_from({**medians, "index_bytes__id_": 80, "index_bytes_account": 120})
    assert told == MEASURED
    untold = measured_from(medians)
    assert untold is not None
    assert 100 < untold.index_bytes < 500


def test_orders_are_of_the_size_they_claim_and_the_service_reads_them() -> None:
    feeds = (small(), *real())
    for feed in feeds:
        record: Any = SimpleNamespace(
            topic="t", partition=0, offset=0, timestamp=1_790_000_000_000, key=None,
            value=feed.value(17), headers=(("tenant", b"shop"),),
        )  # fmt: skip
        order: Any = decode_order(record)
        assert order.customer_id == f"C{17 * 7919 % 5000:06}"
        assert "17" in order.id
        assert feed.value(17) != feed.value(18)
        json.loads(feed.value(18))
    assert len(small().value(123_456)) == SMALL_BYTES
    assert [feed.name for feed in feeds] == ["300 bytes", "11 KB", "18 KB"]


def test_percentiles_are_values_that_were_measured() -> None:
    ordered = [float(value) for value in range(1, 101)]
    assert (at_share(ordered, 0.5), at_share(ordered, 0.99), at_share([7.0], 0.99)) == (51, 100, 7)
    with pytest.raises(ValueError, match="nothing"):
        at_share([], 0.5)


def test_a_process_can_be_looked_at() -> None:
    own = os.getpid()
    assert used(own).cpu_seconds > 0
    assert resident_megabytes(own) > 1
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in family(own)
        assert own not in family(child.pid)
        child.communicate(b"\n")


@pytest.mark.parametrize(
    ("file", "function", "library"),
    [
        ("/srv/app/rewardpoints/events/messages.py", "decode_order", "rewardpoints.events"),
        ("/srv/rewardpoints/rewardpoints/telemetry.py", "places_of", "rewardpoints.telemetry"),
        ("/v/lib/python3.11/site-packages/pymongo/asynchronous/bulk.py", "execute", "pymongo"),
        ("/usr/lib/python3.11/asyncio/tasks.py", "wait_for", "Python's library"),
        ("~", "<built-in method bson._cbson._dict_to_bson>", "built in (C)"),
    ],
)
def test_a_profile_knows_whose_code_it_was(file: str, function: str, library: str) -> None:
    assert library_of(file, function) == library


def test_a_request_goes_over_the_wire_as_http() -> None:
    sent = request_bytes("http://h:80/a?b=1", {"Authorization": "Bearer t"})
    assert sent == b"GET /a?b=1 HTTP/1.1\r\nHost: h:80\r\nAuthorization: Bearer t\r\n\r\n"
