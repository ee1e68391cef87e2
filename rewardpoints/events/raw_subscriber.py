"""Raw subscriber: batches of raw records, retried in place, committed by code that knows what was handled.

FastStream swallows exceptions of its parser, its decoder and the handler, polls on, and the records are passed over.
So here parser and decoder cannot raise, the handler lets nothing out, and offsets are committed explicitly for what
was handled and nothing else.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal

import structlog
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.subscriber.usecase import BatchSubscriber
from tenacity import AsyncRetrying, RetryCallState, RetryError, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from rewardpoints.domain.errors import LedgerBusy, LedgerUnavailable, RejectReason
from rewardpoints.domain.ports import Clock
from rewardpoints.events.batch_commits import BatchCommits
from rewardpoints.events.connection import consumer_group
from rewardpoints.events.flood_guard import FloodOfBadRecords
from rewardpoints.events.lag_watch import LagWatch
from rewardpoints.events.raw_message import decode, parse
from rewardpoints.events.records import Record
from rewardpoints.events.waiting import pause
from rewardpoints.settings import KafkaSettings
from rewardpoints.telemetry import Metrics

logger = structlog.get_logger(__name__)

Handler = Callable[[Sequence[Record]], Awaitable[None]]
OnFatal = Callable[[Exception], None]

TRANSIENT: Final = (LedgerUnavailable, LedgerBusy, KafkaError, FloodOfBadRecords)
"""What passes by itself, or when somebody has mended it: the same batch is tried again until it does."""

FIRST_RETRY_SECONDS: Final = 0.2


class RawSubscriber:
    """Reads a topic in batches and hands them to ``handle``, which returns when the batch is safe in the ledger.

    * ``LedgerUnavailable``, ``LedgerBusy`` or a ``KafkaError`` from ``handle``: tried again, with a pause that grows to
      ``retry_max_seconds``, until it works or ``stopping`` is set. ``handle`` must therefore be idempotent. Between
      tries the consumer stays a member of its group however long it takes; a single try has ``max_poll_interval_ms``.
    * ``FloodOfBadRecords``: tried again in the same way, ``paused`` meanwhile. Where a rebalance has taken a partition
      of it away, the records are left to who has it now, and what is still this consumer's is read again.
    * Any other exception: ``on_fatal`` is called, which must end the process; this subscriber handles and commits
      nothing more.
    * ``one_by_one``: ``handle`` gets one record at a time, so that a retry repeats one record and not the batch.

    What was handled is committed while the next batch is read and handled; who dies meanwhile gets both again.

    Set ``stopping`` and wait until ``settled`` before stopping the broker: the batch in flight is finished and
    committed, one that waits for a retry is given up. Of a batch that is given up, what was handled before is
    committed, and nothing else.
    """

    def __init__(
        self,
        name: str,
        topic: str,
        handle: Handler,
        *,
        settings: KafkaSettings,
        metrics: Metrics,
        clock: Clock,
        stopping: asyncio.Event,
        on_fatal: OnFatal,
        retry_max_seconds: float,
        one_by_one: bool = False,
    ) -> None:
        self.name = name
        self.topic = topic
        self._handle = handle
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._stopping = stopping
        self._on_fatal = on_fatal
        self._retrying = AsyncRetrying(
            retry=retry_if_exception_type(TRANSIENT),
            wait=wait_random_exponential(
                multiplier=FIRST_RETRY_SECONDS,
                # several pauses and tries fit into the time after which aiokafka would leave the group
                max=min(retry_max_seconds, settings.max_poll_interval_ms / 1000 / 3),
            ),
            stop=self._must_stop,
            sleep=partial(pause, stopping=stopping),
            before_sleep=self._note_retry,
        )
        self._one_by_one = one_by_one
        self._given_up = False
        self._paused = False
        self._lag = LagWatch(topic, metrics, clock)
        self._subscriber: BatchSubscriber | None = None
        self._commits = BatchCommits(topic, metrics)

    @property
    def group(self) -> str:
        """The consumer group it reads in."""
        return consumer_group(self._settings, self.name)

    @property
    def paused(self) -> bool:
        """Whether it waits with a flood of bad records in hand."""
        return self._paused

    def attach(self, broker: KafkaBroker) -> None:
        """Register on a broker that is not started yet. A later call replaces an earlier one."""
        settings = self._settings
        instance = settings.group_instance_id
        batch: Literal[True] = True
        subscriber = broker.subscriber(
            self.topic,
            batch=batch,
            max_records=settings.max_batch_records,
            batch_timeout_ms=settings.linger_ms,
            group_id=self.group,
            group_instance_id=f"{instance}.{self.name}" if instance else None,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            max_poll_interval_ms=settings.max_poll_interval_ms,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=max(settings.session_timeout_ms // 3, 1),
            max_partition_fetch_bytes=settings.partition_fetch_bytes or max(2 * settings.max_message_bytes, 1_048_576),
            parser=parse,
            decoder=decode,
            no_reply=True,
            include_in_schema=False,
        )
        subscriber(partial(self._apart, copy_context()))
        assert isinstance(subscriber, BatchSubscriber)  # noqa: S101 - what ``batch=True`` makes
        self._subscriber = subscriber
        self._metrics.consumption_paused.labels(self.topic).set(0)
        # at 0, so that the first one is an increase too
        for reason in RejectReason:
            self._metrics.dead_letters.labels(self.topic, reason.value)
        self._metrics.batch_retries.labels(self.topic)

    async def settled(self) -> None:
        """Until no commit is under way, within some seconds."""
        await self._commits.settled()

    async def watch_lag(self) -> None:
        """Keep the metrics of how far it is behind, from when its broker has started until ``stopping`` is set."""
        await self._lag.run(self._consumer, self._stopping)

    async def _apart(self, context: Context, records: Sequence[Record]) -> None:
        """Work outside the framework's context, which holds the batch: every timer started in it would hold it too.

        A cancelled timer stays with asyncio until it is due or a hundred are; a request's is due after 40 seconds.
        """
        await asyncio.create_task(self._on_batch(records), context=context)

    async def _on_batch(self, records: Sequence[Record]) -> None:
        if self._given_up or self._stopping.is_set():
            self._given_up = True  # a later batch must not be committed past this one
            await self._commits.settled()  # a stop waits for it too; the framework would read on and on meanwhile
            return
        self._lag.take(records)
        try:
            await self._work_through(records)
        finally:
            self._lag.let_go()

    async def _work_through(self, records: Sequence[Record]) -> None:
        started = time.monotonic()
        handled: list[Record] = []
        try:
            await self._handle_parts(records, handled)
        except Exception as error:
            self._given_up = True
            where = _begins(records)
            logger.exception("batch_failed_for_good", topic=self.topic, records=len(records), begins_at=where)
            await self._commits.begin(self._consumer, handled)
            await self._commits.settled()
            self._on_fatal(error)
            await self._stopping.wait()
            return
        complete = len(handled) == len(records)
        if complete:
            self._measure(records, started)
        await self._commits.begin(self._consumer, handled)
        if self._stopping.is_set():
            await self._commits.settled()
            if not complete:
                self._given_up = True
                logger.warning("batch_given_up", topic=self.topic, records=len(records) - len(handled))
        elif not complete:
            await self._commits.settled()
            self._consumer.read_again()

    async def _handle_parts(self, records: Sequence[Record], handled: list[Record]) -> None:
        """Handle the records, and put those that are through into ``handled`` as it goes; stops where one is not."""
        parts = [[record] for record in records] if self._one_by_one else [records]
        try:
            for part in parts:
                if not await self._handled(part):
                    return
                handled += part
                self._lag.through(part)
                self._stay_in_group()
        finally:
            self._note_resumed()

    async def _handled(self, part: Sequence[Record]) -> bool:
        try:
            await self._retrying(self._handle_own, part)
        except (RetryError, _PartitionLost):
            return False
        return True

    async def _handle_own(self, part: Sequence[Record]) -> None:
        """Not what was taken over: its new reader may be done with it.

        One more try would add lots again that were looked at, and erased, meanwhile.
        """
        if not self._owns(part):
            raise _PartitionLost
        await self._handle(part)

    def _owns(self, part: Sequence[Record]) -> bool:
        assigned = self._consumer.assignment()
        return bool({(record.topic, record.partition) for record in part} <= assigned)

    def _must_stop(self, state: RetryCallState) -> bool:
        (part,) = state.args
        return self._stopping.is_set() or not self._owns(part)

    def _note_retry(self, state: RetryCallState) -> None:
        self._stay_in_group()
        error = _error(state)
        if isinstance(error, FloodOfBadRecords):
            self._note_paused(error)
            return
        self._metrics.batch_retries.labels(self.topic).inc()
        logger.warning(
            "batch_retried",
            topic=self.topic,
            attempt=state.attempt_number,
            pause_seconds=round(state.upcoming_sleep, 1),
            error=type(error).__name__,
            detail=str(error),
        )

    def _note_paused(self, flood: FloodOfBadRecords) -> None:
        if self._paused:
            return
        self._paused = True
        self._metrics.consumption_paused.labels(self.topic).set(1)
        logger.error(
            "consumption_paused",
            reason=flood.reason.value,
            topic=flood.first.topic,
            partition=flood.first.partition,
            offset=flood.first.offset,
            bad=flood.bad,
            judged=flood.judged,
        )

    def _note_resumed(self) -> None:
        if self._paused:
            self._paused = False
            self._metrics.consumption_paused.labels(self.topic).set(0)
            logger.info("consumption_resumed", topic=self.topic)

    @property
    def _consumer(self) -> Any:
        return self._subscriber and self._subscriber.consumer

    def _stay_in_group(self) -> None:
        consumer = self._consumer
        if consumer is not None:
            consumer.stay_in_group()

    def _measure(self, records: Sequence[Record], started: float) -> None:
        metrics, topic = self._metrics, self.topic
        metrics.records_read.labels(topic).inc(len(records))
        metrics.batch_records.labels(topic).observe(len(records))
        metrics.batch_seconds.labels(topic).observe(time.monotonic() - started)
        oldest = min(record.timestamp for record in records)
        metrics.event_age_seconds.labels(topic).observe(max(_milliseconds(self._clock()) - oldest, 0) / 1000)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def _begins(records: Sequence[Record]) -> list[str]:
    """The first offset of each partition, as ``rewardpoints topics read --at`` takes it."""
    first: dict[int, int] = {}
    for record in records:
        first.setdefault(record.partition, record.offset)
    return [f"{partition}/{offset}" for partition, offset in sorted(first.items())]


class _PartitionLost(Exception):
    """Another member reads the records now."""
