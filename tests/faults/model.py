"""The model: what the ledger has to be after a load, told from the load alone, and where it is not."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.domain.lots import LotKind
from rewardpoints.ledger.verify import violations
from tests.e2e.stack import TENANT, Server, Stack
from tests.events.wire import end_of
from tests.faults.coupons import Decision, decision
from tests.faults.environment import Outcome, patient_ledger
from tests.faults.load import Orders
from tests.faults.shop import Shop

MOST_TOLD = 20
"""Lines of one kind of problem; the rest is counted."""

_PAGE = 2000


@dataclass(slots=True)
class Seen:
    """The ledger as it is, summed up while it is read."""

    times: bytearray
    granted: Counter[str] = field(default_factory=Counter)
    remaining: Counter[str] = field(default_factory=Counter)
    spent: Counter[str] = field(default_factory=Counter)
    chargebacks: dict[str, tuple[str, int]] = field(default_factory=dict)
    codes: dict[str, tuple[str, str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


async def compare_orders(stack: Stack, orders: Orders, accepted: int, outcome: Outcome) -> Seen:
    """Every accepted order is exactly one lot with its customer and points, and there is no other order's."""
    seen = Seen(bytearray(accepted))
    wanted = {"kind": 1, "sourceId": 1, "account": 1, "points": 1, "remaining": 1, "_id": 0}
    async with patient_ledger(stack) as ledger:
        lots = await ledger.database.lots.find({}, wanted).batch_size(_PAGE).to_list(None)
    for lot in lots:
        seen.granted[lot["account"]] += lot["points"]
        seen.remaining[lot["account"]] += lot["remaining"]
        if lot["kind"] == LotKind.CHARGEBACK.value:
            if lot["sourceId"] in seen.chargebacks:
                seen.wrong.append(f"redemption {lot['sourceId']} was given back twice")
            seen.chargebacks[lot["sourceId"]] = (lot["account"], lot["points"])
        else:
            _see_order(lot, orders, seen)
    lost = [orders.order_id(number) for number, times in enumerate(seen.times) if times == 0]
    doubled = [orders.order_id(number) for number, times in enumerate(seen.times) if times > 1]
    outcome.figures |= {
        "orders accepted": accepted,
        "orders lost": len(lost),
        "orders doubled": len(doubled),
        "lots wrong": len(seen.wrong),
    }
    tell(outcome, "accepted, but no lot", lost)
    tell(outcome, "more than one lot", doubled)
    tell(outcome, "lot", seen.wrong)
    return seen


def _see_order(lot: Mapping[str, Any], orders: Orders, seen: Seen) -> None:
    source = lot["sourceId"]
    number = int(source[1:]) if source[1:].isdigit() else -1
    if lot["kind"] != LotKind.ORDER.value or not 0 <= number < len(seen.times) or orders.order_id(number) != source:
        seen.wrong.append(f"{lot['kind']} {source} was never published")
        return
    seen.times[number] = min(255, seen.times[number] + 1)
    expected = (account_of(TENANT, orders.customer(number)), orders.points(number))
    if (lot["account"], lot["points"]) != expected:
        seen.wrong.append(f"{source} is {(lot['account'], lot['points'])}, not {expected}")


async def compare(shop: Shop, outcome: Outcome, *, balance_sample: int) -> None:
    """All of it: orders, redemptions, balances, the ledger's own invariants, no dead letters, a clean stop."""
    seen = await compare_orders(shop.stack, shop.load.orders, shop.load.accepted, outcome)
    steps = {
        "redemptions": compare_redemptions(shop, seen, outcome),
        "balances": compare_balances(shop, seen, outcome, sample=balance_sample),
        "verify": verify(shop.stack, outcome),
        "clean stop": nothing_refused(shop.stack, [*shop.workers, *shop.apis], outcome),
    }
    for name, step in steps.items():
        try:
            await step
        except LedgerUnavailable as error:  # what was found so far is told, and this is no pass
            outcome.problems.append(f"{name}: not compared to its end, {error}")


async def nothing_refused(stack: Stack, servers: Sequence[Server], outcome: Outcome) -> None:
    """No dead letter, and every process drains on SIGTERM and exits with 0."""
    dead_letters = await end_of(stack.kafka, stack.kafka.topic_dead_letter)
    outcome.figures["dead letters"] = dead_letters
    tell(outcome, "dead letters", [str(dead_letters)] if dead_letters else [])
    exits = [await server.stop() for server in servers]
    tell(outcome, "exit statuses at SIGTERM", [str(exits)] if any(exits) else [])


async def compare_redemptions(shop: Shop, seen: Seen, outcome: Outcome) -> None:
    """Every code that was answered is one stored redemption, published with that code, and answered as decided."""
    stack, storefront, coupons, points = shop.stack, shop.storefront, shop.coupons, shop.option_points
    answered = {code: customer for customer, code in storefront.answers.codes.values()}
    problems, states = [], Counter[str]()
    async with patient_ledger(stack) as ledger:
        found = await ledger.database.redemptions.find({}).batch_size(_PAGE).to_list(None)
    for stored in found:
        name, code, state = stored["_id"], stored.get("code", ""), stored["state"]
        states[state] += 1
        seen.spent[stored["account"]] += stored["points"]
        seen.codes[name] = (stored["account"], code)
        if code not in answered:
            problems.append(f"{name}: exists, but its code was never answered")
        elif stored["account"] != account_of(TENANT, answered[code]) or stored["points"] != points:
            problems.append(f"{name}: {stored['points']} points of {stored['account']}")
        if coupons.requests.get(name) != code:
            problems.append(f"{name}: published with {coupons.requests.get(name)}, stored with {code}")
        if state != decision(name).value:
            problems.append(f"{name}: {state}, but the coupon service said {decision(name).value}")
        if (name in seen.chargebacks) != (state == Decision.CHARGED_BACK.value):
            problems.append(f"{name}: {state}, lot of its chargeback: {seen.chargebacks.get(name)}")
    stored_codes = Counter(code for _, code in seen.codes.values())
    lost = sorted(answered.keys() - stored_codes.keys())
    doubled = [code for code, times in stored_codes.items() if times > 1]
    if len(answered) != len(storefront.answers.codes):
        problems.append(f"{len(storefront.answers.codes)} answers have {len(answered)} codes")
    outcome.figures |= {
        "redemptions answered with a code": len(storefront.answers.codes),
        "of these lost": len(lost),
        "codes doubled": len(doubled),
        "redemptions by state": dict(sorted(states.items())),
        "coupon requests published": coupons.deliveries,
        "of these repeated": coupons.deliveries - len(coupons.requests),
        "keys sent again after their answer": storefront.answers.repeated,
        "answers to redemptions": dict(sorted(storefront.answers.statuses.items())),
        "answers to balance reads": dict(sorted(storefront.answers.balances.items())),
        "longest until a final answer, asked again meanwhile, seconds": round(storefront.answers.slowest_seconds, 1),
    }
    tell(outcome, "answered, but not stored", lost)
    tell(outcome, "stored twice", doubled)
    tell(outcome, "redemption", problems)
    tell(outcome, "HTTP", storefront.answers.problems)
    tell(outcome, "coupon service", coupons.problems)


async def compare_balances(shop: Shop, seen: Seen, outcome: Outcome, *, sample: int) -> None:
    """Each account's points are its orders', less what was answered with a code, plus what was charged back."""
    storefront, orders, points = shop.storefront, shop.load.orders, shop.option_points
    expected: Counter[str] = Counter()
    for number in range(len(seen.times)):
        expected[orders.customer(number)] += orders.points(number)
    for customer, _ in storefront.answers.codes.values():
        expected[customer] -= points
    for name, (account, given_back) in seen.chargebacks.items():
        if account != seen.codes.get(name, ("", ""))[0] or given_back != points:
            tell(outcome, "chargeback", [f"{name}: {given_back} points to {account}"])
        expected[account.removeprefix(f"{TENANT}/")] += given_back
    wrong = [
        f"{customer}: {seen.remaining[account_of(TENANT, customer)]} points, not {balance}"
        for customer, balance in expected.items()
        if seen.remaining[account_of(TENANT, customer)] != balance
    ]
    asked = random.Random(0).sample(sorted(expected), min(sample, len(expected)))
    async with httpx.AsyncClient(timeout=15) as client:
        for customer in asked:
            answered = await storefront.balance(client, customer)
            if answered != expected[customer]:
                wrong.append(f"{customer}: the API answers {answered}, not {expected[customer]}")
    outcome.figures |= {"accounts": len(expected), "balances asked over HTTP": len(asked), "balances wrong": len(wrong)}
    tell(outcome, "balance", wrong)


async def verify(stack: Stack, outcome: Outcome) -> None:
    """Every invariant the ledger alone can tell."""
    async with patient_ledger(stack) as ledger:
        found = [str(problem) async for problem in violations(ledger.database, lambda: datetime.now(UTC))]
    outcome.figures["violations found by verify"] = len(found)
    tell(outcome, "verify", found)


def tell(outcome: Outcome, what: str, lines: Sequence[str]) -> None:
    """Add problems to the outcome, the first of them in full."""
    outcome.problems += [f"{what}: {line}" for line in lines[:MOST_TOLD]]
    if len(lines) > MOST_TOLD:
        outcome.problems.append(f"{what}: and {len(lines) - MOST_TOLD} more")
