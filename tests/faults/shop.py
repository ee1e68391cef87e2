"""The shop around the service: who orders, who redeems, who creates coupons, and the processes between them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from tests.e2e.stack import Server, Stack, until
from tests.faults.coupons import CouponService
from tests.faults.environment import Environment
from tests.faults.load import OrderLoad
from tests.faults.redeeming import Storefront
from tests.faults.sampler import lag

DRAIN_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """Everything that a run with redemptions needs. A redemption spends ``option_points``."""

    environment: Environment
    workers: Sequence[Server]
    apis: Sequence[Server]
    load: OrderLoad
    storefront: Storefront
    coupons: CouponService
    option_points: int

    @property
    def stack(self) -> Stack:
        return self.environment.stack

    @contextlib.asynccontextmanager
    async def open(
        self, orders: float, redemptions: float, balances: float, problems: list[str]
    ) -> AsyncIterator[asyncio.Event]:
        """So many of each a second inside the context, or until the event it gives is set; then all of it is drained.

        What does not drain in time is told; the comparison with the model says what is missing.
        """
        enough, drained_all = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.coupons.run(drained_all))
            offering = [
                tasks.create_task(self.load.offer(orders, enough)),
                tasks.create_task(self.storefront.offer(redemptions, balances, enough)),
            ]
            yield enough
            enough.set()
            await asyncio.gather(*offering)
            try:
                await self.drain()
            except AssertionError as error:
                problems.append(str(error))
            drained_all.set()

    async def drain(self) -> None:
        """Until all accepted is in the ledger, every request published, every answer of the coupon service taken."""
        await drained(self.stack, "orders", self.stack.kafka.topic_order_completed)
        codes = len(self.storefront.answers.codes)

        async def all_published() -> bool:
            return len(self.coupons.requests) >= codes

        await until(all_published, seconds=DRAIN_SECONDS, what=f"{codes} coupon requests")
        results = self.stack.kafka.topic_coupon_creation_results
        assert results is not None
        await drained(self.stack, "chargebacks", self.stack.kafka.topic_chargebacks)
        await drained(self.stack, "coupon-results", results)


async def drained(stack: Stack, subscriber: str, topic: str) -> None:
    """Until the group has committed its topic to the end."""

    async def no_lag() -> bool:
        return await lag(stack, subscriber, topic) == 0

    await until(no_lag, seconds=DRAIN_SECONDS, what=f"{subscriber} committed to their end")
