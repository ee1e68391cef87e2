"""MongoDB kills: the MongoDB-wire server killed -9 again and again under a load of orders and redemptions.

What was acknowledged has to be there: every order whose record was committed is one lot, every code that was answered
one redemption, published with that code. The server syncs its commits; a real one does so by majority and journal.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.faults.coupons import CouponService
from tests.faults.environment import Environment, Outcome, Say, redeem_option, running_environment
from tests.faults.faults import start_again
from tests.faults.load import OrderLoad, Orders
from tests.faults.model import compare
from tests.faults.redeeming import Storefront
from tests.faults.shop import Shop, drained

OPTION_POINTS = 20
RECOVERY_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MongodbKillsOptions:
    """A kill comes between ``shortest_seconds`` and ``longest_seconds`` after redemptions work again."""

    kills: int = 20
    shortest_seconds: float = 2
    longest_seconds: float = 8
    orders_per_second: float = 200
    redemptions_per_second: float = 10
    balances_per_second: float = 2
    duplicate_share: float = 0.05
    customers: int = 500
    first_orders: int = 5000
    balance_sample: int = 100
    seed: int = 1


async def mongodb_kills(options: MongodbKillsOptions, folder: Path, say: Say) -> Outcome:
    """Run it; the figures and every violation."""
    outcome, chance = Outcome(), random.Random(options.seed)
    async with running_environment(folder) as environment:
        stack = environment.stack
        orders = Orders(options.customers)
        load = OrderLoad(stack, orders, chance, duplicate_share=options.duplicate_share)
        servers = [await stack.worker("w1"), await stack.api("a1"), await stack.api("a2")]
        for server in servers:
            await server.ready()
        option = await redeem_option(stack, servers[1].url, OPTION_POINTS)
        await load.publish(options.first_orders)
        await drained(stack, "orders", stack.kafka.topic_order_completed)
        customers = [orders.customer(number) for number in range(options.customers)]
        shop = Shop(
            environment=environment,
            workers=servers[:1],
            apis=servers[1:],
            load=load,
            storefront=Storefront(stack, servers[1:], option, customers, chance),
            coupons=CouponService(stack),
            option_points=OPTION_POINTS,
        )
        rates = (options.orders_per_second, options.redemptions_per_second, options.balances_per_second)
        async with shop.open(*rates, outcome.problems):
            recoveries = await _kill(options, environment, shop.storefront, say)
        outcome.figures |= {
            "kills": len(recoveries),
            "seconds from a kill to the next code answered, median": round(median(recoveries), 1),
            "seconds from a kill to the next code answered, longest": round(max(recoveries), 1),
        }
        say("drained; comparing with the model")
        await compare(shop, outcome, balance_sample=options.balance_sample)
    return outcome


async def _kill(
    options: MongodbKillsOptions, environment: Environment, storefront: Storefront, say: Say
) -> Sequence[float]:
    chance = random.Random(options.seed)
    recoveries = []
    for number in range(options.kills):
        await asyncio.sleep(chance.uniform(options.shortest_seconds, options.longest_seconds))
        await environment.mongodb.kill()
        killed_at, before = time.monotonic(), len(storefront.answers.codes)
        await start_again(environment.mongodb)
        deadline = time.monotonic() + RECOVERY_SECONDS
        while len(storefront.answers.codes) == before:
            assert time.monotonic() < deadline, f"no code answered within {RECOVERY_SECONDS} s of a kill"
            await asyncio.sleep(0.05)
        recoveries.append(time.monotonic() - killed_at)
        say(f"kill {number + 1} of {options.kills}: {before} codes before, the next after {recoveries[-1]:.1f} s")
    return recoveries
