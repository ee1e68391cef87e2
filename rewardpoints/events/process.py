"""The events part of a process: its subscribers, its relay and its producer, started and stopped together."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import structlog
from aiokafka.errors import KafkaError
from tenacity import AsyncRetrying, RetryCallState, RetryError, retry_if_exception_type, stop_when_event_set
from tenacity.wait import wait_random_exponential

from rewardpoints.events.broker import RawKafkaBroker
from rewardpoints.events.diagnosis import why_unreachable
from rewardpoints.events.producer import EventProducer
from rewardpoints.events.raw_subscriber import OnFatal, RawSubscriber
from rewardpoints.events.relay import Relay
from rewardpoints.events.waiting import cut_short, pause
from rewardpoints.settings import KafkaSettings

logger = structlog.get_logger(__name__)

START_BACKOFF_MAX_SECONDS: Final = 10.0


class EventsProcess:
    """Runs subscribers and a relay beside the rest of a process.

    ``start`` returns at once; connecting is tried in the background until it works, so a process starts and serves
    while Kafka is down. ``stopping`` is the event the subscribers were made with.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        producer: EventProducer,
        *,
        stopping: asyncio.Event,
        on_fatal: OnFatal,
        subscribers: Sequence[RawSubscriber] = (),
        relay: Relay | None = None,
    ) -> None:
        self._settings = settings
        self._producer = producer
        self._stopping = stopping
        self._on_fatal = on_fatal
        self._subscribers = tuple(subscribers)
        self._relay = relay
        self._tasks: list[asyncio.Task[None]] = []
        self._reading: set[str] = set()

    async def start(self) -> None:
        """Start everything in the background; never waits for Kafka."""
        self._tasks = [
            asyncio.create_task(self._guard(self._run(subscriber)), name=f"subscriber {subscriber.name}")
            for subscriber in self._subscribers
        ]
        if self._relay is not None:
            self._tasks.append(asyncio.create_task(self._guard(self._relay.run(self._stopping)), name="relay"))

    async def stop(self) -> None:
        """Finish and commit the batches in flight, stop the relay and the producer.

        Bounded: ``COMMIT_TIMEOUT_SECONDS`` for a commit under way, ``DRAIN_SECONDS``, and what leaving a group takes.
        """
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        self._tasks = []
        await self._producer.stop()

    @property
    def reading(self) -> frozenset[str]:
        """Names of the subscribers that have joined their group."""
        return frozenset(self._reading)

    @property
    def paused(self) -> frozenset[str]:
        """Names of the subscribers that wait with a flood of bad records in hand."""
        return frozenset(subscriber.name for subscriber in self._subscribers if subscriber.paused)

    async def hears_all(self) -> bool:
        """Whether everything that is published is being read now: ready, and nothing paused."""
        return not self.paused and await self.kafka_ready()

    async def kafka_ready(self) -> bool:
        """Whether every subscriber has joined its group and the cluster answers, within a few seconds."""
        return len(self._reading) == len(self._subscribers) and await self._producer.ready()

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except Exception as error:
            logger.exception("events_task_failed")
            self._on_fatal(error)

    async def _run(self, subscriber: RawSubscriber) -> None:
        broker = await self._started(subscriber)
        if broker is None:
            return
        self._reading.add(subscriber.name)
        logger.info("subscriber_reads", topic=subscriber.topic, group=subscriber.group)
        await cut_short(subscriber.watch_lag(), self._stopping, grace_seconds=0)
        self._reading.discard(subscriber.name)
        await subscriber.settled()
        await broker.stop()

    async def _started(self, subscriber: RawSubscriber) -> RawKafkaBroker | None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((KafkaError, OSError)),
            wait=wait_random_exponential(multiplier=0.5, max=START_BACKOFF_MAX_SECONDS),
            stop=stop_when_event_set(self._stopping),  # type: ignore[arg-type]  # asks is_set(), as asyncio's has
            sleep=partial(pause, stopping=self._stopping),
            before_sleep=self._note_retry,
        )
        attempts: asyncio.Task[RawKafkaBroker] = asyncio.create_task(retrying(self._start, subscriber))
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([attempts, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not attempts.done():  # joining a group may take as long as it likes
                attempts.cancel()
                await asyncio.wait([attempts])
            return None if attempts.cancelled() else attempts.result()
        except RetryError:
            return None
        finally:
            stopped.cancel()

    async def _start(self, subscriber: RawSubscriber) -> RawKafkaBroker:
        """A broker of its own for each try, so that nothing of a failed one stays."""
        broker = RawKafkaBroker(self._settings, on_broken=self._on_fatal)
        subscriber.attach(broker)
        try:
            await broker.start()
        except BaseException:
            await broker.stop()
            raise
        return broker

    async def _note_retry(self, state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        logger.warning(
            "kafka_unreachable",
            attempt=state.attempt_number,
            pause_seconds=round(state.upcoming_sleep, 1),
            error=type(error).__name__,
            reason=await why_unreachable(self._settings),
        )
