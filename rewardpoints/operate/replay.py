"""Replays as an operator runs them: started, resumed, looked at and stopped."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from rewardpoints.app.clock import utc_now
from rewardpoints.app.commands import kafka_errors
from rewardpoints.domain.differences import Difference
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.replays import Replay, ReplayRequest
from rewardpoints.events.range_reader import RangeReader
from rewardpoints.events.replay import ReplayRun, scope_of
from rewardpoints.events.replay_orders import AppliedReplay, DryReplay, Ports, ReplayOrders
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.tombstones import TombstoneCache
from rewardpoints.settings import KafkaSettings, Settings

PATIENCE_SECONDS: Final = 300.0
"""How long a server may stay away before a replay gives up; it can be resumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """Who hears of a replay while it runs, and the event that stops it after the batch in flight."""

    stopping: asyncio.Event
    on_progress: Callable[[Replay], None]
    on_difference: Callable[[Difference], None]


async def start_replay(settings: Settings, ledger: Ledger, request: ReplayRequest, hearing: Hearing) -> Replay:
    """Carry a replay out and return it as it ended: finished, or stopped.

    Its ranges are fixed when it starts. It never publishes anything. Killed at any point, ``resume_replay`` goes on
    with exact totals.

    Raises:
        InvalidInput: the request makes no sense; nothing was done.
        ReplayTakenOver: somebody resumed it elsewhere.
        LedgerUnavailable, ServerRefused: a server stayed away; resume it.
    """
    replay = _new(settings.kafka, request)
    with kafka_errors():
        async with RangeReader(settings.kafka, request.topic) as reader:
            replay = await _ranged(replay, request, reader)
            await ledger.replays.create(replay)
            hearing.on_progress(replay)
            applied = AppliedReplay(replay.id, _ports(ledger))
            return await _run(settings, ledger, applied, hearing).run(replay, reader)


async def dry_run_replay(settings: Settings, ledger: Ledger, request: ReplayRequest, hearing: Hearing) -> Replay:
    """What ``start_replay`` would do, as if it had been done. Writes nothing, neither lots nor the run itself.

    Raises:
        InvalidInput: the request makes no sense.
        LedgerUnavailable, ServerRefused: a server stayed away.
    """
    replay = _new(settings.kafka, request)
    with kafka_errors():
        async with RangeReader(settings.kafka, request.topic) as reader:
            replay = await _ranged(replay, request, reader)
            hearing.on_progress(replay)
            return await _run(settings, None, DryReplay(_ports(ledger)), hearing).run(replay, reader)


async def resume_replay(
    settings: Settings, ledger: Ledger, replay_id: str, hearing: Hearing, *, rate: float | None = None
) -> Replay:
    """Go on with a replay that was stopped, failed or killed, at another ``rate`` where one is given.

    Whoever still runs it stops at its next batch.

    Raises:
        NotFound, ReplayFinished: there is nothing to go on with.
        ReplayTakenOver, LedgerUnavailable, ServerRefused: as for ``start_replay``.
    """
    replay = await ledger.replays.take_over(replay_id, utc_now())
    if rate is not None:
        replay = replace(replay, rate=rate)
    with kafka_errors():
        async with RangeReader(settings.kafka, replay.scope.topic) as reader:
            hearing.on_progress(replay)
            applied = AppliedReplay(replay.id, _ports(ledger))
            return await _run(settings, ledger, applied, hearing).run(replay, reader)


def check_order_topic(kafka: KafkaSettings, topic: str) -> None:
    """Refuse a topic that is known to hold something else than orders.

    Raises:
        InvalidInput
    """
    others = {
        kafka.topic_chargebacks,
        kafka.topic_coupon_creation_requests,
        kafka.topic_coupon_creation_results,
        kafka.topic_dead_letter,
    }
    if topic in others:
        raise InvalidInput("topic", f"{topic} holds no orders")


def _new(kafka: KafkaSettings, request: ReplayRequest) -> Replay:
    check_order_topic(kafka, request.topic)
    if request.rate is not None and not request.rate > 0:
        raise InvalidInput("rate", "must be more than 0")
    now = utc_now()
    return Replay(
        id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        scope=scope_of(
            request.topic, request.begin, request.end, tenant=request.tenant, customer_id=request.customer_id
        ),
        partitions=(),
        started_at=now,
        updated_at=now,
        rate=request.rate,
    )


async def _ranged(replay: Replay, request: ReplayRequest, reader: RangeReader) -> Replay:
    return replace(replay, partitions=await reader.ranges(request.begin, request.end, partition=request.partition))


def _ports(ledger: Ledger) -> Ports:
    return Ports(ledger.lots, TombstoneCache(ledger.tombstones), ledger.settings_reader, utc_now)


def _run(settings: Settings, ledger: Ledger | None, orders: ReplayOrders, hearing: Hearing) -> ReplayRun:
    return ReplayRun(
        settings.kafka,
        orders,
        ledger.replays if ledger else None,
        clock=utc_now,
        stopping=hearing.stopping,
        patience_seconds=PATIENCE_SECONDS,
        retry_max_seconds=settings.service.retry_max_seconds,
        on_progress=hearing.on_progress,
        on_difference=hearing.on_difference,
    )
