"""One customer's erasure in the middle of everything else that can happen to the customer."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
from aiokafka.errors import KafkaError

from rewardpoints.domain.accounts import Account, account_of
from rewardpoints.domain.errors import LedgerBusy, LedgerUnavailable
from rewardpoints.domain.lots import LotKind
from rewardpoints.domain.redemptions import redemption_id
from rewardpoints.events.records import Record
from rewardpoints.ledger.account_pages import AccountPages, Entries
from rewardpoints.ledger.verify import account_violations
from tests.e2e.stack import TENANT, Stack, an_order
from tests.e2e.test_redemptions import REDEEM
from tests.events.wire import FakeRecord
from tests.faults.workbench import Workbench

SPREADS = (0, 0.1, 0.7, 3)
"""The raced operations of a round begin within one of these shares of what its preparation took, so that fast and slow
machines see erasures before, among and after the others."""

SHARES = (0.15, 0.4, 1)
"""How many of the operations are raced in a round: all of them leave the erasure no end until they have ended."""

TRIES = 50
_REFUSED = {httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE}
_UNKNOWN = "It is not known"

Work = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Tally:
    """What the rounds came to, all together."""

    answers: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    survivors: int = 0
    codes: dict[str, str] = field(default_factory=dict)
    """Code by redemption id, as the storefront was told."""


class ErasureRound:
    """A customer of its own: an account with a past, the race, and what must hold after it."""

    def __init__(
        self, stack: Stack, bench: Workbench, client: httpx.AsyncClient, *, option: str, number: int, tally: Tally
    ) -> None:
        self.customer = f"e{number}"
        self.account: Account = account_of(TENANT, self.customer)
        self._stack = stack
        self._bench = bench
        self._client = client
        self._option = option
        self._tally = tally
        self._chance = random.Random(number)
        self._spread_seconds = 0.0
        self._headers = stack.customer(self.customer)
        self._employee = stack.employee()
        self._old: list[Record] = []
        self._new: dict[str, datetime] = {}
        self._answers: dict[str, httpx.Response] = {}

    async def run(self) -> None:
        """Build the past, race, look.

        Raises:
            AssertionError: something that must hold does not.
        """
        began = time.monotonic()
        await self._past()
        self._spread_seconds = self._chance.choice(SPREADS) * (time.monotonic() - began)
        chargebacks = [self._chargeback(f"past{number}") for number in range(3)]
        late = [self._order(f"late{number}") for number in range(4)]
        raced: list[Work] = [
            partial(self._handle, "orders", self._bench.orders, late),
            partial(self._handle, "orders", self._bench.orders, list(self._old)),
            partial(self._new_order, "new0"),
            partial(self._new_order, "new1"),
            *(partial(self._handle, "chargebacks", self._bench.chargebacks, [one]) for one in chargebacks),
            partial(self._handle, "chargebacks", self._bench.chargebacks, [self._chargeback("raced0")]),
            partial(self._handle, "results", self._bench.results, [self._result("past3")]),
            *(partial(self._redeem, f"raced{number}") for number in range(3)),
            *(partial(self._add_points, f"grant{number}") for number in range(2)),
            self._open,
            self._relay,
            self._erase,
        ]
        share = self._chance.choice(SHARES)
        works: list[Work] = [self._erase, *(work for work in raced if self._chance.random() < share)]
        await asyncio.gather(*(self._sometime(work) for work in works))
        self._old += late
        await self._look("after the race")
        # Everything is delivered once more
        await self._handle("orders", self._bench.orders, self._old)
        await self._handle("chargebacks", self._bench.chargebacks, chargebacks)
        await self._look("after the replay")
        await self._starts_afresh()

    async def _past(self) -> None:
        self._old = [self._order(f"old{number}") for number in range(8)]
        await self._handle("orders", self._bench.orders, self._old)
        for _ in range(TRIES):
            keys = [key for key in map("past{}".format, range(4)) if not self._has_code(key)]
            if not keys:
                break
            await asyncio.gather(*map(self._redeem, keys))
        assert not keys, {key: self._answers[key].text for key in keys}

    def _has_code(self, key: str) -> bool:
        return key in self._answers and self._answers[key].status_code == httpx.codes.OK

    async def _sometime(self, work: Work) -> None:
        # the timing of the race itself, and no wait for anything
        await asyncio.sleep(self._chance.random() * self._spread_seconds)
        await work()

    # What races

    async def _erase(self) -> None:
        for _ in range(TRIES):
            answer = await self._client.delete(self._management, headers=self._employee)
            self._tally.answers[f"erase {answer.status_code}"] += 1
            if answer.status_code == httpx.codes.OK:
                return
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE or _UNKNOWN in answer.text, answer.text
        raise AssertionError(f"{self.customer}: not erased in {TRIES} tries")

    async def _redeem(self, key: str) -> None:
        answer = await self._client.post(
            REDEEM, json={"id": self._option}, headers={**self._headers, "Idempotency-Key": key}
        )
        self._tally.answers[f"redeem {answer.status_code}"] += 1
        self._answers[key] = answer

    async def _add_points(self, grant: str) -> None:
        body = {"id": grant, "points": 60}
        answer = await self._client.post(f"{self._management}/addPoints", json=body, headers=self._employee)
        self._tally.answers[f"add {answer.status_code}"] += 1
        assert answer.status_code in {201, 503} or _UNKNOWN in answer.text, answer.text

    async def _open(self) -> None:
        answer = await self._client.post(self._management, json={"points": 5}, headers=self._employee)
        self._tally.answers[f"open {answer.status_code}"] += 1
        assert answer.status_code in {200, 201, 409, 503} or _UNKNOWN in answer.text, answer.text

    async def _new_order(self, order_id: str) -> None:
        record = self._order(order_id)  # completed in this moment, before or after the tombstone
        self._new[order_id] = datetime.fromisoformat(json.loads(record.value or b"")["completed"])
        await self._handle("orders", self._bench.orders, [record])

    async def _relay(self) -> None:
        try:
            await self._bench.relay.publish_due()
        except (LedgerUnavailable, KafkaError):
            self._tally.retried["relay"] += 1

    async def _handle(self, what: str, handle: Callable[[Sequence[Record]], Awaitable[None]], records: Any) -> None:
        """As the subscriber does: the same records again until they are through."""
        for _ in range(TRIES):
            try:
                await handle(records)
            except (LedgerUnavailable, LedgerBusy, KafkaError):
                self._tally.retried[what] += 1
                await asyncio.sleep(0.02 * self._chance.random())
            else:
                return
        raise AssertionError(f"{self.customer}: {what} not handled in {TRIES} tries")

    # What must hold

    async def _look(self, when: str) -> None:
        tombstone = await self._bench.ledger.tombstones.find(self.account)
        assert tombstone is not None
        erased_at = tombstone.erased_at
        entries = await self._entries()
        named = f"{self.customer} {when}"
        broken = list(account_violations(entries, erased_at, datetime.now(UTC)))
        assert not broken, f"{named}: {broken}"
        for lot in entries.lots:
            ordered = lot["kind"] == LotKind.ORDER.value
            assert lot["createdAt" if ordered else "recordedAt"] > erased_at, f"{named}: {lot}"
            assert not (ordered and lot["sourceId"].startswith(("old", "late"))), f"{named}: {lot}"
        for redemption in entries.redemptions:
            assert redemption["createdAt"] > erased_at, f"{named}: {redemption}"
            assert ("publishAt" in redemption) != ("publishedAt" in redemption), f"{named}: {redemption}"
        there = {lot["sourceId"] for lot in entries.lots if lot["kind"] == LotKind.ORDER.value}
        later = {order_id for order_id, completed in self._new.items() if _milliseconds(completed) > erased_at}
        assert there == later, f"{named}: erased at {erased_at}, orders {self._new}, in the ledger {there}"
        self._tally.survivors += len(entries.lots)
        stored = {one["_id"]: one["code"] for one in entries.redemptions}
        for key, answer in self._answers.items():
            identity = self._id(key)
            if answer.status_code == httpx.codes.OK:
                self._tally.codes[identity] = answer.json()["code"]
                assert stored.get(identity, answer.json()["code"]) == answer.json()["code"], named
            else:
                refused = answer.status_code in _REFUSED
                assert refused or _UNKNOWN in answer.text, answer.text
                assert not (refused and identity in stored), f"{named}: {answer.text}"

    async def _starts_afresh(self) -> None:
        await self._handle("orders", self._bench.orders, [self._order("fresh", 7)])
        self._new["fresh"] = datetime.now(UTC)
        entries = await self._entries()
        assert "fresh" in {lot["sourceId"] for lot in entries.lots}, self.customer
        answer = await self._client.get("/reward-points/public/customer", headers=self._headers)
        assert answer.status_code == httpx.codes.OK, answer.text
        assert answer.json() == sum(lot["remaining"] for lot in entries.lots), self.customer

    async def _entries(self) -> Entries:
        for entries in await AccountPages(self._bench.ledger.database).read(self.account, self.account):
            return entries
        return Entries(self.account)

    @property
    def _management(self) -> str:
        return f"/reward-points/customer/{self.customer}"

    def _id(self, key: str) -> str:
        return redemption_id(self.account, "key", key)

    def _order(self, order_id: str, total: float = 60) -> Record:
        return self._record(self._stack.kafka.topic_order_completed, an_order(order_id, self.customer, total))

    def _chargeback(self, key: str) -> Record:
        message = {"redemptionId": self._id(key), "tenant": TENANT, "reason": "no codes left"}
        return self._record(self._stack.kafka.topic_chargebacks, message)

    def _result(self, key: str) -> Record:
        message = {"redemptionId": self._id(key), "tenant": TENANT, "status": "CREATED"}
        return self._record(self._stack.kafka.topic_coupon_creation_results or "", message)

    def _record(self, topic: str, value: dict[str, Any]) -> Record:
        now = int(datetime.now(UTC).timestamp() * 1000)
        headers = (("tenant", TENANT.encode()),)
        return FakeRecord(json.dumps(value).encode(), headers=headers, topic=topic, timestamp=now)


def _milliseconds(instant: datetime) -> datetime:
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)
