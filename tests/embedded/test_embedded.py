import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from pymongo import AsyncMongoClient

import rewardpoints.embedded.launcher as launcher_module
import rewardpoints.embedded.server as server_module
from rewardpoints.embedded import (
    DataFolderInUse,
    EmbeddedServers,
    FolderLock,
    Server,
    ServerStartFailed,
    kafka_server,
    keep_reaping,
    mongodb_server,
)
from rewardpoints.embedded.ports import free_port

REPOSITORY = Path(__file__).parents[2]

# A launcher in a process of its own: it prints the pids of its servers, then waits to be killed.
LAUNCHER = """
    import asyncio, sys
    from pathlib import Path
    from rewardpoints.embedded import EmbeddedServers

    async def main():
        async with EmbeddedServers(Path(sys.argv[1])) as servers:
            print(servers.mongodb.pid, servers.kafka.pid, flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
"""


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[EmbeddedServers]:
    async with EmbeddedServers(tmp_path / "pair") as pair:
        yield pair


async def until(condition: Callable[[], bool], *, seconds: float = 15.0) -> None:
    """Fails where ``condition`` has not become true in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # what it asks about raises no event
            await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has waited for yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def start_process(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)  # noqa: S603  # our own command


def assert_free(folder: Path) -> None:
    lock = FolderLock(folder)
    lock.acquire()
    lock.release()


async def count_documents(server: Server) -> int:
    async with AsyncMongoClient[dict[str, int]](launcher_module.mongodb_uri(server.address)) as client:
        return await client["shop"]["lots"].count_documents({})


async def insert_document(server: Server, number: int) -> None:
    async with AsyncMongoClient[dict[str, int]](launcher_module.mongodb_uri(server.address)) as client:
        await client["shop"]["lots"].insert_one({"_id": number})


async def test_both_servers_take_work_as_soon_as_start_returns_and_are_gone_after_stop(tmp_path: Path) -> None:
    servers = EmbeddedServers(tmp_path)
    await servers.start()
    pids = [servers.mongodb.pid, servers.kafka.pid]
    try:
        async with (
            AsyncMongoClient[dict[str, int]](servers.mongodb_uri) as client,
            client.start_session() as session,
            await session.start_transaction(),
        ):
            await client["shop"]["lots"].insert_one({"_id": 1}, session=session)
        async with AIOKafkaProducer(bootstrap_servers=servers.kafka_bootstrap_servers) as producer:
            metadata = await producer.send_and_wait("orders", b"{}")
        assert metadata.offset == 0
    finally:
        await servers.stop()
    assert all(gone(pid) for pid in pids)
    assert_free(tmp_path)
    await servers.stop()  # harmless


async def test_servers_listen_on_loopback_only(servers: EmbeddedServers) -> None:
    for server in (servers.mongodb, servers.kafka):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", server.port), timeout=5)


async def test_mongodb_keeps_acknowledged_writes_over_a_crash_and_comes_back_on_its_port(tmp_path: Path) -> None:
    async with mongodb_server(tmp_path) as server:
        port = server.port
        for number in range(5):
            await insert_document(server, number)
        await server.kill()
        assert not server.running
        await server.restart()
        assert server.port == port
        assert await count_documents(server) == 5


async def test_kafka_keeps_records_over_a_clean_restart_on_its_port(tmp_path: Path) -> None:
    async with kafka_server(tmp_path) as server:
        port = server.port
        async with AIOKafkaProducer(bootstrap_servers=server.address) as producer:
            for number in range(5):
                await producer.send_and_wait("orders", str(number).encode(), partition=0)
        await server.restart()
        assert server.port == port
        consumer = AIOKafkaConsumer("orders", bootstrap_servers=server.address, auto_offset_reset="earliest")
        async with consumer, asyncio.timeout(15):
            assert [(await consumer.getone()).value for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_restart_takes_new_options(tmp_path: Path) -> None:
    async with mongodb_server(tmp_path) as server:
        await server.restart(options=["--auth"])
        with pytest.raises(Exception, match=r"(?i)auth"):
            await count_documents(server)


async def test_test_commands_are_off_unless_asked_for(tmp_path: Path) -> None:
    fail_point = {"configureFailPoint": "failCommand", "mode": "off", "data": {"failCommands": ["find"]}}
    for allowed in (False, True):
        async with (
            mongodb_server(tmp_path, test_commands=allowed) as server,
            AsyncMongoClient[dict[str, int]](launcher_module.mongodb_uri(server.address)) as client,
        ):
            if allowed:
                await client.admin.command(fail_point)
            else:
                with pytest.raises(Exception, match="configureFailPoint"):
                    await client.admin.command(fail_point)


@pytest.mark.parametrize("which", ["mongodb", "kafka"])
async def test_an_unexpected_end_is_reported_with_name_and_log(servers: EmbeddedServers, which: str) -> None:
    server: Server = getattr(servers, which)
    died = asyncio.create_task(servers.wait_died())
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        report = await died
    assert server.name in report
    assert "SIGKILL" in report
    assert server.address in report  # stands in the log of both


async def test_an_intended_end_is_not_reported(servers: EmbeddedServers) -> None:
    died = asyncio.create_task(servers.wait_died())
    await servers.kafka.kill()
    await servers.kafka.restart()
    await servers.mongodb.restart()
    await servers.stop()
    done, _ = await asyncio.wait([died], timeout=0.5)
    died.cancel()
    assert not done


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to the end of its parent")
async def test_nothing_is_left_after_the_launcher_was_killed_and_it_can_start_again_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(LAUNCHER), str(tmp_path)]
    with start_process(command) as launcher:
        assert launcher.stdout is not None
        pids = [int(pid) for pid in (await asyncio.to_thread(launcher.stdout.readline)).split()]
        assert len(pids) == 2
        with pytest.raises(DataFolderInUse, match=f"{tmp_path} is in use by process {launcher.pid}"):
            await EmbeddedServers(tmp_path).start()
        assert not any(gone(pid) for pid in pids)
        launcher.kill()
    async with EmbeddedServers(tmp_path):
        assert all(gone(pid) for pid in pids)


def test_a_lock_is_refused_to_a_second_taker_and_free_after_release(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path / "data"), FolderLock(tmp_path / "data")
    first.acquire()
    with pytest.raises(DataFolderInUse) as refused:
        second.acquire()
    assert (refused.value.folder, refused.value.pid) == (tmp_path / "data", os.getpid())
    first.release()
    second.acquire()
    second.release()


async def test_a_server_that_does_not_start_is_reported_with_its_log(tmp_path: Path) -> None:
    server = mongodb_server(tmp_path, options=["--no-such-option"])
    with pytest.raises(ServerStartFailed, match=r"(?s)exit status 2.*unrecognized arguments: --no-such-option"):
        await server.start()
    assert not server.running


async def test_a_start_that_takes_too_long_leaves_no_process(tmp_path: Path) -> None:
    servers = EmbeddedServers(tmp_path, start_seconds=0.01)
    with pytest.raises(ServerStartFailed, match=r"did not answer on port \d+ within 0.01 s"):
        await servers.start()
    assert not servers.mongodb.running
    assert not servers.kafka.running
    assert_free(tmp_path)


@pytest.mark.parametrize("make", [mongodb_server, kafka_server])
async def test_a_given_port_that_is_taken_is_an_error(tmp_path: Path, make: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerStartFailed, match=rf"ended while starting on port {port}"):
            await make(tmp_path, port=port).start()


@pytest.mark.parametrize("make", [mongodb_server, kafka_server])
async def test_a_chosen_port_that_was_taken_meanwhile_is_chosen_anew(
    tmp_path: Path, make: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make(tmp_path / "first") as first:  # answers as a healthy server on the port the second one tries first
        choices = iter([first.port, free_port()])
        monkeypatch.setattr(server_module, "free_port", lambda: next(choices))
        async with make(tmp_path / "second") as second:
            assert second.port != first.port
            assert second.running


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path) -> None:
    metadata = tmp_path / "site" / "rewardpoints-0.0.0.dist-info" / "METADATA"  # this package alone is installed
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: rewardpoints\nVersion: 0.0.0\n")
    script = f"""
        import sys
        sys.path[:0] = [{str(REPOSITORY)!r}, {str(tmp_path / "site")!r}]
        from pathlib import Path
        from rewardpoints.embedded import EmbeddedNotInstalled, kafka_server, mongodb_server
        for make in (kafka_server, mongodb_server):
            try:
                make(Path({str(tmp_path)!r}))
            except EmbeddedNotInstalled as error:
                print(error)
    """
    bare = ["-I", "-S"]  # without the packages of this interpreter
    with start_process([sys.executable, *bare, "-c", textwrap.dedent(script)]) as process:
        lines = process.communicate(timeout=30)[0].splitlines()
    assert len(lines) == 2
    assert all(line.endswith("pip install 'rewardpoints[embedded]'") for line in lines)


async def test_reaping_goes_on_after_errors_and_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(launcher_module, "_REAP_LIMIT_SECONDS", 0.01)
    calls: list[str] = []

    async def fail() -> None:
        raise ConnectionError("no server")

    async def hang() -> None:
        await asyncio.Event().wait()

    async def work() -> None:
        calls.append("worked")

    rounds = iter([fail, fail, hang, work, fail, *[work] * 1000])

    async def reap() -> None:
        action: Callable[[], Awaitable[None]] = next(rounds)
        calls.append(action.__name__)
        await action()

    loop = asyncio.create_task(keep_reaping(reap, every_seconds=0.001))
    await until(lambda: calls.count("worked") >= 2)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    assert calls[:7] == ["fail", "fail", "hang", "work", "worked", "fail", "work"]
    assert len([record for record in caplog.records if "reaping" in record.message]) == 2  # one for each stretch
