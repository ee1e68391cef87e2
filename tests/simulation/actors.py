"""Everybody around the service: customers, the shop, the coupon service. What they do is noted in the reference."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from rewardpoints.api.errors import Missing, NoPoints
from rewardpoints.domain.accounts import Account, account_of, customer_of
from rewardpoints.domain.errors import LedgerBusy, LedgerUnavailable, NoAccount, RewardPointsError, TooFewPoints
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.manual_entries import ManualGrant, manual_lot
from rewardpoints.domain.redemptions import redemption_id
from rewardpoints.domain.site_settings import parse_site_settings
from tests.simulation.broker import PARTITIONS, LogRecord
from tests.simulation.reference import Grant, Order, Redeeming
from tests.simulation.service import CHARGEBACKS, ORDERS, REQUESTS, RESULTS, TENANT, Service

if TYPE_CHECKING:
    from tests.simulation.world import World

OPTION, OPTION_POINTS = "voucher", 40
CLIENT_SECONDS = 10.0
MOST_TRIES = 6
Result = TypeVar("Result")


class Unanswered(Exception):
    """The caller waited long enough; whether the call was carried out is not known."""


class Actors:
    """What they do, each some seconds after it is asked for."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = world.chance

    async def rush(self, after: float) -> None:
        """Much at once on one account."""
        chance, account = self._chance, self._chance.choice(self._world.accounts)
        events: list[Coroutine[Any, Any, None]] = [
            self.redeem(after + chance.uniform(0, 0.05), account) for _ in range(chance.randint(2, 5))
        ]
        if chance.random() < 0.3:
            events.append(self.erase(after + chance.uniform(0, 0.1), account))
            events.append(self.grant(after + chance.uniform(0, 0.2), account))
        if chance.random() < 0.3:
            events.append(self.order(after + chance.uniform(0, 0.1), account))
        await asyncio.gather(*events)

    async def order(self, after: float, account: Account | None = None) -> None:
        await asyncio.sleep(after)
        chance = self._chance
        customer = customer_of(account or chance.choice(self._world.accounts))
        ages = (0, 1, 10, 3600, 86_400, 30 * 86_400, 31 * 86_400 - 20, 31 * 86_400 - 5)
        age = chance.choice(ages) + chance.uniform(0, 5)
        order = Order(
            account_of(TENANT, customer),
            f"o{len(self._world.reference.orders)}",
            Decimal(chance.randint(100, 9000)) / 100,
            to_milliseconds(self._world.now() - timedelta(seconds=age)),
        )
        self._world.reference.orders[order.account, order.number] = order
        value = json.dumps(
            {
                "id": order.number,
                "status": "COMPLETED",
                "tenant": TENANT,
                "customer": {"id": customer},
                "totalPrice": float(order.value),
                "currency": "EUR",
                "completed": order.completed_at.isoformat(),
            }
        ).encode()
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            self._publish(ORDERS, value)
            await asyncio.sleep(chance.choice((0, 0.1, 3)))

    async def poison(self, after: float) -> None:
        await asyncio.sleep(after)
        value = self._chance.choice((b"{", b"\xff", b'{"id": "x", "status": "COMPLETED", "customer": {"id": "c"}}'))
        self._world.reference.must_be_dead.append(self._publish(ORDERS, value))

    def _publish(self, topic: str, value: bytes) -> LogRecord:
        self._world.loop.note(f"send {topic}")
        return self._world.broker.append(topic, value, partition=self._chance.randrange(PARTITIONS))

    async def redeem(self, after: float, account: Account | None = None) -> None:
        await asyncio.sleep(after)
        account = account or self._chance.choice(self._world.accounts)
        customer = customer_of(account)
        number = len(self._world.reference.redeemings)
        key = f"k{number}" if self._chance.random() < 0.6 else None
        wish = Redeeming(
            account, OPTION_POINTS, key and redemption_id(account, "key", key), to_milliseconds(self._world.now())
        )
        self._world.reference.redeemings.append(wish)

        async def once() -> None:
            try:
                body = await self._ask(lambda api: api.redeem(customer, OPTION, key))
            except (NoPoints, Missing, NoAccount, TooFewPoints, LedgerBusy):
                # An earlier try of unknown outcome may still be carried out
                wish.refused = not wish.unknown
                self._world.counts["refused"] += 1
            except LedgerUnavailable as error:
                if error.outcome_unknown:
                    wish.unknown = True
                    raise Unanswered from error
                wish.refused = not wish.unknown
            except Unanswered:
                wish.unknown = True
                raise
            else:
                self._note_code(wish, json.loads(body)["code"])

        tries = 1 if key is None else MOST_TRIES
        if self._chance.random() < 0.2 and key is not None:  # a nervous customer
            await asyncio.gather(self._persist(once, tries), self._persist(once, tries))
            wish.refused = False  # one was, perhaps before the other was not
        else:
            await self._persist(once, tries)

    def _note_code(self, wish: Redeeming, code: str) -> None:
        self._world.counts["redeemed"] += 1
        if wish.code not in (None, code) and not self._erased_since(wish.account, wish.began):
            self._world.failed(f"one redemption was answered with codes {wish.code} and {code}")
        wish.code = code

    def _erased_since(self, account: Account, began: datetime) -> bool:
        """Or being erased: what is newer than the tombstone may be gone already; the tombstone moves on after it."""
        found = self._world.server.find("tombstones", {"_id": account})
        return any("unfinished" in document or document["erasedAt"] >= began for document in found)

    async def grant(self, after: float, account: Account | None = None) -> None:
        await asyncio.sleep(after)
        account = account or self._chance.choice(self._world.accounts)
        grant = Grant(
            account,
            f"g{len(self._world.reference.grants)}",
            self._chance.randint(1, 60),
            to_milliseconds(self._world.now()),
        )
        self._world.reference.grants.append(grant)

        async def once() -> None:
            grant.began = now = to_milliseconds(self._world.now())
            asked = ManualGrant(id=grant.number, source_id=grant.number, points=grant.points, fingerprint=grant.number)
            settings = parse_site_settings({"orderValueToRewardPointsFactor": Decimal(1)})
            lot = manual_lot(account, asked, settings, site_code="main", now=now)
            try:
                await self._ask(lambda api: api.ledger.accounts.add(lot))
            except LedgerUnavailable as error:
                raise Unanswered from error
            grant.acknowledged = True

        await self._persist(once, MOST_TRIES)

    async def erase(self, after: float, account: Account | None = None) -> None:
        await asyncio.sleep(after)
        account = account or self._chance.choice(self._world.accounts)

        async def once() -> None:
            try:
                await self._ask(lambda api: api.ledger.accounts.erase(account))
            except LedgerUnavailable as error:
                raise Unanswered from error

        await self._persist(once, self._chance.choice((1, 2, 1000)))  # who gives up leaves it to the workers to finish
        self._world.counts["erased"] += 1

    async def _persist(self, once: Callable[[], Awaitable[None]], tries: int) -> None:
        for _ in range(tries):
            try:
                return await once()
            except Unanswered:
                self._world.counts["unknown"] += 1
                await asyncio.sleep(self._chance.uniform(0, 2))
        return None

    async def _ask(self, handler: Callable[[Service], Awaitable[Result]]) -> Result:
        """Have some API process carry out a call, and wait as long as clients do."""
        api = self._chance.choice(self._world.apis)

        async def call() -> Result:
            return await handler(api)

        answer: asyncio.Task[Result] = api.run(call())
        answer.add_done_callback(_retrieve)
        done, _ = await asyncio.wait([answer], timeout=CLIENT_SECONDS)
        if not done:
            raise Unanswered
        error = answer.exception()
        if error is not None and not isinstance(error, RewardPointsError | NoPoints | Missing):
            self._world.failed(f"an API call failed: {error!r}")
        return answer.result()

    async def coupon_service(self) -> None:
        """Answers each request it has not seen: created, failed, both, or nothing; and sometimes twice."""
        seen: set[str] = set()
        while True:
            await asyncio.sleep(0.5)
            for record in self._world.broker.read(REQUESTS):
                content = json.loads(record.value or b"")
                if content["id"] not in seen:
                    seen.add(content["id"])
                    answers = self._chance.choice(
                        ((RESULTS,), (CHARGEBACKS,), (CHARGEBACKS,), (RESULTS, CHARGEBACKS), (CHARGEBACKS, RESULTS), ())
                    )
                    self._world.actors.append(self._world.loop.create_task(self._answer(content["id"], answers)))

    async def _answer(self, identity: str, answers: tuple[str, ...]) -> None:
        chance = self._chance
        for topic in answers:
            await asyncio.sleep(chance.choice((0, 0.2, 2)))
            value = json.dumps({"redemptionId": identity, "tenant": TENANT, "status": "CREATED"}).encode()
            for _ in range(chance.choice((1, 1, 2))):
                record = self._publish(topic, value)
                at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
                known = self._world.reference.created if topic == RESULTS else self._world.reference.charged_back
                known[identity].append(at)
                await asyncio.sleep(chance.choice((0, 0.5, 4)))
        if chance.random() < 0.1:
            wrong = json.dumps({"redemptionId": identity, "tenant": "other"}).encode()
            self._world.reference.must_be_dead.append(self._publish(CHARGEBACKS, wrong))


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take note of an answer nobody waits for any more."""
    if not task.cancelled():
        task.exception()
