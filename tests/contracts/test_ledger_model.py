"""Random operations against the ledger and against a few lines of plain Python: both must agree after every one."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rewardpoints.api.views import summary_view
from rewardpoints.domain.accounts import Account, account_of
from rewardpoints.domain.chargebacks import chargeback_lot
from rewardpoints.domain.errors import (
    AccountExists,
    IdempotencyConflict,
    NoAccount,
    RecordRejected,
    RewardPointsError,
    TooFewPoints,
)
from rewardpoints.domain.history import summarize
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.lots import Lot, active_points, drawn, plan_draws
from rewardpoints.domain.redemptions import Redemption, RedemptionIntent, RedemptionState, redemption_from
from rewardpoints.domain.site_settings import DEFAULT_SITE_SETTINGS
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.verify import violations
from tests.altered import altered
from tests.contracts.ledgers import Driver, an_intent, histories, manual_lot, open_ledger, opening_lot, order_lot

ACCOUNTS = [account_of("shop", "a"), account_of("shop", "b"), account_of("other", "a")]
STEPS = 60


class Time:
    """A clock ahead of the server's, so that what is added after an erasure is later than its tombstone."""

    def __init__(self) -> None:
        self.instant = to_milliseconds(datetime.now(UTC)) + timedelta(days=30)

    def __call__(self) -> datetime:
        return self.instant


class Model:
    """What the ledger should hold."""

    def __init__(self) -> None:
        self.lots: dict[str, Lot] = {}
        self.redemptions: dict[str, Redemption] = {}

    def lots_of(self, account: Account) -> list[Lot]:
        return [lot for lot in self.lots.values() if lot.account == account]

    def exists(self, account: Account) -> bool:
        accounts = {lot.account for lot in self.lots.values()} | {one.account for one in self.redemptions.values()}
        return account in accounts

    def add_batch(self, lots: list[Lot]) -> None:
        for lot in lots:
            self.lots.setdefault(lot.id, lot)

    def open(self, lot: Lot) -> None:
        if self.exists(lot.account):
            raise AccountExists
        self.lots[lot.id] = lot

    def add(self, lot: Lot) -> None:
        stored = self.lots.setdefault(lot.id, lot)
        if stored.fingerprint != lot.fingerprint:
            raise IdempotencyConflict

    def redeem(self, intent: RedemptionIntent, now: datetime) -> None:
        stored = self.redemptions.get(intent.id)
        if stored:
            if stored.fingerprint != intent.fingerprint:
                raise IdempotencyConflict
            return
        if not self.exists(intent.account):
            raise NoAccount
        draws = plan_draws(self.lots_of(intent.account), intent.points, now)
        for draw in draws:
            self.lots[draw.lot] = drawn(self.lots[draw.lot], draw)
        self.redemptions[intent.id] = redemption_from(intent, draws, now)

    def answer(self, redemption: Redemption, state: RedemptionState, lot: Lot | None) -> None:
        stored = self.redemptions[redemption.id]
        if stored.state is state:
            return
        if stored.state is not RedemptionState.REQUESTED:
            raise PermissionError
        self.redemptions[stored.id] = replace(stored, state=state, publish_at=None)
        if lot:
            self.lots[lot.id] = lot

    def erase(self, account: Account) -> None:
        self.lots = {key: lot for key, lot in self.lots.items() if lot.account != account}
        self.redemptions = {key: one for key, one in self.redemptions.items() if one.account != account}


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def timed(mongodb_uri: str, database_name: str, driver: Driver, time: Time) -> AsyncIterator[Ledger]:
    ledger = open_ledger(mongodb_uri, database_name, driver, clock=time)
    try:
        await ledger.ensure_indexes()
        yield ledger
    finally:
        await ledger.close()


OPERATIONS = [*(["orders"] * 3), *(["redeem"] * 6), "add", "open", "issued", "charged_back", "charged_back", "erase"]


async def one_step(ledger: Ledger, model: Model, chance: random.Random, now: datetime) -> None:
    """One operation on both; where the model refuses it, the ledger must too, with the same exception."""
    account = chance.choice(ACCOUNTS)
    operation = chance.choice(OPERATIONS)
    coupons = [one for one in model.redemptions.values() if one.coupon]
    if operation == "orders":
        batch = some_orders(chance, account, now)
        model.add_batch(batch)
        await ledger.lots.add_batch(batch)
    elif operation == "redeem":
        intent = some_intent(chance, account)
        refusals = (NoAccount, TooFewPoints, IdempotencyConflict)
        await both(lambda: model.redeem(intent, now), ledger.redemptions.redeem(intent), refusals)
    elif operation == "add":
        lot = by_hand(manual_lot(f"m{chance.randrange(6)}", account=account), chance, now)
        await both(lambda: model.add(lot), ledger.accounts.add(lot), (IdempotencyConflict,))
    elif operation == "open":
        lot = by_hand(opening_lot(account=account), chance, now)
        await both(lambda: model.open(lot), ledger.accounts.open(lot), (AccountExists,))
    elif operation == "erase":
        model.erase(account)
        await ledger.accounts.erase(account)
    elif coupons:
        await answer(ledger, model, chance.choice(coupons), RedemptionState(operation), now)


def some_orders(chance: random.Random, account: Account, now: datetime) -> list[Lot]:
    at = now - timedelta(days=chance.randrange(5))
    valid_until = now + timedelta(days=chance.choice([1, 3, 30]))
    return [
        order_lot(
            f"o{chance.randrange(25)}",
            chance.randint(1, 40),
            account=account,
            created_at=at,
            valid_until=valid_until,
            recorded_at=now,
        )
        for _ in range(chance.randrange(5))
    ]


def some_intent(chance: random.Random, account: Account) -> RedemptionIntent:
    key = chance.choice([None, f"k{chance.randrange(5)}"])
    fingerprint = chance.choice(["f1", "f1", "f2"])
    coupon = chance.random() < 0.7
    return an_intent(chance.randint(1, 60), key, account=account, coupon=coupon, fingerprint=fingerprint)


def by_hand(lot: Lot, chance: random.Random, now: datetime) -> Lot:
    points = chance.randint(1, 30)
    return altered(
        lot,
        points=points,
        remaining=points,
        fingerprint=str(points),
        created_at=now,
        recorded_at=now,
        valid_until=now + timedelta(days=chance.choice([1, 3, 30])),
    )


async def answer(ledger: Ledger, model: Model, one: Redemption, state: RedemptionState, now: datetime) -> None:
    lot: Lot | None = None
    if state is RedemptionState.ISSUED:
        call = ledger.redemptions.mark_issued(one, at=now)
    else:
        lot = chargeback_lot(one, DEFAULT_SITE_SETTINGS, at=now, recorded_at=now)
        call = ledger.redemptions.charge_back(one, lot, reason="")
    try:
        model.answer(one, state, lot)
    except PermissionError:
        with pytest.raises(RecordRejected):
            await call
    else:
        await call


async def both(
    modelled: Callable[[], None], call: Awaitable[object], refusals: tuple[type[RewardPointsError], ...]
) -> None:
    try:
        modelled()
    except refusals as refused:
        with pytest.raises(type(refused)):
            await call
    else:
        await call


@pytest.mark.parametrize("seed", range(4))
async def test_the_ledger_agrees_with_the_model(timed: Ledger, time: Time, seed: int) -> None:
    chance, model = random.Random(seed), Model()
    for _ in range(STEPS):
        time.instant += timedelta(seconds=chance.randrange(1, 100_000))
        await one_step(timed, model, chance, time())
        for account in ACCOUNTS:
            balance = await timed.accounts.balance(account, time())
            expected = active_points(model.lots_of(account), time()) if model.exists(account) else None
            assert balance == expected
    found = {history.account: history for tenant in ("other", "shop") async for history in histories(timed, tenant)}
    assert {lot.id: lot for history in found.values() for lot in history.lots} == model.lots
    assert {one.id: one for history in found.values() for one in history.redemptions} == model.redemptions
    for account, history in found.items():
        assert summarize(history, time()).active_points == await timed.accounts.balance(account, time())
        shown = await timed.accounts.summary_history(account)
        assert shown is not None
        assert summary_view(summarize(shown, time())) == summary_view(summarize(history, time()))
    assert [problem async for problem in violations(timed.database, time)] == []
    assert model.lots, "a run that leaves nothing would prove nothing"
    assert model.redemptions
