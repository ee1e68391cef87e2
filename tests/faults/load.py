"""The load: orders by number, so that the model needs no memory of them, published until each is acknowledged."""

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from rewardpoints.app.commands import ServerRefused
from tests.e2e.stack import TENANT, Stack, an_order
from tests.faults.environment import pause

CHUNK = 200
TICK_SECONDS = 0.25
PUBLISH_SECONDS = 180.0
_POINTS = 50
_STRIDE = 7919  # a prime: neighbours in the topic belong to customers far apart
_REMEMBERED = 5000


@dataclass(frozen=True, slots=True)
class Orders:
    """What order ``number`` is: the model and the load ask the same."""

    customers: int

    def customer(self, number: int) -> str:
        return f"c{number * _STRIDE % self.customers}"

    def points(self, number: int) -> int:
        return 1 + (number * 31 + number // self.customers) % _POINTS

    def order_id(self, number: int) -> str:
        return f"o{number}"

    def value(self, number: int) -> bytes:
        order = an_order(self.order_id(number), self.customer(number), self.points(number) + 0.49)
        return json.dumps(order).encode()


class OrderLoad:
    """Publishes orders, some of them twice. ``accepted`` orders, 0 up to it, are acknowledged, each at least once."""

    def __init__(self, stack: Stack, orders: Orders, chance: random.Random, *, duplicate_share: float) -> None:
        self.orders = orders
        self.accepted = 0
        self.duplicates = 0
        self.republished = 0
        self._stack = stack
        self._chance = chance
        self._duplicate_share = duplicate_share
        self._recent: deque[bytes] = deque(maxlen=_REMEMBERED)

    async def publish(self, count: int) -> None:
        """The next ``count`` orders with their duplicates, each time until all of a chunk are acknowledged."""
        last = self.accepted + count
        while self.accepted < last:
            size = min(CHUNK, last - self.accepted)
            values = [self.orders.value(number) for number in range(self.accepted, self.accepted + size)]
            self._recent.extend(values)
            again = [
                self._chance.choice(self._recent) for _ in range(size) if self._chance.random() < self._duplicate_share
            ]
            self.duplicates += len(again)
            self.republished += await publish_surely(self._stack, [*values, *again])
            self.accepted += size

    async def offer(self, per_second: float, enough: asyncio.Event) -> None:
        """Orders by the clock until it is enough; what is late after an outage follows in a burst."""
        began, first = time.monotonic(), self.accepted
        while not enough.is_set():
            due = int((time.monotonic() - began) * per_second) - (self.accepted - first)
            if due > 0:
                await self.publish(due)
            await pause(TICK_SECONDS, enough)


async def publish_surely(stack: Stack, values: Sequence[bytes], topic: str | None = None) -> int:
    """Publish until all are acknowledged; how many were sent more than once. They may be in the topic twice then."""
    again, deadline = 0, time.monotonic() + PUBLISH_SECONDS
    headers = [("tenant", TENANT.encode())]
    topic = topic or stack.kafka.topic_order_completed
    records = [(None, value) for value in values]
    while True:
        try:
            if await stack.writer.write(topic, records, headers=headers) == len(records):
                return again
        except ServerRefused:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"Kafka took no records for {PUBLISH_SECONDS} s")
        again += len(records)
        await asyncio.sleep(0.2)
