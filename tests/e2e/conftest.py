"""A stack for each test: its own database, topics, groups and processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, running_stack


@pytest.fixture
async def stack(
    mongodb_uri: str, kafka_bootstrap_servers: str, database_name: str, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[Stack]:
    """Topics, indexes and settings are there; processes are started by the test."""
    async with running_stack(
        mongodb_uri=mongodb_uri,
        kafka=kafka_bootstrap_servers,
        database=database_name,
        prefix=topic_prefix,
        folder=tmp_path,
    ) as running:
        yield running
