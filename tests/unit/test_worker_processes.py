"""The parent of several workers: what it does when one ends, and what it shows of them."""

import asyncio
import os
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rewardpoints.app import worker_processes
from rewardpoints.app.service import ProcessFailed
from rewardpoints.app.worker_monitoring import exposed, merged
from rewardpoints.app.worker_processes import WorkerProcesses
from rewardpoints.embedded.ports import free_port
from rewardpoints.settings import (
    HttpSettings,
    KafkaSettings,
    MongodbSettings,
    ServiceSettings,
    Settings,
    SettingsInvalid,
    SiteSettingsSettings,
)
from rewardpoints.telemetry import Metrics

BOUND_SECONDS = 60


def some_settings(port: int, **kafka: str) -> Settings:
    return Settings(
        mongodb=MongodbSettings.model_validate({"uri": "mongodb://127.0.0.1:1/"}),
        kafka=KafkaSettings.model_validate({"bootstrap_servers": "127.0.0.1:1", **kafka}),
        http=HttpSettings(worker_port=port, drain_seconds=1),
        site_settings=SiteSettingsSettings(),
        service=ServiceSettings(),
    )


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "FIRST_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(worker_processes, "MOST_BACKOFF_SECONDS", 0.02)


def says_its_slot(folder: Path, then: str) -> list[str]:
    """A worker that leaves a file with its place in the group, its port and its pid, and then does ``then``."""
    return python(
        "import os, sys, time, signal\n"
        "slot, port = os.environ['REWARDPOINTS_KAFKA_GROUP_INSTANCE_ID'], os.environ['REWARDPOINTS_HTTP_WORKER_PORT']\n"
        f"folder = {str(folder)!r}\n"
        "part = f'{folder}/.{os.getpid()}'\n"
        "open(part, 'w').write(f'{slot} {port}')\n"
        "os.rename(part, f'{folder}/{os.getpid()}')\n" + then
    )


def started(folder: Path) -> dict[int, str]:
    return {int(file.name): file.read_text() for file in folder.iterdir() if not file.name.startswith(".")}


async def until_started(folder: Path, count: int) -> dict[int, str]:
    async with asyncio.timeout(BOUND_SECONDS):
        while len(started(folder)) < count:  # noqa: ASYNC110 - processes start when they do
            await asyncio.sleep(0.02)
    return started(folder)


async def test_each_process_has_its_own_place_and_comes_back_to_it(tmp_path: Path) -> None:
    port = free_port()
    command = says_its_slot(tmp_path, "time.sleep(600)")
    processes = WorkerProcesses(some_settings(port, group_instance_id="w"), 2, command=command)
    await processes.start()
    try:
        first = await until_started(tmp_path, 2)
        assert sorted(first.values()) == [f"w-1 {port + 1}", f"w-2 {port + 2}"]
        killed = next(pid for pid, place in first.items() if place.startswith("w-2"))
        os.kill(killed, 9)
        after = await until_started(tmp_path, 3)
        (again,) = after.keys() - first.keys()
        assert after[again] == first[killed]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/healthz")).status_code == httpx.codes.OK
            answer = await client.get("/readyz")  # none of these workers answers
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert set(answer.json()["checks"]) == {"process 1", "process 2"}
            shown = (await client.get("/metrics")).text
            assert 'rewardpoints_process_restarts_total{process="2"} 1.0' in shown
            assert 'rewardpoints_process_restarts_total{process="1"} 0.0' in shown
    finally:
        await processes.stop()
    assert [one.pid for one in processes.processes] == [None, None]


async def test_a_process_that_never_stays_ends_the_whole() -> None:
    processes = WorkerProcesses(some_settings(free_port()), 2, command=python("import sys; sys.exit(3)"))
    await processes.start()
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            with pytest.raises(ProcessFailed, match="ended 6 times in a row, last with status 3"):
                await processes.wait_failed()
    finally:
        await processes.stop()


async def test_a_process_that_does_not_stop_is_killed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "STOP_SECONDS", 0.5)
    stubborn = says_its_slot(tmp_path, "time.sleep(600)").copy()
    stubborn[-1] = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + stubborn[-1]
    processes = WorkerProcesses(some_settings(free_port(), group_instance_id="w"), 1, command=stubborn)
    await processes.start()
    await until_started(tmp_path, 1)
    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(ProcessFailed, match="1 worker processes did not stop"):
            await processes.stop()
    assert processes.processes[0].pid is None


@pytest.mark.parametrize("port", [0, 65_534])
def test_several_processes_need_ports(port: int) -> None:
    with pytest.raises(SettingsInvalid, match="REWARDPOINTS_HTTP_WORKER_PORT"):
        WorkerProcesses(some_settings(port), 2)


def test_metrics_of_all_processes_are_told_apart() -> None:
    texts = {}
    for number, lots in (("1", 3), ("2", 4)):
        metrics = Metrics()
        metrics.build.info({"version": "1"})
        metrics.lots_added.inc(lots)
        metrics.batch_seconds.labels("orders").observe(0.02)
        metrics.lag_records.labels("orders", number).set(lots)
        texts[number] = exposed([*metrics.registry.collect()]).decode()

    families = {family.name: family for family in text_string_to_metric_families(exposed(merged(texts)).decode())}

    added = {
        one.labels["process"]: one.value for one in families["rewardpoints_lots_added"].samples if "_total" in one.name
    }
    assert added == {"1": 3, "2": 4}
    assert {one.labels["process"] for one in families["rewardpoints_build_info"].samples} == {"1", "2"}
    single = {family.name: family for family in text_string_to_metric_families(texts["1"])}
    assert families.keys() == single.keys()
    for name, family in single.items():
        assert families[name].type == family.type
        assert {one.name for one in families[name].samples} == {one.name for one in family.samples}
