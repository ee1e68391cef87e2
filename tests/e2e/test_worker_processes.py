"""One worker command, several processes: they share the partitions, and one that is killed comes back."""

import os
import re
from typing import Any

import httpx
import pytest

from rewardpoints.embedded.ports import free_port
from tests.e2e.stack import Server, Stack, an_order, until

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


async def test_two_processes_share_the_partitions_and_a_killed_one_comes_back(stack: Stack) -> None:
    worker = await (await two_processes(stack)).ready()
    before = {name: check["pid"] for name, check in (await checks(worker)).items()}
    assert sorted(before) == ["process 1", "process 2"]
    await stack.publish_orders(*(an_order(f"a{number}", f"c{number % 50}") for number in range(1000)))

    async def has(count: int) -> bool:
        return await stack.lot_count() >= count

    await until(lambda: has(1000), seconds=120, what="the first orders")
    async with httpx.AsyncClient(base_url=worker.url, timeout=10) as client:
        shown = (await client.get("/metrics")).text
    read = {process: float(value) for process, value in RECORDS_READ.findall(shown)}
    assert sum(read.values()) >= 1000
    assert min(read.values()) > 0
    assert len(read) == 2

    os.kill(before["process 2"], 9)
    await stack.publish_orders(*(an_order(f"b{number}", f"c{number % 50}") for number in range(1000)))
    await until(lambda: has(2000), seconds=180, what="the orders of both")

    async def both_ready() -> bool:
        found = await checks(worker)
        return len(found) == 2 and all(check["status"] == "up" for check in found.values())

    await until(both_ready, seconds=120, what="both processes ready again")
    after = {name: check["pid"] for name, check in (await checks(worker)).items()}
    assert after["process 1"] == before["process 1"]
    assert after["process 2"] != before["process 2"]
    assert await stack.lot_count() == 2000
    await stack.assert_true()
    assert await worker.stop() == 0
    for pid in after.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
