"""One run: the service, everybody around it, and what goes wrong, all from one seed.

For a while orders, redemptions, answers, erasures and faults come as they like. Every write is checked at once against
the invariants of its account. Then the faults end, the service comes to rest, and the ledger and the topics are
compared with the reference.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import structlog

from rewardpoints.domain.accounts import Account, account_of
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.invariants import Violation
from rewardpoints.domain.redeem_options import RedeemOption
from rewardpoints.domain.site_settings import SettingsVersion, parse_site_settings
from rewardpoints.ledger import tombstones
from rewardpoints.ledger.account_pages import Entries
from rewardpoints.ledger.documents import lot_from, redemption_from
from rewardpoints.ledger.verify import account_violations, violations
from rewardpoints.telemetry import Metrics
from tests.simulation.actors import OPTION, OPTION_POINTS, Actors
from tests.simulation.broker import Broker
from tests.simulation.client import SimulatedClient
from tests.simulation.faults import Faults, FaultyNetwork
from tests.simulation.loop import SimulationLoop, Stuck, TooLong
from tests.simulation.mishaps import Mishaps
from tests.simulation.reference import Reference, Version
from tests.simulation.server import Server
from tests.simulation.service import DEAD, ORDERS, REQUESTS, TENANT, Service, ledger_over, start

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
FRESH_SECONDS = 10.0
"""Instead of a minute: short beside the above, as it is there."""
CUSTOMERS = ("anna", "ben/ä", "cleo")


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
        chance, around, mishaps = self.chance, Actors(self), Mishaps(self)
        self.actors = [
            self.loop.create_task(actor)
            for actor in (
                *(around.order(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.randint(8, 30))),
                *(around.redeem(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.randint(4, 16))),
                *(around.grant(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.randint(0, 4))),
                *(around.erase(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.choice((0, 0, 1, 2, 4)))),
                *(around.poison(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.randint(0, 3))),
                *(around.rush(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.randint(1, 4))),
                *(mishaps.kill(chance.uniform(0, LOAD_SECONDS)) for _ in self._times(self.faults.kills_per_minute)),
                *(
                    mishaps.rebalance(chance.uniform(0, LOAD_SECONDS))
                    for _ in self._times(self.faults.rebalances_per_minute)
                ),
                *(mishaps.trouble(chance.uniform(0, LOAD_SECONDS)) for _ in range(chance.randint(0, 3))),
            )
        ]
        coupons = self.loop.create_task(around.coupon_service())
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
            self.workers.append(self.new("worker", worker=True))
            self.apis.append(self.new("api", worker=False))

    def new(self, kind: str, *, worker: bool) -> Service:
        self._started += 1
        return start(self, f"{kind}-{self._started}", worker=worker)

    def _versions(self) -> list[Version]:
        zone = self.chance.choice(("UTC", "Europe/Berlin"))
        first = Version(1, self.began - timedelta(days=300), Decimal("1.5"), 1, zone)
        months = self.chance.choice((1, 2, 36))
        effective_at = self.began + timedelta(seconds=self.chance.randint(5, 20))
        return [first, Version(2, effective_at, Decimal("0.75"), months, zone)]

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


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """Seed what draws its jitter from the global source, let nobody log, and look at erasures again within the run."""
    state, configuration = random.getstate(), structlog.get_config()
    random.seed(seed)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    try:
        with (
            patch.object(tombstones, "LOOK_AGAIN_AFTER", LOOK_AGAIN_AFTER),
            patch.object(tombstones, "FRESH_SECONDS", FRESH_SECONDS),
        ):
            yield
    finally:
        random.setstate(state)
        structlog.configure(**configuration)


def simulate(seed: int) -> Outcome:
    """One run."""
    return World(seed).run()
