"""Redemptions at the ledger, beside bare transactions of three writes; and many at once on one account."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from bench.context import Bench, Comparison, opened_ledger, utc_now
from bench.lots import account, an_order_lot, customer_lots, insert
from bench.measuring import Figures, Outcome, Row, at_least, at_most, interleaved
from rewardpoints.domain.accounts import Account
from rewardpoints.domain.errors import LedgerBusy, TooFewPoints
from rewardpoints.domain.lots import Draw
from rewardpoints.domain.redemptions import CouponOrder, RedemptionIntent, redemption_from, redemption_id
from rewardpoints.ledger.documents import redemption_document
from rewardpoints.ledger.driver import Database
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.telemetry import Metrics

AT_ONCE: Final = 4
POINTS: Final = 100
HOT_REDEMPTIONS: Final = 200
HOT_COVERED: Final = 100
OPTION: Final = {
    "id": "voucher",
    "name": "5 Euro voucher",
    "type": "coupon",
    "points": POINTS,
    "coupon": {"name": "5 off"},
}


async def redemptions(bench: Bench) -> Outcome:
    """Distinct accounts, one draw each."""
    count = bench.sizes.redemptions
    async with bench.servers() as servers, bench.stack(servers) as stack, opened_ledger(stack) as ledger:

        async def redeemed(number: int) -> Figures:
            customers = await _with_a_lot(ledger, f"redeemer-{number}", count)

            async def redeem(customer: str) -> None:
                await ledger.redemptions.redeem(an_intent(account(customer)))

            return await _timed(customers, redeem)

        async def bare(number: int) -> Figures:
            customers = await _with_a_lot(ledger, f"bare-{number}", count)

            async def write(customer: str) -> None:
                await _three_writes(ledger.database, account(customer), customer)

            return await _timed(customers, write)

        sides = {"redemptions": redeemed, "three writes": bare}
        rounds = await interleaved(sides, rounds=bench.sizes.rounds, say=bench.say)
    return Outcome(
        [
            Row(
                key="redemptions_over_bare",
                title="redemptions/s at the ledger, one draw ÷ bare three-write transactions/s",
                values=rounds.ratios("per_second", "redemptions", "three writes"),
                goal=at_least(0.7),
                note=f"{count} distinct accounts a round, {AT_ONCE} at once",
            ),
            Row(
                key="redemptions_rate",
                title="redemptions",
                unit="1/s",
                values=rounds.values("redemptions", "per_second"),
            ),
            Row(
                key="three_writes_rate",
                title="bare three-write transactions",
                unit="1/s",
                values=rounds.values("three writes", "per_second"),
            ),
        ]
    )


async def hot_account(bench: Bench) -> Outcome:
    """200 redemptions at once on one account that has points for 100 of them."""
    metrics = Metrics()
    attempts, seconds = [], []
    async with bench.servers() as servers, bench.stack(servers) as stack, opened_ledger(stack, metrics) as ledger:
        for number in range(bench.sizes.hot_rounds):
            customer = f"hot-{number}"
            lot = an_order_lot(account(customer), "one", utc_now(), points=HOT_COVERED * POINTS)
            await insert(ledger, [lot])
            before, began = _attempts(metrics), time.perf_counter()
            outcomes = await asyncio.gather(*(_try(ledger, account(customer)) for _ in range(HOT_REDEMPTIONS)))
            seconds.append(time.perf_counter() - began)
            if sum(outcomes) != HOT_COVERED:
                raise RuntimeError(
                    f"{sum(outcomes)} of {HOT_REDEMPTIONS} redeemed, points were there for {HOT_COVERED}"
                )
            attempts.append((_attempts(metrics) - before) / HOT_REDEMPTIONS)
            bench.say(f"  round {number + 1}  attempts each {attempts[-1]:.3f}  seconds {seconds[-1]:.2f}")
    return Outcome(
        [
            Row(
                key="hot_attempts",
                title="attempts each, redemptions on one hot account",
                values=attempts,
                goal=at_most(2),
                note=f"{HOT_REDEMPTIONS} at once in one process, points for {HOT_COVERED}",
            ),
            Row(key="hot_seconds", title="all redemptions of the hot account", unit="s", values=seconds),
        ]
    )


def an_intent(owner: Account) -> RedemptionIntent:
    """A redemption for a coupon, as the storefront makes it."""
    identity = redemption_id(owner, "random", secrets.token_hex(16))
    return RedemptionIntent(
        id=identity,
        public_id=identity,
        account=owner,
        points=POINTS,
        description="5 Euro voucher",
        site_code="main",
        fingerprint=secrets.token_hex(32),
        coupon=CouponOrder(code=f"SHOP-{secrets.token_hex(7)}", option=OPTION),
    )


async def _three_writes(database: Database, owner: Account, customer: str) -> None:
    """A lot drawn, a redemption inserted, a counter moved: no reads, no conditions, no retries."""
    (lot,) = customer_lots(customer, 1, utc_now())
    intent = an_intent(owner)
    document = redemption_document(redemption_from(intent, (Draw(lot.id, POINTS),), utc_now()))
    async with database.transaction() as session:
        await database.lots.update_one({"_id": lot.id}, {"$set": {"remaining": lot.points - POINTS}}, session=session)
        await database.redemptions.insert_one(document, session=session)
        await database.guards.update_one({"_id": owner}, {"$inc": {"writes": 1}}, upsert=True, session=session)
        await session.commit_transaction()


async def _with_a_lot(ledger: Ledger, name: str, count: int) -> list[str]:
    customers, at = [f"{name}-{position}" for position in range(count)], utc_now()
    await insert(ledger, (lot for customer in customers for lot in customer_lots(customer, 1, at)))
    return customers


async def _timed(customers: list[str], work: Callable[[str], Awaitable[None]]) -> Figures:
    waiting = iter(customers)

    async def work_on() -> None:
        for customer in waiting:
            await work(customer)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work_on())
    return {"per_second": len(customers) / (time.perf_counter() - began)}


async def _try(ledger: Ledger, owner: Account) -> bool:
    """Redeem, and again what was put off, as clients do; whether there were points."""
    intent = an_intent(owner)
    while True:
        try:
            await ledger.redemptions.redeem(intent)
        except TooFewPoints:
            return False
        except LedgerBusy:
            continue
        return True


def _attempts(metrics: Metrics) -> float:
    found = metrics.registry.get_sample_value("rewardpoints_redemption_attempts_total")
    return found or 0.0


COMPARISONS = (
    Comparison("redemptions", "redemptions at the ledger beside bare transactions of three writes", redemptions),
    Comparison("hot-account", "200 redemptions at once on one account", hot_account),
)
