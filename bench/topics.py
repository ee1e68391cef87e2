"""Topics filled before anybody is timed, and how far a group has come with one."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from bench.context import PARTITIONS
from bench.orders import Feed
from tests.e2e.stack import TENANT

HEADERS = [("tenant", TENANT.encode())]
FILL_AT_ONCE = 2_000
POLL_SECONDS = 0.02
PATIENCE_SECONDS = 900.0


_RETRYING = AsyncRetrying(
    retry=retry_if_exception_type(KafkaError), wait=wait_fixed(POLL_SECONDS), stop=stop_after_delay(60), reraise=True
)


@contextlib.asynccontextmanager
async def filled_topic(kafka: str, name: str, feeds: Sequence[Feed], count: int) -> AsyncIterator[str]:
    """A topic with ``count`` orders, taken from the feeds in turns; deleted at the end."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
        await fill(kafka, name, feeds, count)
        yield name
        await admin.delete_topics([name])
    finally:
        await admin.close()


async def fill(kafka: str, topic: str, feeds: Sequence[Feed], count: int, *, first: int = 0) -> None:
    """Publish ``count`` orders from the ``first`` on, the n-th to partition n modulo the number of partitions."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=5, max_batch_size=262_144)
    await producer.start()
    try:
        numbers = iter(range(first, first + count))
        while chunk := list(islice(numbers, FILL_AT_ONCE)):
            sent = [
                await producer.send(
                    topic, feeds[number % len(feeds)].value(number), partition=number % PARTITIONS, headers=HEADERS
                )
                for number in chunk
            ]
            await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def read_all(kafka: str, topic: str, count: int) -> list[Any]:
    """The records of a topic, as a bare consumer gets them."""
    records: list[Any] = []
    async for batch in polled(kafka, topic, count):
        records += batch
    return records


async def polled(kafka: str, topic: str, count: int) -> AsyncIterator[list[Any]]:
    """What bare polling brings, batch by batch, until there were ``count`` records. No group, nothing committed."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
        seen, at_once = 0, max(1, min(1000, count // 10))  # what comes first is not timed by who times this
        async with asyncio.timeout(PATIENCE_SECONDS):
            while seen < count:
                batches = await consumer.getmany(timeout_ms=1000, max_records=at_once)
                batch = [record for records in batches.values() for record in records]
                seen += len(batch)
                if batch:
                    yield batch
    finally:
        await consumer.stop()


@dataclass(frozen=True, slots=True)
class Mark:
    """How many records a group had committed at an instant (monotonic)."""

    committed: tuple[int, ...]
    at: float

    @property
    def total(self) -> int:
        """Of all partitions."""
        return sum(self.committed)


class Progress:
    """Looks at what a group has committed of a topic."""

    def __init__(self, kafka: str, topic: str, group: str) -> None:
        self._admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        self._partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        self._group = group
        self._coordinator: int | None = None

    async def __aenter__(self) -> Self:
        await self._admin.start()
        # Apache Kafka makes the topic of its offsets, and with it a coordinator, for the first group that asks
        self._coordinator = await _RETRYING(self._admin.find_coordinator, self._group)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._admin.close()

    async def mark(self) -> Mark:
        """What is committed now."""
        offsets: Any = await _RETRYING(
            self._admin.list_consumer_group_offsets,
            self._group,
            group_coordinator_id=self._coordinator,
            partitions=self._partitions,
        )
        found = [offsets.get(partition) for partition in self._partitions]  # some brokers leave out what has none
        committed = tuple(max(one.offset, 0) if one else 0 for one in found)
        return Mark(committed, time.monotonic())

    async def until(self, reached: Callable[[Mark], bool], *, what: str, check: Callable[[], None]) -> Mark:
        """The first mark that is far enough. ``check`` raises where it never will be: a process ended, say."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached(mark := await self.mark()):
            check()
            if mark.at > deadline:
                raise TimeoutError(f"not within {PATIENCE_SECONDS:.0f} s: {what}; {mark.total} committed")
            await asyncio.sleep(POLL_SECONDS)
        return mark
