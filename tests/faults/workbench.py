"""The consumers and the relay of a worker over the real ledger and a real broker, without the wait for a topic."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from rewardpoints.app.service import Parts, Service
from rewardpoints.events.raw_subscriber import Handler
from rewardpoints.events.relay import Relay
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import Settings
from rewardpoints.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Workbench:
    """What a worker consists of. Its ledger has connections of its own, as another process has."""

    ledger: Ledger
    metrics: Metrics
    orders: Handler
    chargebacks: Handler
    results: Handler
    relay: Relay


@contextlib.asynccontextmanager
async def open_workbench(settings: Settings) -> AsyncIterator[Workbench]:
    """The product's own wiring, of a process that is never started: the caller hands it the records."""
    service = Service(settings, Parts(orders=True, relay=True, coupon_answers=True))
    handlers = {subscriber.name: subscriber._handle for subscriber in service._events._subscribers}
    relay = service._events._relay
    assert relay is not None
    try:
        yield Workbench(
            ledger=service.ledger,
            metrics=service.metrics,
            orders=handlers["orders"],
            chargebacks=handlers["chargebacks"],
            results=handlers["coupon-results"],
            relay=relay,
        )
    finally:
        await service.stop()
