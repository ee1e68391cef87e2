"""The consumers of a process: which topics it reads, and who handles their records."""

import asyncio
from collections.abc import Callable

from rewardpoints.app.clock import utc_now
from rewardpoints.events.chargeback_consumer import ChargebackConsumer
from rewardpoints.events.coupon_result_consumer import CouponResultConsumer
from rewardpoints.events.dead_letters import DeadLetters
from rewardpoints.events.flood_guard import FloodGuard
from rewardpoints.events.order_consumer import OrderConsumer
from rewardpoints.events.raw_subscriber import Handler, RawSubscriber
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.tombstones import TombstoneCache
from rewardpoints.settings import Settings
from rewardpoints.telemetry import Metrics


def subscribers(
    settings: Settings,
    ledger: Ledger,
    dead_letters: DeadLetters,
    metrics: Metrics,
    *,
    orders: bool,
    coupon_answers: bool,
    stopping: asyncio.Event,
    on_fatal: Callable[[Exception], None],
) -> list[RawSubscriber]:
    """Those of completed orders, and those of what the coupon service answers, as they are wanted; not yet started.

    ``on_fatal`` is told what none of them can judge.
    """
    kafka = settings.kafka
    handlers: list[tuple[str, str, Handler, bool]] = []
    if orders:
        handlers.append(
            ("orders", kafka.topic_order_completed, _orders(settings, ledger, dead_letters, metrics), False)
        )
    if coupon_answers:
        handlers += _answers(settings, ledger, dead_letters, metrics)
    return [
        RawSubscriber(
            name,
            topic,
            handle,
            settings=kafka,
            metrics=metrics,
            clock=utc_now,
            stopping=stopping,
            on_fatal=on_fatal,
            retry_max_seconds=settings.service.retry_max_seconds,
            one_by_one=one_by_one,
        )
        for name, topic, handle, one_by_one in handlers
    ]


def _orders(settings: Settings, ledger: Ledger, dead_letters: DeadLetters, metrics: Metrics) -> Handler:
    return OrderConsumer(
        ledger.lots,
        TombstoneCache(ledger.tombstones),
        ledger.settings_reader,
        dead_letters=dead_letters,
        flood_guard=FloodGuard(settings.service),
        metrics=metrics,
        clock=utc_now,
    ).handle


def _answers(
    settings: Settings, ledger: Ledger, dead_letters: DeadLetters, metrics: Metrics
) -> list[tuple[str, str, Handler, bool]]:
    chargebacks = ChargebackConsumer(
        ledger.redemptions,
        ledger.settings_reader,
        dead_letters=dead_letters,
        flood_guard=FloodGuard(settings.service),
        metrics=metrics,
        clock=utc_now,
    )
    handlers: list[tuple[str, str, Handler, bool]] = [
        ("chargebacks", settings.kafka.topic_chargebacks, chargebacks.handle, True)
    ]
    if settings.kafka.topic_coupon_creation_results:
        results = CouponResultConsumer(
            ledger.redemptions, dead_letters=dead_letters, flood_guard=FloodGuard(settings.service), metrics=metrics
        )
        handlers.append(("coupon-results", settings.kafka.topic_coupon_creation_results, results.handle, True))
    return handlers
