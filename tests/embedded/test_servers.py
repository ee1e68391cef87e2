"""The fixtures every other test relies on."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from pymongo import AsyncMongoClient, MongoClient

from tests.servers import abort_open_transactions

REPOSITORY = Path(__file__).parents[2]
USED_NAMES: set[str] = set()


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_a_database_of_its_own(mongodb_uri: str, database_name: str, turn: int) -> None:
    async with AsyncMongoClient[dict[str, Any]](mongodb_uri) as client:
        assert await client[database_name].list_collection_names() == []
        await client[database_name]["lots"].insert_one({"_id": turn})
    assert database_name not in USED_NAMES
    USED_NAMES.add(database_name)


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_topics_of_its_own(kafka_bootstrap_servers: str, topic_prefix: str, turn: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap_servers) as producer:
        metadata = await producer.send_and_wait(f"{topic_prefix}orders", b"{}")
    assert metadata.offset == 0


def test_tests_that_are_not_async_get_the_servers_too(mongodb_uri: str, database_name: str) -> None:
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        assert client[database_name].list_collection_names() == []


async def test_a_transaction_that_was_left_open_can_be_ended(mongodb_uri: str, database_name: str) -> None:
    async with (
        AsyncMongoClient[dict[str, Any]](mongodb_uri) as client,
        AsyncMongoClient[dict[str, Any]](mongodb_uri, timeoutMS=15_000) as other,
        client.start_session() as session,
    ):
        await client[database_name]["lots"].insert_one({"_id": 1})
        await session.start_transaction()
        await client[database_name]["lots"].update_one({"_id": 1}, {"$set": {"drawn": 1}}, session=session)
        await abort_open_transactions(mongodb_uri)
        await other[database_name]["lots"].update_one({"_id": 1}, {"$set": {"drawn": 2}})


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("REWARDPOINTS_TEST_MONGODB", "testcontainers", "no Docker engine answers"),
        ("REWARDPOINTS_TEST_KAFKA", "testcontainers", "no Docker engine answers"),
        ("REWARDPOINTS_TEST_KAFKA", "apache", "Apache Kafka 4 needs Java 17, and there is no java"),
    ],
)
def test_a_choice_that_cannot_be_had_skips_with_its_reason(
    variable: str, value: str, reason: str, tmp_path: Path
) -> None:
    asked = "mongodb_uri" if variable.endswith("MONGODB") else "kafka_bootstrap_servers"
    module = tmp_path / "test_one.py"
    module.write_text(f"def test_one({asked}): pass\n")
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/no-engine.sock", "PATH": str(tmp_path), variable: value}
    environment = {name: text for name, text in os.environ.items() if not name.startswith("REWARDPOINTS_TEST_")}
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "tests.conftest", str(module)]
    run = subprocess.run(  # noqa: S603  # our own command
        command, cwd=REPOSITORY, env=environment | nowhere, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 skipped" in run.stdout
    assert reason in run.stdout.replace("\n", " ")
