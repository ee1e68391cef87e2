"""Relay: publishes the coupon requests that are due, whoever left them."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.domain.ports import Clock, Redemptions
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.events.messages import encode_coupon_request
from rewardpoints.events.producer import EventProducer
from rewardpoints.events.waiting import cut_short, pause
from rewardpoints.telemetry import Metrics

logger = structlog.get_logger(__name__)

MAX_BACKGROUND_PUBLISHES: Final = 200
OBSERVE_SECONDS: Final = 15.0
MAX_BACKOFF_SECONDS: Final = 30.0
STOP_SECONDS: Final = 3.0
"""How long a stop waits for what is being published; what was taken comes due again after its lease."""


class CouponRequestPublisher:
    """Publishes coupon requests and clears them on the broker's acknowledgement. ``by`` names it in metrics.

    Implements the port ``CouponRequests`` for the API; the relay publishes through one of its own.
    """

    def __init__(
        self, redemptions: Redemptions, producer: EventProducer, metrics: Metrics, *, topic: str, by: str
    ) -> None:
        self._redemptions = redemptions
        self._producer = producer
        self._metrics = metrics
        self._topic = topic
        self._by = by
        self._tasks: set[asyncio.Task[None]] = set()

    def publish_soon(self, redemption: Redemption) -> None:
        """Publish in the background; never blocks or raises. What fails, or exceeds the bound, is left to the relay."""
        if len(self._tasks) >= MAX_BACKGROUND_PUBLISHES:
            return
        task = asyncio.create_task(self._publish_quietly(redemption))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, timeout_seconds: float) -> None:
        """Wait for what is being published in the background; what takes longer is left to the relay."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def connect(self) -> None:
        """Connect to Kafka, where that is not done.

        Raises:
            KafkaError: it could not be done.
        """
        await self._producer.connect()

    async def publish(self, redemptions: Sequence[Redemption]) -> int:
        """Publish all, then clear those acknowledged; returns how many these are. The others stay due.

        Raises:
            KafkaError: no connection; nothing was published.
            LedgerUnavailable: some were published and not cleared; they will be published again.
        """
        messages = [encode_coupon_request(redemption, self._topic) for redemption in redemptions]
        try:
            outcomes = await self._producer.publish_all(messages)
        except KafkaError:
            self._metrics.coupon_requests_failed.labels(self._by).inc(len(redemptions))
            raise
        published = 0
        for redemption, failure in zip(redemptions, outcomes, strict=True):
            if failure is not None:
                self._metrics.coupon_requests_failed.labels(self._by).inc()
                logger.warning("coupon_request_failed", redemption=redemption.id, error=type(failure).__name__)
                continue
            self._metrics.coupon_requests_published.labels(self._by).inc()
            await self._redemptions.mark_published(redemption.id)
            published += 1
        return published

    async def _publish_quietly(self, redemption: Redemption) -> None:
        try:
            await self.publish([redemption])
        except (KafkaError, LedgerUnavailable) as error:
            logger.warning("coupon_request_left_to_relay", redemption=redemption.id, error=type(error).__name__)
        except Exception:
            logger.exception("coupon_request_left_to_relay", redemption=redemption.id)


class Relay:
    """Takes due coupon requests under a lease, publishes them and clears them. Several may run beside each other.

    Also keeps the metrics of what is due and unanswered.
    """

    def __init__(
        self,
        redemptions: Redemptions,
        publisher: CouponRequestPublisher,
        metrics: Metrics,
        clock: Clock,
        *,
        lease_seconds: float,
        batch: int,
        poll_seconds: float,
        unanswered_after_seconds: float,
    ) -> None:
        self._redemptions = redemptions
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._batch = batch
        self._poll_seconds = poll_seconds
        self._unanswered_after_seconds = unanswered_after_seconds

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping`` is set, and at most ``STOP_SECONDS`` longer.

        An unreachable ledger or Kafka is waited for, with growing pauses.
        """
        await cut_short(self._side_by_side(stopping), stopping, grace_seconds=STOP_SECONDS)

    async def _side_by_side(self, stopping: asyncio.Event) -> None:
        """Observing waits for no acknowledgement of Kafka's: just when none comes the figures matter."""
        tasks = [asyncio.create_task(self._keep_observing(stopping)), asyncio.create_task(self._work(stopping))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _keep_observing(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await self._observe()
            except LedgerUnavailable as error:
                logger.warning("coupon_requests_not_counted", error=str(error))
            await pause(OBSERVE_SECONDS, stopping)

    async def _work(self, stopping: asyncio.Event) -> None:
        wait_seconds = self._poll_seconds
        while not stopping.is_set():
            try:
                taken, published = await self.publish_due()
            except (KafkaError, LedgerUnavailable) as error:
                logger.warning("relay_waits", error=type(error).__name__, pause_seconds=wait_seconds)
                taken = published = 0
                wait_seconds = min(wait_seconds * 2, max(MAX_BACKOFF_SECONDS, self._poll_seconds))
            else:
                wait_seconds = self._poll_seconds
            if taken == self._batch and published:
                continue  # more may be due
            await pause(wait_seconds, stopping)

    async def publish_due(self) -> tuple[int, int]:
        """Take and publish one batch; returns how many were taken and how many of them are through.

        Raises:
            KafkaError, LedgerUnavailable: what was taken and not cleared is due again when its lease ends.
        """
        await self._publisher.connect()  # without a connection nothing is taken, so nothing waits for its lease to end
        due = await self._redemptions.take_due(self._clock(), lease_seconds=self._lease_seconds, limit=self._batch)
        if not due:
            return 0, 0
        return len(due), await self._publisher.publish(due)

    async def _observe(self) -> None:
        now = self._clock()
        counts = await self._redemptions.counts(now, unanswered_after_seconds=self._unanswered_after_seconds)
        age = (now - counts.oldest_due).total_seconds() if counts.oldest_due else 0
        self._metrics.coupon_requests_due.set(counts.due)
        self._metrics.coupon_requests_oldest_seconds.set(max(age, 0))
        self._metrics.redemptions_unanswered.set(counts.unanswered)
