"""Topics, a producer and subscribers of each test's own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rewardpoints.events.dead_letters import DeadLetters
from rewardpoints.events.process import EventsProcess
from rewardpoints.events.producer import EventProducer
from rewardpoints.events.raw_subscriber import Handler, RawSubscriber
from rewardpoints.events.topics import create_topics
from rewardpoints.settings import KafkaSettings
from rewardpoints.telemetry import Metrics
from tests.events.wire import clock

Read = Callable[..., contextlib.AbstractAsyncContextManager["Reading"]]


class Reading:
    """A subscriber at work."""

    def __init__(self, process: EventsProcess, subscriber: RawSubscriber, fatal: list[Exception]) -> None:
        self.process = process
        self.subscriber = subscriber
        self.fatal = fatal


@pytest.fixture
async def kafka(kafka_bootstrap_servers: str, topic_prefix: str) -> KafkaSettings:
    settings = KafkaSettings(
        bootstrap_servers=kafka_bootstrap_servers,
        topic_order_completed=f"{topic_prefix}orders",
        topic_coupon_creation_requests=f"{topic_prefix}requests",
        topic_coupon_creation_results=f"{topic_prefix}results",
        topic_chargebacks=f"{topic_prefix}chargebacks",
        topic_dead_letter=f"{topic_prefix}dead",
        topic_partitions=3,
        topic_replication_factor=1,
        group_id=f"{topic_prefix}group",
        empty_fetch_pause_ms=50,
        linger_ms=5,
        request_timeout_ms=5000,
    )
    await create_topics(settings)
    return settings


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def producer(kafka: KafkaSettings) -> AsyncIterator[EventProducer]:
    producer = EventProducer(kafka, ack_timeout_seconds=5)
    yield producer
    await producer.stop()


@pytest.fixture
def dead_letters(kafka: KafkaSettings, producer: EventProducer, metrics: Metrics) -> DeadLetters:
    return DeadLetters(producer, kafka.topic_dead_letter, metrics, clock)


@pytest.fixture
def reading(kafka: KafkaSettings, metrics: Metrics) -> Read:
    """Reads the order topic with a handler, as a process does, until the context ends."""

    @contextlib.asynccontextmanager
    async def read(handle: Handler, **options: Any) -> AsyncIterator[Reading]:
        settings = options.pop("settings", kafka)
        stopping = asyncio.Event()
        fatal: list[Exception] = []
        subscriber = RawSubscriber(
            options.pop("name", "orders"),
            options.pop("topic", settings.topic_order_completed),
            handle,
            settings=settings,
            metrics=metrics,
            clock=clock,
            stopping=stopping,
            on_fatal=fatal.append,
            retry_max_seconds=options.pop("retry_max_seconds", 0.2),
            **options,
        )
        process = EventsProcess(
            settings, EventProducer(settings), stopping=stopping, on_fatal=fatal.append, subscribers=[subscriber]
        )
        await process.start()
        try:
            yield Reading(process, subscriber, fatal)
        finally:
            await process.stop()

    return read
