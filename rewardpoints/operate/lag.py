"""Lag: whether the service keeps up with its topics and with the coupon service."""

import asyncio
from collections.abc import AsyncGenerator

from rewardpoints.app.commands import kafka_errors
from rewardpoints.domain.lag import KafkaLook, State, lag_of
from rewardpoints.domain.ports import Clock
from rewardpoints.events.lag import LagReader
from rewardpoints.ledger.coupon_backlog import coupon_backlog
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import Settings


async def states(settings: Settings, ledger: Ledger, clock: Clock, *, interval_seconds: float) -> AsyncGenerator[State]:
    """The state after every interval, with the rates of that interval; without end.

    Raises:
        ServerRefused: Kafka cannot be reached, or a topic does not exist.
        LedgerUnavailable
    """
    with kafka_errors():
        async with LagReader(settings.kafka, clock) as reader:
            earlier: KafkaLook = await reader.look()
            while True:
                await asyncio.sleep(interval_seconds)
                look = await reader.look()
                coupons = await coupon_backlog(
                    ledger.database, clock(), overdue_after_seconds=settings.service.unanswered_after_seconds
                )
                yield State(lag_of(look, earlier), coupons)
                earlier = look
