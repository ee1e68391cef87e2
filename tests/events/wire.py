"""Producing to and reading from a real broker, and waiting for what happens there."""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from prometheus_client import CollectorRegistry

from rewardpoints.events.records import Headers, Record
from rewardpoints.settings import KafkaSettings
from tests.events.fakes import NOW, TENANT

TIMEOUT_SECONDS = 20.0
MILLISECONDS = int(NOW.timestamp() * 1000)
BY_TENANT: Headers = (("tenant", TENANT.encode()),)


@dataclass
class FakeRecord:
    """A record that came over no wire."""

    value: bytes | None
    headers: Headers = BY_TENANT
    topic: str = "orders"
    partition: int = 0
    offset: int = 0
    timestamp: int = MILLISECONDS
    key: bytes | None = None


def order(number: object = "O1", **changes: object) -> dict[str, Any]:
    return {
        "id": number,
        "status": "COMPLETED",
        "customer": {"id": "C1", "name": "not kept"},
        "siteCode": "main",
        "totalPrice": 100,
        "subTotalPrice": 90,
        "currency": "EUR",
        "completed": "2026-05-01T11:59:00.000+00:00",
        **changes,
    }


def order_bytes(number: object = "O1", **changes: object) -> bytes:
    return json.dumps(order(number, **changes)).encode()


def clock() -> datetime:
    return datetime.now(UTC)


async def until(condition: Callable[[], object], *, seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait for ``condition``; fails when it does not come true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for happens on a server
            await asyncio.sleep(0.01)


async def produce(
    settings: KafkaSettings,
    topic: str,
    values: Iterable[bytes | None],
    *,
    headers: Headers = BY_TENANT,
    partition: int | None = None,
    key: bytes | None = None,
) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, max_request_size=2_000_000, acks="all"
    ) as producer:
        acknowledgements = [
            await producer.send(topic, value, key=key, headers=list(headers), partition=partition) for value in values
        ]
        await asyncio.gather(*acknowledgements)


async def create_topic(settings: KafkaSettings, topic: str, **configuration: str) -> None:
    """A topic of one partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=configuration)])
    finally:
        await admin.close()


async def read(settings: KafkaSettings, topic: str, count: int) -> Sequence[Record]:
    """The first ``count`` records of a topic, or however many come in time."""
    found: list[Record] = []
    async with AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers, auto_offset_reset="earliest") as consumer:
        partitions = [TopicPartition(topic, number) for number in range(settings.topic_partitions)]
        consumer.assign(partitions)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found.extend(records)
    return found


async def end_of(settings: KafkaSettings, topic: str) -> int:
    """How many records a topic holds."""
    async with AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers) as consumer:
        partitions = [TopicPartition(topic, number) for number in range(settings.topic_partitions)]
        ends = await consumer.end_offsets(partitions)
    return sum(ends.values())


async def committed(settings: KafkaSettings, group: str, topic: str) -> dict[int, int]:
    """The committed offset of each partition that has one."""
    async with AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers, group_id=group, enable_auto_commit=False
    ) as consumer:
        partitions = [TopicPartition(topic, number) for number in range(settings.topic_partitions)]
        consumer.assign(partitions)
        offsets = {partition.partition: await consumer.committed(partition) for partition in partitions}
    return {partition: offset for partition, offset in offsets.items() if offset is not None}


def metric(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(f"rewardpoints_{name}", labels) or 0.0
