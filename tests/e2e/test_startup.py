"""Starting with what is wrong, missing, or not up yet."""

from pathlib import Path

import httpx
import pytest

from rewardpoints.embedded import kafka_server, mongodb_server
from rewardpoints.embedded.launcher import mongodb_uri as uri_of
from rewardpoints.embedded.ports import free_port
from tests.e2e.stack import Process, Stack, an_order, until

COMPLETE = {"REWARDPOINTS_MONGODB_URI": "mongodb://127.0.0.1:1", "REWARDPOINTS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}


@pytest.mark.parametrize(
    ("command", "changes", "line"),
    [
        ("worker", {"MONGODB_URI": None}, "REWARDPOINTS_MONGODB_URI: not set"),
        ("worker", {"KAFKA_BOOTSTRAP_SERVERS": None}, "REWARDPOINTS_KAFKA_BOOTSTRAP_SERVERS: not set"),
        ("api", {}, "REWARDPOINTS_JWKS_URL: must be set"),
        (
            "worker",
            {"MONGODB_URI": "http://user:secret@x"},
            "REWARDPOINTS_MONGODB_URI: must begin with mongodb:// or mongodb+srv://",
        ),
        ("worker", {"HTTP_WORKER_PORT": "many"}, "REWARDPOINTS_HTTP_WORKER_PORT: "),
        ("worker", {"MONGODB_DATABSE": "x"}, "REWARDPOINTS_MONGODB_DATABSE: no such setting"),
        ("worker", {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "REWARDPOINTS_KAFKA_SASL_USERNAME: must be set"),
        ("api", {"JWKS_FILE": "x", "TOKEN_ALGORITHMS": "HS256"}, "REWARDPOINTS_TOKEN_ALGORITHMS: must be among"),
        (
            "worker",
            {"UNANSWERED_CHARGE_BACK_SECONDS": "60"},
            "REWARDPOINTS_UNANSWERED_CHARGE_BACK_SECONDS: needs REWARDPOINTS_KAFKA_TOPIC_COUPON_CREATION_RESULTS",
        ),
    ],
)
async def test_a_wrong_setting_is_one_line_that_names_it(
    tmp_path: Path, command: str, changes: dict[str, str | None], line: str
) -> None:
    variables = {**COMPLETE, **{f"REWARDPOINTS_{name}": value for name, value in changes.items()}}
    environment = {name: value for name, value in variables.items() if value is not None}
    process = Process([command], environment, tmp_path / "log", tmp_path)
    await process.start()
    assert await process.wait() == 1
    assert len(process.log.splitlines()) == 1
    assert process.log.startswith(f"rewardpoints: {line}")
    assert "secret" not in process.log


async def test_an_address_in_use_is_one_line(stack: Stack) -> None:
    first = await (await stack.api("a1")).ready()
    port = first.url.rpartition(":")[2]
    second = await stack.api("a2", HTTP_PORT=port)
    assert await second.wait() == 1
    assert second.log.splitlines()[-1].startswith(f"rewardpoints: cannot listen on 127.0.0.1:{port}")


async def test_servers_that_come_up_later_are_waited_for(stack: Stack, tmp_path: Path) -> None:
    """Worker and API start with neither server there, say so, and work once both have come up."""
    ports = {"mongodb": free_port(), "kafka": free_port()}
    changes = {
        "MONGODB_URI": uri_of(f"127.0.0.1:{ports['mongodb']}"),
        "MONGODB_SERVER_SELECTION_TIMEOUT_SECONDS": "1",
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{ports['kafka']}",
    }
    api = await stack.api(**changes)
    worker = await stack.worker(**changes)

    async def both_say_no() -> bool:
        answers = [await api.readiness(), await worker.readiness()]
        return all(answer is not None and answer.status_code == httpx.codes.SERVICE_UNAVAILABLE for answer in answers)

    await until(both_say_no, seconds=20, what="both running and not ready")
    await until(lambda: says(worker.log, "mongodb_unreachable", "kafka_unreachable"), seconds=20, what="both named")

    async with mongodb_server(tmp_path / "mongodb", port=ports["mongodb"]) as mongodb:

        async def api_is_ready_without_kafka() -> bool:
            answer = await api.readiness()
            return answer is not None and answer.status_code == httpx.codes.OK

        await until(api_is_ready_without_kafka, seconds=30, what="balances served without Kafka")
        refused = await worker.readiness()
        assert refused is not None
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE

        async with kafka_server(tmp_path / "kafka", port=ports["kafka"]) as kafka:
            there = Stack(
                mongodb_uri=uri_of(mongodb.address),
                kafka=kafka.address,
                database=stack.database,
                prefix=stack.kafka.group_id.removesuffix("group"),
                folder=stack.folder,
            )
            await there.prepare()
            try:
                await worker.ready()
                await api.ready()
                await there.publish_orders(an_order("o1", "c1"))

                async def applied() -> bool:
                    return await there.lot_count() == 1

                await until(applied, seconds=60, what="the order applied")
                assert await worker.stop() == 0
                assert await api.stop() == 0
            finally:
                await there.close()


async def says(log: str, *events: str) -> bool:
    return all(event in log for event in events)
