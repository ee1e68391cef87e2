"""What the ledger makes of a server that fails: planted by the server's own fault injection."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from rewardpoints.domain.errors import LedgerBusy, LedgerUnavailable
from rewardpoints.ledger.ledger import Ledger
from tests.contracts.ledgers import (
    ACCOUNT,
    Driver,
    LedgerOpener,
    an_intent,
    broken,
    contents,
    lot_back,
    manual_lot,
    now,
    order_lot,
)
from tests.contracts.simulated import FailingServer

HASTY = {"operation_timeout_seconds": 0.5, "server_selection_timeout_seconds": 0.3}
Fail = Callable[..., AbstractAsyncContextManager[None]]

CONFLICT = {"errorCode": 112, "errorLabels": ["TransientTransactionError"]}
LOST = {"closeConnection": True}
UNCONFIRMED = {
    "writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out", "errInfo": {"wtimeout": True}}
}


@pytest.fixture
async def fail(mongodb_uri: str, driver: Driver) -> AsyncIterator[Fail]:
    """Makes commands of this project's clients fail while the context lasts: ``times`` times, or always."""
    if isinstance(driver, FailingServer):
        simulated = driver

        @asynccontextmanager
        async def planned(*commands: str, how: dict[str, Any], times: int | None = None) -> AsyncIterator[None]:
            with simulated.failing(*commands, how=how, times=times):
                yield

        yield planned
        return
    async with AsyncMongoClient[dict[str, Any]](mongodb_uri, appname="tests") as client:

        async def configure(**point: Any) -> None:
            await client.admin.command({"configureFailPoint": "failCommand", **point})

        try:
            await configure(mode="off")
        except OperationFailure as error:
            pytest.skip(f"the server allows no fault injection: {error.code}")

        @asynccontextmanager
        async def failing(*commands: str, how: dict[str, Any], times: int | None = None) -> AsyncIterator[None]:
            mode = {"times": times} if times else "alwaysOn"
            await configure(mode=mode, data={"failCommands": list(commands), "appName": "rewardpoints", **how})
            try:
                yield
            finally:
                await configure(mode="off")

        yield failing


async def test_conflicts_are_tried_again(ledger: Ledger, fail: Fail) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    async with fail("update", how=CONFLICT, times=4):
        redemption = await ledger.redemptions.redeem(an_intent(10))
    assert redemption.points == 10
    assert await ledger.accounts.balance(ACCOUNT, now()) == 90
    assert await broken(ledger) == []


async def test_conflicts_without_end_are_given_up_in_time(ledger: Ledger, another: LedgerOpener, fail: Fail) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    before = await contents(ledger)
    async with another(redeem_timeout_seconds=0.5) as hasty, fail("update", how=CONFLICT):
        with pytest.raises(
            (LedgerBusy, LedgerUnavailable)
        ) as given_up:  # between two attempts, or on a slow machine in one
            await hasty.redemptions.redeem(an_intent(10))
    assert not getattr(given_up.value, "outcome_unknown", False)
    assert await contents(ledger) == before


@pytest.mark.parametrize("command", ["find", "update", "insert"])
async def test_a_connection_lost_in_the_middle_changes_nothing_and_is_tried_again(
    ledger: Ledger, fail: Fail, command: str
) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    async with fail(command, how=LOST, times=3):
        await ledger.redemptions.redeem(an_intent(10))
    assert await ledger.accounts.balance(ACCOUNT, now()) == 90
    assert await broken(ledger) == []


async def test_a_commit_that_is_lost_is_sent_again(ledger: Ledger, fail: Fail) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    async with fail("commitTransaction", how=LOST, times=5):
        redemption = await ledger.redemptions.redeem(an_intent(10))
    assert await ledger.redemptions.find(redemption.id) == redemption
    assert await ledger.accounts.balance(ACCOUNT, now()) == 90
    assert await broken(ledger) == []


async def test_a_commit_nobody_answers_is_an_unknown_outcome(
    ledger: Ledger, another: LedgerOpener, fail: Fail, end_transactions: Callable[[], Awaitable[None]]
) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    intent = an_intent(10, "key")
    async with another(redeem_timeout_seconds=0.5) as hasty:
        async with fail("commitTransaction", how=LOST):
            with pytest.raises(LedgerUnavailable) as unknown:
                await hasty.redemptions.redeem(intent)
        assert unknown.value.outcome_unknown
        await end_transactions()
        first = await hasty.redemptions.redeem(intent)
        assert await ledger.redemptions.redeem(an_intent(10, "key")) == first
    assert await ledger.accounts.balance(ACCOUNT, now()) == 90
    assert await broken(ledger) == []


async def test_a_commit_that_happened_unconfirmed_is_found_out(
    ledger: Ledger, another: LedgerOpener, fail: Fail
) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    intent = an_intent(10)
    async with another(redeem_timeout_seconds=0.5) as hasty, fail("commitTransaction", how=UNCONFIRMED):
        redemption = await hasty.redemptions.redeem(intent)
    assert redemption.id == intent.id
    assert await ledger.redemptions.find(intent.id) == redemption
    assert await ledger.accounts.balance(ACCOUNT, now()) == 90
    assert await broken(ledger) == []


async def test_a_chargeback_survives_conflicts_and_a_lost_commit(ledger: Ledger, fail: Fail) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    redemption = await ledger.redemptions.redeem(an_intent(10, coupon=True))
    async with fail("update", "commitTransaction", how=LOST, times=5):
        await ledger.redemptions.charge_back(redemption, lot_back(redemption), reason="")
    assert await ledger.redemptions.charge_back(redemption, lot_back(redemption), reason="") is False
    assert await ledger.accounts.balance(ACCOUNT, now()) == 100
    assert await broken(ledger) == []


@pytest.mark.parametrize("code", [91, 10107, 13, 14031, 50], ids=["shutdown", "no primary", "refused", "disk", "time"])
async def test_a_server_in_trouble_rejects_no_lot(ledger: Ledger, another: LedgerOpener, fail: Fail, code: int) -> None:
    batch = [order_lot(f"o{number}") for number in range(3)]
    async with another(mongodb=HASTY) as hasty, fail("insert", how={"errorCode": code}):
        with pytest.raises(LedgerUnavailable):
            await hasty.lots.add_batch(batch)
    assert (await ledger.lots.add_batch(batch)).added == [0, 1, 2]


async def test_a_batch_not_confirmed_is_not_taken_as_added(ledger: Ledger, fail: Fail) -> None:
    batch = [order_lot(f"o{number}") for number in range(3)]
    async with fail("insert", how=UNCONFIRMED):
        with pytest.raises(LedgerUnavailable) as unknown:
            await ledger.lots.add_batch(batch)
    assert unknown.value.outcome_unknown
    outcome = await ledger.lots.add_batch(batch)
    assert sorted([*outcome.added, *outcome.already_there]) == [0, 1, 2]
    assert outcome.differing == []


async def test_one_lost_connection_goes_unnoticed(ledger: Ledger, fail: Fail) -> None:
    async with fail("insert", "find", how=LOST, times=1):
        assert (await ledger.lots.add_batch([order_lot("o1")])).added == [0]
    async with fail("insert", "find", how=LOST, times=1):
        assert await ledger.accounts.balance(ACCOUNT, now()) == 100


OPERATIONS: dict[str, Callable[[Ledger], Awaitable[Any]]] = {
    "ping": lambda ledger: ledger.ping(),
    "balance": lambda ledger: ledger.accounts.balance(ACCOUNT, now()),
    "history": lambda ledger: ledger.accounts.history(ACCOUNT),
    "count": lambda ledger: ledger.accounts.count("shop"),
    "add": lambda ledger: ledger.accounts.add(manual_lot("m1")),
    "erase": lambda ledger: ledger.accounts.erase(ACCOUNT),
    "tombstones": lambda ledger: ledger.tombstones.since(None),
    "find": lambda ledger: ledger.redemptions.find("0" * 64),
    "redeem": lambda ledger: ledger.redemptions.redeem(an_intent(1)),
    "take_due": lambda ledger: ledger.redemptions.take_due(now(), lease_seconds=1, limit=1),
    "mark_published": lambda ledger: ledger.redemptions.mark_published("0" * 64),
    "counts": lambda ledger: ledger.redemptions.counts(now(), unanswered_after_seconds=1),
    "options": lambda ledger: ledger.redeem_options.all("shop"),
    "settings": lambda ledger: ledger.settings_reader.histories({("shop", "main"): now()}),
    "indexes": lambda ledger: ledger.ensure_indexes(),
    "reap": lambda ledger: ledger.reap(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_every_operation_says_that_the_ledger_is_unavailable(
    ledger: Ledger, another: LedgerOpener, fail: Fail, operation: str
) -> None:
    commands = ("find", "aggregate", "insert", "update", "delete", "ping", "listCollections", "createIndexes")
    await ledger.lots.add_batch([order_lot("o1")])
    before = await contents(ledger)
    async with (
        another(redeem_timeout_seconds=0.5, mongodb=HASTY) as hasty,
        fail(*commands, how={"errorCode": 11600}),
    ):
        with pytest.raises(LedgerUnavailable):
            await OPERATIONS[operation](hasty)
    assert await contents(ledger) == before
