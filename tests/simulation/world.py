"""One run: the service, everybody around it, and what goes wrong, all from one seed.

For a while orders, redemptions, answers, erasures and faults come as they like. Every write is checked at once against
the invariants of its account. Then the faults end, the service comes to rest, and the ledger and the topics are
compared with the reference.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from unittest.mock import patch

import structlog

from rewardpoints.api.errors import Missing, NoPoints
from rewardpoints.domain.accounts import Account, account_of, customer_of
from rewardpoints.domain.errors import (
    LedgerBusy,
    LedgerUnavailable,
    NoAccount,
    RewardPointsError,
    TooFewPoints,
)
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.invariants import Violation
from rewardpoints.domain.manual_entries import ManualGrant, manual_lot
from rewardpoints.domain.redeem_options import RedeemOption
from rewardpoints.domain.redemptions import redemption_id
from rewardpoints.domain.site_settings import SettingsVersion, parse_site_settings
from rewardpoints.ledger import tombstones
from rewardpoints.ledger.account_pages import Entries
from rewardpoints.ledger.documents import lot_from, redemption_from
from rewardpoints.ledger.verify import account_violations, violations
from rewardpoints.telemetry import Metrics
from tests.simulation.broker import PARTITIONS, Broker, LogRecord
from tests.simulation.client import SimulatedClient
from tests.simulation.faults import Faults, FaultyNetwork
from tests.simulation.loop import SimulationLoop, Stuck, TooLong
from tests.simulation.reference import Grant, Order, Redeeming, Reference, Version
from tests.simulation.server import Server
from tests.simulation.service import CHARGEBACKS, DEAD, ORDERS, REQUESTS, RESULTS, TENANT, Service, ledger_over, start

STARTS = (
    datetime(2024, 1, 31, 23, 59, 45, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 59, 45, tzinfo=UTC),
    datetime(2023, 12, 31, 22, 59, 45, tzinfo=UTC),
    datetime(2024, 3, 31, 0, 59, 45, tzinfo=UTC),
    datetime(2024, 10, 27, 0, 59, 45, tzinfo=UTC),
)
"""Just before a month ends, or the clocks of Berlin change."""

LOAD_SECONDS = 25.0
REST_SECONDS = 600.0
LOOK_AGAIN_AFTER = timedelta(seconds=40)
"""Instead of ten minutes: longer than anything takes here from its try to its end."""
CUSTOMERS = ("anna", "ben/ä", "cleo")
OPTION, OPTION_POINTS = "voucher", 40
CLIENT_SECONDS = 10.0
MOST_TRIES = 6
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. ``problems`` is empty where everything held."""

    seed: int
    problems: tuple[str, ...]
    trace: str
    steps: int
    counts: dict[str, int]


class Violated(Exception):
    """An invariant does not hold; the run ends here."""


class Unanswered(Exception):
    """The caller waited long enough; whether the call was carried out is not known."""


class World:
    """A run in progress."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.loop = SimulationLoop(seed)
        self.began = self.chance.choice(STARTS)
        faults = Faults.of(self.chance)
        self.faults = faults
        self.server = Server(self.now)
        self.server.watchers.append(self._check_written)
        self.broker = Broker(self.now)
        self.network = FaultyNetwork(faults, random.Random(f"network {seed}"), self.loop.note)
        self.problems: list[str] = []
        self.workers: list[Service] = []
        self.apis: list[Service] = []
        self.accounts = [account_of(TENANT, customer) for customer in CUSTOMERS]
        self.reference = Reference(self._versions(), ORDERS)
        self.counts = {"kills": 0, "redeemed": 0, "refused": 0, "unknown": 0, "erased": 0}
        self.actors: list[asyncio.Task[None]] = []
        self._started = 0

    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.loop.time())

    def failed(self, problem: str) -> None:
        """Something that must not happen did."""
        self.problems.append(f"step {self.loop.steps}, {self.loop.time():.3f} s: {problem}")

    # The run

    def run(self) -> Outcome:
        """Carry it out."""
        try:
            with _quiet(self.seed):
                try:
                    self.loop.run_until_complete(self._run())
                except (Stuck, TooLong) as error:
                    self.failed(f"the run does not end: {error!r}")
                trace, steps = self.loop.trace, self.loop.steps
                self.problems += self.loop.unexpected
                problems = tuple(self.problems)
                self.network.calm = True
                self.loop.finish()
        finally:
            if not self.loop.is_closed():
                self.loop.close()
        return Outcome(self.seed, problems, trace, steps, self.counts)

    async def _run(self) -> None:
        await self._prepare()
        self.network.calm = False
        chance = self.chance
        self.actors = [
            self.loop.create_task(actor)
            for actor in (
                *(self._order(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.randint(8, 30))),
                *(self._redeem(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.randint(4, 16))),
                *(self._grant(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.randint(0, 4))),
                *(self._erase(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.choice((0, 0, 1, 2, 4)))),
                *(self._poison(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.randint(0, 3))),
                *(self._rush(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.randint(1, 4))),
                *(self._kill(chance.uniform(0, LOAD_SECONDS)) for _ in self._times(self.faults.kills_per_minute)),
                *(
                    self._rebalance(chance.uniform(0, LOAD_SECONDS))
                    for _ in self._times(self.faults.rebalances_per_minute)
                ),
                *(self._trouble(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.randint(0, 3))),
            )
        ]
        coupons = self.loop.create_task(self._coupon_service())
        await asyncio.sleep(LOAD_SECONDS)
        self.network.calm = True
        if not self.problems:
            await self._come_to_rest()
        coupons.cancel()
        if not self.problems:
            await self._compare()

    def _times(self, per_minute: float) -> range:
        return range(round(per_minute * LOAD_SECONDS / 60 * self.chance.uniform(0.5, 1.5)))

    async def _prepare(self) -> None:
        self.ledger = ledger_over(self, SimulatedClient(self.server, self.network), self.now, Metrics())
        await self.ledger.ensure_indexes()
        for version in self.reference.versions:
            content = {
                "orderValueToRewardPointsFactor": version.factor,
                "validityInMonths": version.months,
                "timeZone": version.zone,
            }
            await self.ledger.site_settings.append(
                SettingsVersion(
                    tenant=TENANT,
                    site_code="main",
                    version=version.number,
                    saved_at=version.effective_at,
                    effective_at=version.effective_at,
                    settings=parse_site_settings(content),
                    content=content,
                )
            )
        content = {"type": "coupon", "name": "Voucher", "points": OPTION_POINTS, "coupon": {"name": "5 off"}}
        at = to_milliseconds(self.now())
        await self.ledger.redeem_options.create(
            RedeemOption(tenant=TENANT, id=OPTION, content=content, version=1, created_at=at, modified_at=at)
        )
        for _ in range(2):
            self.workers.append(self._new("worker", worker=True))
            self.apis.append(self._new("api", worker=False))

    def _new(self, kind: str, *, worker: bool) -> Service:
        self._started += 1
        return start(self, f"{kind}-{self._started}", worker=worker)

    def _versions(self) -> list[Version]:
        zone = self.chance.choice(("UTC", "Europe/Berlin"))
        first = Version(1, self.began - timedelta(days=300), Decimal("1.5"), 1, zone)
        months = self.chance.choice((1, 2, 36))
        effective_at = self.began + timedelta(seconds=self.chance.randint(5, 20))
        return [first, Version(2, effective_at, Decimal("0.75"), months, zone)]

    # Those around the service

    async def _rush(self, after: float) -> None:
        """Much at once on one account."""
        chance, account = self.chance, self.chance.choice(self.accounts)
        events: list[Coroutine[Any, Any, None]] = [
            self._redeem(after + chance.uniform(0, 0.05), account) for _ in range(chance.randint(2, 5))
        ]
        if chance.random() < 0.3:
            events.append(self._erase(after + chance.uniform(0, 0.1), account))
            events.append(self._grant(after + chance.uniform(0, 0.2), account))
        if chance.random() < 0.3:
            events.append(self._order(after + chance.uniform(0, 0.1), account))
        await asyncio.gather(*events)

    async def _order(self, after: float, account: Account | None = None) -> None:
        await asyncio.sleep(after)
        chance = self.chance
        customer = customer_of(account or chance.choice(self.accounts))
        ages = (0, 1, 10, 3600, 86_400, 30 * 86_400, 31 * 86_400 - 20, 31 * 86_400 - 5)
        age = chance.choice(ages) + chance.uniform(0, 5)
        order = Order(
            account_of(TENANT, customer),
            f"o{len(self.reference.orders)}",
            Decimal(chance.randint(100, 9000)) / 100,
            to_milliseconds(self.now() - timedelta(seconds=age)),
        )
        self.reference.orders[order.account, order.number] = order
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

    async def _poison(self, after: float) -> None:
        await asyncio.sleep(after)
        value = self.chance.choice((b"{", b"\xff", b'{"id": "x", "status": "COMPLETED", "customer": {"id": "c"}}'))
        self.reference.must_be_dead.append(self._publish(ORDERS, value))

    def _publish(self, topic: str, value: bytes) -> LogRecord:
        self.loop.note(f"send {topic}")
        return self.broker.append(topic, value, partition=self.chance.randrange(PARTITIONS))

    async def _redeem(self, after: float, account: Account | None = None) -> None:
        await asyncio.sleep(after)
        account = account or self.chance.choice(self.accounts)
        customer = customer_of(account)
        number = len(self.reference.redeemings)
        key = f"k{number}" if self.chance.random() < 0.6 else None
        wish = Redeeming(
            account, OPTION_POINTS, key and redemption_id(account, "key", key), to_milliseconds(self.now())
        )
        self.reference.redeemings.append(wish)

        async def once() -> None:
            try:
                body = await self._ask(lambda api: api.redeem(customer, OPTION, key))
            except (NoPoints, Missing, NoAccount, TooFewPoints, LedgerBusy):
                # An earlier try of unknown outcome may still be carried out
                wish.refused = not wish.unknown
                self.counts["refused"] += 1
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
        if self.chance.random() < 0.2 and key is not None:  # a nervous customer
            await asyncio.gather(self._persist(once, tries), self._persist(once, tries))
            wish.refused = False  # one was, perhaps before the other was not
        else:
            await self._persist(once, tries)

    def _note_code(self, wish: Redeeming, code: str) -> None:
        self.counts["redeemed"] += 1
        if wish.code not in (None, code) and not self._erased_since(wish.account, wish.began):
            self.failed(f"one redemption was answered with codes {wish.code} and {code}")
        wish.code = code

    def _erased_since(self, account: Account, began: datetime) -> bool:
        return any(document["erasedAt"] >= began for document in self.server.find("tombstones", {"_id": account}))

    async def _grant(self, after: float, account: Account | None = None) -> None:
        await asyncio.sleep(after)
        account = account or self.chance.choice(self.accounts)
        grant = Grant(
            account, f"g{len(self.reference.grants)}", self.chance.randint(1, 60), to_milliseconds(self.now())
        )
        self.reference.grants.append(grant)

        async def once() -> None:
            grant.began = now = to_milliseconds(self.now())
            asked = ManualGrant(id=grant.number, source_id=grant.number, points=grant.points, fingerprint=grant.number)
            settings = parse_site_settings({"orderValueToRewardPointsFactor": Decimal(1)})
            lot = manual_lot(account, asked, settings, site_code="main", now=now)
            try:
                await self._ask(lambda api: api.ledger.accounts.add(lot))
            except LedgerUnavailable as error:
                raise Unanswered from error
            grant.acknowledged = True

        await self._persist(once, MOST_TRIES)

    async def _erase(self, after: float, account: Account | None = None) -> None:
        await asyncio.sleep(after)
        account = account or self.chance.choice(self.accounts)

        async def once() -> None:
            try:
                await self._ask(lambda api: api.ledger.accounts.erase(account))
            except LedgerUnavailable as error:
                raise Unanswered from error

        await self._persist(once, self.chance.choice((1, 2, 1000)))  # who gives up leaves it to the workers to finish
        self.counts["erased"] += 1

    async def _persist(self, once: Callable[[], Awaitable[None]], tries: int) -> None:
        for _ in range(tries):
            try:
                return await once()
            except Unanswered:
                self.counts["unknown"] += 1
                await asyncio.sleep(self.chance.uniform(0, 2))
        return None

    async def _ask(self, handler: Callable[[Service], Awaitable[Result]]) -> Result:
        """Have some API process carry out a call, and wait as long as clients do."""
        api = self.chance.choice(self.apis)

        async def call() -> Result:
            return await handler(api)

        answer: asyncio.Task[Result] = api.run(call())
        answer.add_done_callback(_retrieve)
        done, _ = await asyncio.wait([answer], timeout=CLIENT_SECONDS)
        if not done:
            raise Unanswered
        error = answer.exception()
        if error is not None and not isinstance(error, RewardPointsError | NoPoints | Missing):
            self.failed(f"an API call failed: {error!r}")
        return answer.result()

    async def _coupon_service(self) -> None:
        """Answers each request it has not seen: created, failed, both, or nothing; and sometimes twice."""
        seen: set[str] = set()
        while True:
            await asyncio.sleep(0.5)
            for record in self.broker.read(REQUESTS):
                content = json.loads(record.value or b"")
                if content["id"] not in seen:
                    seen.add(content["id"])
                    answers = self.chance.choice(
                        ((RESULTS,), (CHARGEBACKS,), (CHARGEBACKS,), (RESULTS, CHARGEBACKS), (CHARGEBACKS, RESULTS), ())
                    )
                    self.actors.append(self.loop.create_task(self._answer(content["id"], answers)))

    async def _answer(self, identity: str, answers: tuple[str, ...]) -> None:
        chance = self.chance
        for topic in answers:
            await asyncio.sleep(chance.choice((0, 0.2, 2)))
            value = json.dumps({"redemptionId": identity, "tenant": TENANT, "status": "CREATED"}).encode()
            for _ in range(chance.choice((1, 1, 2))):
                record = self._publish(topic, value)
                at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
                known = self.reference.created if topic == RESULTS else self.reference.charged_back
                known[identity].append(at)
                await asyncio.sleep(chance.choice((0, 0.5, 4)))
        if chance.random() < 0.1:
            wrong = json.dumps({"redemptionId": identity, "tenant": "other"}).encode()
            self.reference.must_be_dead.append(self._publish(CHARGEBACKS, wrong))

    # What goes wrong

    async def _kill(self, after: float) -> None:
        await asyncio.sleep(after)
        services, kind = self.chance.choice(((self.workers, "worker"), (self.apis, "api")))
        victim = self.chance.choice(services)
        if victim.process.dies_at is not None:  # it is doomed already
            return
        gone = asyncio.Event()
        victim.process.when_dead.append(gone.set)
        victim.process.dies_at = victim.process.steps + self.chance.randint(1, 150)
        await gone.wait()
        self.counts["kills"] += 1
        self.loop.note(f"killed {victim.process.name}")
        await asyncio.sleep(self.chance.uniform(0.1, 4))
        if victim in services:
            services[services.index(victim)] = self._new(kind, worker=kind == "worker")

    async def _rebalance(self, after: float) -> None:
        await asyncio.sleep(after)
        topic = self.chance.choice(sorted(self.broker.groups))
        self.broker.group(topic).rebalance(self.chance)

    async def _trouble(self, after: float) -> None:
        await asyncio.sleep(after)
        if self.chance.random() < 0.4:
            self.network.deaf_to_commits = True
            await asyncio.sleep(self.chance.uniform(2, 15))
            self.network.deaf_to_commits = False
            return
        self.network.trouble = True
        await asyncio.sleep(self.chance.uniform(0.5, 5))
        self.network.trouble = False

    # What must hold

    def _check_written(self, changed: set[tuple[str, Any]]) -> None:
        """The invariants of each account a write has changed; one that was erased is judged at rest only."""
        accounts: set[str] = set()
        for collection, key in changed:
            if collection in ("lots", "redemptions"):
                versions = self.server.collections[collection][key].versions
                accounts.update(document["account"] for _, document in versions[-2:] if document is not None)
        for account in sorted(accounts):
            if not self.server.find("tombstones", {"_id": account}):
                for problem in self._violations(Account(account)):
                    self.failed(str(problem))

    def _violations(self, account: Account) -> Iterator[Violation]:
        entries = Entries(
            account,
            self.server.find("lots", {"account": account}),
            self.server.find("redemptions", {"account": account}),
        )
        return account_violations(entries, None, self.now()) if entries.lots or entries.redemptions else iter(())

    async def _come_to_rest(self) -> None:
        until = self.loop.time() + REST_SECONDS
        while not self._at_rest():
            if self.loop.time() > until:
                waiting = sum(not actor.done() for actor in self.actors)
                lag = {topic: group.lag for topic, group in sorted(self.broker.groups.items())}
                self.failed(f"the service does not come to rest: lag {lag}, {waiting} waiting")
                return
            if round(self.loop.time()) % 5 == 0:  # what was handled and could not be committed comes once more
                for _, group in sorted(self.broker.groups.items()):
                    group.rebalance(self.chance)
            await asyncio.sleep(1)
        for actor in self.actors:
            if not actor.cancelled() and actor.exception() is not None:
                self.failed(f"an actor failed: {actor.exception()!r}")

    def _at_rest(self) -> bool:
        due = any("publishAt" in document for document in self.server.documents("redemptions"))
        erasing = any("lookAt" in document for document in self.server.documents("tombstones"))
        busy = any(transaction.state == "open" for transaction in self.server.transactions)
        lag = any(group.lag for group in self.broker.groups.values())
        return not due and not erasing and not busy and not lag and all(actor.done() for actor in self.actors)

    async def _compare(self) -> None:
        for violation in [violation async for violation in violations(self.ledger.database, self.now)]:
            self.failed(str(violation))
        lots = [lot_from(document) for document in self.server.documents("lots")]
        redemptions = [redemption_from(document) for document in self.server.documents("redemptions")]
        erased = {Account(document["_id"]): document["erasedAt"] for document in self.server.documents("tombstones")}
        for problem in self.reference.disagreements(
            lots, redemptions, erased, self.broker.read(REQUESTS), self.broker.read(DEAD)
        ):
            self.failed(problem)
        for account in self.accounts:
            now = self.now()
            balance = await self.ledger.accounts.balance(account, now)
            mine = [lot for lot in lots if lot.account == account]
            there = bool(mine) or any(one.account == account for one in redemptions)
            expected = sum(lot.remaining for lot in mine if lot.valid_until > now) if there else None
            if balance != expected:
                self.failed(f"the balance of {account} is {balance}, expected {expected}")


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take note of an answer nobody waits for any more."""
    if not task.cancelled():
        task.exception()


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """Seed what draws its jitter from the global source, let nobody log, and look at erasures again within the run."""
    state, configuration = random.getstate(), structlog.get_config()
    random.seed(seed)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    try:
        with patch.object(tombstones, "LOOK_AGAIN_AFTER", LOOK_AGAIN_AFTER):
            yield
    finally:
        random.setstate(state)
        structlog.configure(**configuration)


def simulate(seed: int) -> Outcome:
    """One run."""
    return World(seed).run()
