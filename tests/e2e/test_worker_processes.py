"""One worker command, several processes: they share the partitions, and one that is killed comes back."""

import os
import re
import signal
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from rewardpoints.embedded.ports import free_port
from tests.e2e.stack import Server, Stack, an_order, until
from tests.servers import chosen_servers

RECORDS_READ = re.compile(
    r'^rewardpoints_records_read_total\{process="(\d)",topic="[^"]*order-completed"\} (\S+)$', re.MULTILINE
)


async def two_processes(stack: Stack) -> Server:
    port = free_port()
    changes = {"HTTP_WORKER_PORT": str(port), "KAFKA_GROUP_INSTANCE_ID": "w"}
    return await stack._start(["worker", "--processes", "2"], "w", f"http://127.0.0.1:{port}", changes)


async def checks(server: Server) -> dict[str, Any]:
    answer = await server.readiness()
    return answer.json()["checks"] if answer is not None else {}


async def has_lots(stack: Stack, count: int) -> bool:
    return await stack.lot_count() >= count


async def publish_orders(stack: Stack, name: str) -> None:
    await stack.publish_orders(*(an_order(f"{name}{number}", f"c{number % 50}") for number in range(1000)))


async def assert_stops(worker: Server, pids: Iterable[int]) -> None:
    assert await worker.stop() == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_two_processes_share_the_partitions(stack: Stack) -> None:
    worker = await (await two_processes(stack)).ready()
    pids = {name: check["pid"] for name, check in (await checks(worker)).items()}
    assert sorted(pids) == ["process 1", "process 2"]
    await publish_orders(stack, "a")
    await until(lambda: has_lots(stack, 1000), seconds=120, what="the orders")
    async with httpx.AsyncClient(base_url=worker.url, timeout=10) as client:
        shown = (await client.get("/metrics")).text
    read = {process: float(value) for process, value in RECORDS_READ.findall(shown)}
    assert sum(read.values()) >= 1000
    assert min(read.values()) > 0
    assert len(read) == 2
    await assert_stops(worker, pids.values())
    assert await stack.lot_count() == 1000
    await stack.assert_true()


@pytest.mark.skipif(
    chosen_servers()["kafka"] == "embedded",
    reason="the embedded broker may give the leader of a group, restarted, what another member reads:"
    " REWARDPOINTS_TEST_KAFKA=apache",
)
@pytest.mark.parametrize("killed", ["process 1", "process 2"])
async def test_a_killed_process_comes_back_to_its_partitions(stack: Stack, killed: str) -> None:
    worker = await (await two_processes(stack)).ready()
    before = {name: check["pid"] for name, check in (await checks(worker)).items()}
    await publish_orders(stack, "a")
    await until(lambda: has_lots(stack, 1000), seconds=120, what="the first orders")

    os.kill(before[killed], signal.SIGKILL)
    await publish_orders(stack, "b")
    await until(lambda: has_lots(stack, 2000), seconds=120, what="the orders of both")

    async def both_ready() -> bool:
        found = await checks(worker)
        return len(found) == 2 and all(check["status"] == "up" for check in found.values())

    await until(both_ready, seconds=120, what="both processes ready again")
    after = {name: check["pid"] for name, check in (await checks(worker)).items()}
    assert {name for name in before if after[name] != before[name]} == {killed}
    assert await stack.lot_count() == 2000
    await stack.assert_true()
    await assert_stops(worker, after.values())
