"""Orders on Kafka and redemptions over HTTP while connections fail, and what they must have come to."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.redemptions import redemption_id
from tests.e2e.stack import TENANT, Server, Stack, an_order, until
from tests.e2e.test_redemptions import OPTION, REDEEM, an_account, an_option

CUSTOMERS = 5
BATCH = 10
PAUSE_SECONDS = 0.1
MOST_AT_ONCE = 6
ANSWER_SECONDS = 12.0
"""The contract's 10 seconds, and some for a machine that is busy with others."""

GIVE_UP_SECONDS = 240.0
OPTION_POINTS = int(str(OPTION["points"]))
START_POINTS = 1_000_000
NOT_KNOWN = "It is not known whether the request was carried out"


@dataclass(slots=True)
class Seen:
    """Answers to redemptions. ``codes``: code by key."""

    codes: dict[str, str] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    slowest_seconds: float = 0.0


class Traffic:
    """Offers orders and redemptions until ``enough``; each redemption is asked again until it has its code."""

    def __init__(self, stack: Stack, api: Server) -> None:
        self.seen = Seen()
        self.orders = 0
        self.url = api.url
        self.may_go_away = False
        """Whether the API may end under the traffic: what is not answered is asked again, of whoever is at ``url``."""

        self._stack = stack
        self._option = ""
        self._keys: dict[str, str] = {}
        self._headers = {customer: stack.customer(customer) for customer in map("r{}".format, range(CUSTOMERS))}
        self._chance = random.Random(5)

    async def prepare(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=20) as client:
            self._option = await an_option(client, self._stack)
            for customer in self._headers:
                await an_account(client, self._stack, customer, START_POINTS)

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Flows while the context lasts; ends when each redemption has its code, or at once where the test failed."""
        enough = asyncio.Event()
        task = asyncio.create_task(self._flow(enough))
        try:
            yield
            assert not task.done(), task.exception()
            enough.set()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _flow(self, enough: asyncio.Event) -> None:
        """Until it is enough and each redemption that was begun has its code.

        Raises:
            AssertionError: an answer that is none of 200, 503 and the unknown outcome, or that comes too late.
        """
        async with (
            httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=500)) as client,
            asyncio.TaskGroup() as tasks,
        ):
            while not enough.is_set():
                await self._publish()
                if len(self._keys) - len(self.seen.codes) < MOST_AT_ONCE:  # a slow machine is not to be drowned
                    tasks.create_task(self.redeem(client))
                await asyncio.sleep(PAUSE_SECONDS)  # the rate of the load, and no wait for anything

    async def redeem(self, client: httpx.AsyncClient) -> None:
        """One redemption, asked for until it has its code."""
        key = f"k{len(self._keys)}"
        customer = self._chance.choice(list(self._headers))
        self._keys[key] = customer
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = await self.ask(client, key, customer)
            except httpx.HTTPError:
                assert self.may_go_away
            else:
                if answer.status_code == httpx.codes.OK:
                    self.seen.codes[key] = answer.json()["code"]
                    return
            await asyncio.sleep(0.5 * self._chance.random())
        raise AssertionError(f"{key} has no code after {GIVE_UP_SECONDS} s: {self.seen.statuses}")

    async def ask(self, client: httpx.AsyncClient, key: str, customer: str) -> httpx.Response:
        """Asks once; the answer is one the contract knows, and in its time."""
        began = time.monotonic()
        headers = {**self._headers[customer], "Idempotency-Key": key}
        answer = await client.post(self.url + REDEEM, json={"id": self._option}, headers=headers)
        seconds = time.monotonic() - began
        self.seen.slowest_seconds = max(self.seen.slowest_seconds, seconds)
        unknown = NOT_KNOWN in answer.text
        self.seen.statuses["500 unknown" if unknown else str(answer.status_code)] += 1
        assert answer.status_code in {httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE} or unknown, answer.text
        assert seconds < ANSWER_SECONDS, f"{answer.status_code} after {seconds:.1f} s"
        return answer

    async def _publish(self) -> None:
        numbers = [self.orders + step for step in range(BATCH)]
        again = [self._chance.randrange(self.orders + 1)]  # one delivered twice, some seconds or minutes later
        self.orders += BATCH
        await self._stack.publish_orders(
            *(an_order(f"o{number}", f"c{number % 50}", 1 + number % 7) for number in [*numbers, *again])
        )

    async def assert_complete(self, *, seconds: float) -> None:
        """Every order is a lot, once; every code is a redemption, once, and its request is published."""
        database = self._stack.ledger.database

        async def all_lots() -> bool:
            return await database.lots.count_documents({"kind": "order"}) >= self.orders

        async def all_published() -> bool:
            return await database.redemptions.count_documents({"publishAt": {"$exists": True}}) == 0

        await until(all_lots, seconds=seconds, what="a lot for each order")
        await until(all_published, seconds=seconds, what="every coupon request acknowledged")
        lots = {lot["sourceId"]: lot["points"] for lot in await self._stack.lots(kind="order")}
        assert lots == {f"o{number}": 1 + number % 7 for number in range(self.orders)}
        stored = {one["_id"]: one["code"] for one in await database.redemptions.find({}).to_list(None)}
        assert stored == {
            redemption_id(account_of(TENANT, customer), "key", key): self.seen.codes[key]
            for key, customer in self._keys.items()
        }
        left = sum(lot["remaining"] for lot in await self._stack.lots(kind="manual"))
        assert left == CUSTOMERS * START_POINTS - len(stored) * OPTION_POINTS
        await self._stack.assert_true()
