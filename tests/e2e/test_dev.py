"""``rewardpoints dev`` as somebody trying it out meets it."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import Process, until

START_SECONDS = 60.0


@contextlib.asynccontextmanager
async def running_dev(folder: Path, *arguments: str) -> AsyncIterator[Process]:
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = Process(["dev", "--port", "0", "--data", "data", *arguments], environment, folder / "dev.log", folder)
    await process.start()
    try:

        async def up() -> bool:
            assert process.process.returncode is None, process.log
            return "Reward points are up" in process.log and (folder / "data" / "dev.json").exists()

        await until(up, seconds=START_SECONDS, what="the environment up")
        yield process
    finally:
        if process.process.returncode is None:
            await process.stop()


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc to list processes")


@needs_proc
async def test_the_printed_session_shows_the_whole_way_when_pasted(tmp_path: Path) -> None:
    async with running_dev(tmp_path) as dev:
        printed = dev.log.partition("Paste into another terminal")[2].partition("\n")[2]
        script = re.sub(r"^  ", "", printed, flags=re.MULTILINE)
        shell = await asyncio.create_subprocess_exec(
            "bash", "-eu", "-c", script, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(60):
            output, errors = await shell.communicate()
        text = output.decode()
        assert shell.returncode == 0, errors.decode()
        lines = text.splitlines()
        before = int(lines[0])
        assert json.loads(lines[1])["activePoints"] == before
        assert int(lines[2]) == before + 42
        assert {option["id"] for option in json.loads(lines[3])} == {"voucher-5-euro", "discount-10-percent"}
        code = json.loads(lines[4])["code"]
        request = json.loads("\n".join(lines[5:-1]))
        assert request["value"]["code"] == code
        after = json.loads(lines[-1])
        assert after["activePoints"] == before + 42
        assert "voucher could not be created" in after["summary"]["addedPointsList"][-1]["description"]

        addresses = json.loads((tmp_path / "data" / "dev.json").read_text())
        assert set(addresses) == {"api", "kafka", "mongodb"}
        async with httpx.AsyncClient(base_url=addresses["api"]) as client:
            for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/asyncapi", "/console/sign-in"):
                assert (await client.get(path)).status_code == httpx.codes.OK, path

        second = Process(["dev", "--data", "data"], {}, tmp_path / "second.log", tmp_path)
        await second.start()
        assert await second.wait() == 1
        assert len(second.log.splitlines()) == 1
        assert "in use" in second.log

        servers = children(dev.process.pid)
        assert len(servers) >= 2
        assert await dev.stop() == 0
        assert not [pid for pid in servers if alive(pid)]
        assert not (tmp_path / "data" / "dev.json").exists()

    async with running_dev(tmp_path) as again:  # the same data: nothing was lost, nothing is set up twice
        addresses = json.loads((tmp_path / "data" / "dev.json").read_text())
        token = re.search(r"CUSTOMER=(\S+)", again.log)
        assert token
        async with httpx.AsyncClient(base_url=addresses["api"]) as client:
            headers = {"Authorization": f"Bearer {token[1]}"}
            assert (await client.get("/reward-points/public/customer", headers=headers)).json() == before + 42


@needs_proc
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_no_process_is_left_behind(tmp_path: Path, how: signal.Signals) -> None:
    async with running_dev(tmp_path) as dev:
        servers = children(dev.process.pid)
        dev.process.send_signal(how)
        assert await dev.wait(30) == (0 if how is signal.SIGINT else -signal.SIGKILL)

        async def gone() -> bool:
            return not any(alive(pid) for pid in servers)

        await until(gone, seconds=20, what="both servers gone")


@needs_proc
async def test_when_a_server_dies_everything_ends_and_says_why(tmp_path: Path) -> None:
    async with running_dev(tmp_path) as dev:
        servers = children(dev.process.pid)
        os.kill(servers[0], signal.SIGKILL)
        assert await dev.wait(30) == 1
        assert dev.log.count("rewardpoints: ") == 1
        assert not [pid for pid in servers if alive(pid)]


async def test_a_token_needs_an_environment(tmp_path: Path) -> None:
    refused = Process(["token", "--tenant", "demo", "--data", "none"], {}, tmp_path / "refused.log", tmp_path)
    await refused.start()
    assert await refused.wait() == 1
    assert "start `rewardpoints dev` first" in refused.log

    made = Process(
        ["token", "--tenant", "demo", "--customer", "c1", "--data", "d", "--create-key"], {}, tmp_path / "t", tmp_path
    )
    await made.start()
    assert await made.wait() == 0
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", made.log)


@needs_proc
async def test_a_load_is_reported(tmp_path: Path) -> None:
    async with running_dev(tmp_path):
        arguments = ["--orders-per-second", "50", "--seconds", "2", "--duplicates", "0.2", "--bad", "0.1", "--json"]
        load = Process(["simulate", "--data", "data", *arguments], {}, tmp_path / "load.json", tmp_path)
        await load.start()
        assert await load.wait(60) == 0, load.log
        report = json.loads(load.log)
        assert report["offered"] == report["accepted"] - report["duplicates"] - report["bad"]
        assert report["offered"] >= 90
        assert report["duplicates"] > 0
        assert report["bad"] > 0
        assert report["probes"]["sent"] > 10
        assert report["probes"]["unseen"] == report["probes"]["wrong"] == 0
        assert report["visibleMs"]["p50"] > 0
