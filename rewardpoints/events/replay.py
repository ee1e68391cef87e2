"""Replay: a part of a topic read once more through the live path, beside live workers.

A batch is applied first and its progress saved after it, positions and counts in one write. Killed in between, the
batch is applied again, which changes nothing in the ledger; and it counts the same again, since a lot names in its
origin the replay and the record that added it: one that this very record of this very replay added is counted as
added, however often it is met.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

import structlog
from aiokafka.errors import KafkaError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
)
from tenacity.wait import wait_random_exponential

from rewardpoints.domain.accounts import account_of, check_id, check_tenant
from rewardpoints.domain.differences import Difference
from rewardpoints.domain.errors import InvalidInput, LedgerBusy, LedgerUnavailable, RecordRejected, RewardPointsError
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.replays import (
    MOST_DIFFERENCES_KEPT,
    Bound,
    Replay,
    Replays,
    ReplayScope,
    ReplayState,
    Told,
    account_digest,
)
from rewardpoints.events.messages import named_account
from rewardpoints.events.range_reader import RangeReader, offsets_of
from rewardpoints.events.records import Record, published_at
from rewardpoints.events.replay_orders import ReplayOrders, Tally
from rewardpoints.events.waiting import pause
from rewardpoints.settings import KafkaSettings

logger = structlog.get_logger(__name__)

Result = TypeVar("Result")

TRANSIENT: Final = (LedgerUnavailable, LedgerBusy, KafkaError)
FIRST_RETRY_SECONDS: Final = 0.2


class ReplayTakenOver(RewardPointsError):
    """Another process goes on with the replay."""


class ReplayRun:
    """Carries a replay out, from where its progress stands to its end or until it is told to stop.

    ``replays`` is None for a dry run: nothing is stored then. ``on_progress`` hears of each batch, ``on_difference``
    of each differing lot; they must not block. A server that is away is waited for, at most ``patience_seconds``.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        apply: ReplayOrders,
        replays: Replays | None,
        *,
        clock: Clock,
        stopping: asyncio.Event,
        patience_seconds: float,
        retry_max_seconds: float,
        on_progress: Callable[[Replay], None],
        on_difference: Callable[[Difference], None],
    ) -> None:
        self._kafka = kafka
        self._apply = apply
        self._replays = replays
        self._clock = clock
        self._stopping = stopping
        self._patience_seconds = patience_seconds
        self._retry_max_seconds = retry_max_seconds
        self._on_progress = on_progress
        self._on_difference = on_difference
        self._told = Told.GO_ON

    async def run(self, replay: Replay, reader: RangeReader) -> Replay:
        """The replay as it ended: finished, or stopped. ``reader`` has its topic open.

        Raises:
            ReplayTakenOver: another process goes on with it.
            LedgerUnavailable, KafkaError: a server stayed away for too long; the replay is stored as failed as far as
                the ledger can be reached, and can be resumed.
        """
        began, before = time.monotonic(), replay.active_seconds
        reader.assign(replay.partitions)
        reader.gone = replay.counts.gone
        batch_size = self._kafka.max_batch_records
        if replay.rate is not None:
            batch_size = max(1, min(batch_size, int(replay.rate)))
        read_now = 0
        try:
            while not self._stopping.is_set() and self._told is Told.GO_ON:
                records = await self._retrying(partial(reader.read, batch_size))
                if records is None:
                    break
                tally = await self._retrying(partial(self._tally, replay, records)) if records else _untouched(replay)
                if tally is None:
                    break
                for found in tally.differences:
                    self._on_difference(found)
                tally.counts.gone = reader.gone
                replay = self._moved(replay, reader, tally)
                replay = replace(replay, active_seconds=before + time.monotonic() - began)
                if not records:
                    return await self._end(replay, ReplayState.FINISHED)
                await self._save(replay)
                self._on_progress(replay)
                read_now += len(records)
                if replay.rate is not None:
                    await pause(max(0.0, read_now / replay.rate - (time.monotonic() - began)), self._stopping)
        except TRANSIENT as error:
            await self._end(replace(replay, problem=str(error) or type(error).__name__), ReplayState.FAILED)
            raise
        return await self._end(replay, ReplayState.STOPPED)

    async def _tally(self, replay: Replay, records: Sequence[Record]) -> Tally:
        """Apply a batch; counted on a copy, so that a try that failed leaves no trace."""
        tally = _untouched(replay)
        counts, chosen = tally.counts, []
        for record in records:
            if not in_window(replay.scope, record):
                continue
            counts.read += offsets_of(record)
            if replay.scope.selects_accounts and not replay.scope.selects(*named_account(record)):
                counts.not_selected += offsets_of(record)
            else:
                chosen.append(record)
        if chosen:
            await self._apply(chosen, tally)
        return tally

    def _moved(self, replay: Replay, reader: RangeReader, tally: Tally) -> Replay:
        kept = [replace(found, account=None, order_id=None) for found in tally.differences]
        return replace(
            replay,
            partitions=reader.progress,
            counts=tally.counts,
            differences=(*replay.differences, *kept)[:MOST_DIFFERENCES_KEPT],
            updated_at=self._clock(),
        )

    async def _save(self, replay: Replay) -> None:
        if self._replays is None:
            return
        told = await self._retrying(partial(self._replays.save, replay))
        if told is Told.TAKEN_OVER:
            raise ReplayTakenOver(f"another process goes on with replay {replay.id}")
        self._told = told or Told.GO_ON

    async def _end(self, replay: Replay, state: ReplayState) -> Replay:
        """Store how it ended, in one try where it is being stopped; what was saved before is true either way."""
        replay = replace(replay, state=state, updated_at=self._clock())
        replays = self._replays
        if replays is not None:
            try:
                finished = state is ReplayState.FINISHED
                told = await (self._retrying(partial(replays.save, replay)) if finished else replays.save(replay))
            except LedgerUnavailable:
                if finished:
                    raise
                told = None
            if told is Told.TAKEN_OVER:
                raise ReplayTakenOver(f"another process goes on with replay {replay.id}")
            if told is None:
                logger.warning("replay_end_not_saved", replay=replay.id, state=state.value)
        self._on_progress(replay)
        return replay

    async def _retrying(self, work: Callable[[], Awaitable[Result]]) -> Result | None:
        """What ``work`` answers, tried again while a server is away; None where the replay is being stopped."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TRANSIENT),
            wait=wait_random_exponential(multiplier=FIRST_RETRY_SECONDS, max=self._retry_max_seconds),
            stop=stop_any(
                stop_when_event_set(self._stopping),  # type: ignore[arg-type]  # asks is_set(), as asyncio's has
                stop_after_delay(self._patience_seconds),
            ),
            sleep=partial(pause, stopping=self._stopping),
            before_sleep=_note_retry,
            reraise=True,
        )
        try:
            return await retrying(work)
        except TRANSIENT:
            if self._stopping.is_set():
                return None
            raise


def window(topic: str, since: datetime | None, before: datetime | None) -> ReplayScope:
    """The scope of everything in a window."""
    return ReplayScope(topic=topic, since=since, before=before)


def in_window(scope: ReplayScope, record: Record) -> bool:
    """Whether a record's timestamp lies in the scope's window; one without a usable timestamp only in an open one."""
    if scope.since is None and scope.before is None:
        return True
    try:
        at = published_at(record)
    except RecordRejected:
        return False
    return (scope.since is None or scope.since <= at) and (scope.before is None or at < scope.before)


def scope_of(
    topic: str, begin: Bound, end: Bound, *, tenant: str | None = None, customer_id: str | None = None
) -> ReplayScope:
    """The scope of a replay.

    Raises:
        InvalidInput: a customer without a tenant, an empty window, or a name that is none.
    """
    if customer_id is not None and tenant is None:
        raise InvalidInput("customer", "belongs to a tenant: give both")
    since = begin if isinstance(begin, datetime) else None
    before = end if isinstance(end, datetime) else None
    if (since and before and before <= since) or (isinstance(begin, int) and isinstance(end, int) and end <= begin):
        raise InvalidInput("to", "must lie after from")
    account = None
    if tenant is not None and customer_id is not None:
        account = account_digest(account_of(check_tenant(tenant), check_id("customer", customer_id)))
    return ReplayScope(
        topic=topic,
        since=since,
        before=before,
        tenant=None if tenant is None else check_tenant(tenant),
        account=account,
    )


def _untouched(replay: Replay) -> Tally:
    return Tally(replay.counts.copy(), [])


def _note_retry(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    logger.warning(
        "replay_retried",
        attempt=state.attempt_number,
        pause_seconds=round(state.upcoming_sleep, 1),
        error=type(error).__name__,
    )
