import asyncio
import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from rewardpoints.domain.errors import LedgerBusy, LedgerUnavailable, NoAccount, RewardPointsError, TooFewPoints
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.tombstones import TombstoneCache
from tests.contracts.ledgers import (
    ACCOUNT,
    LedgerOpener,
    an_intent,
    broken,
    contents,
    lot_back,
    manual_lot,
    now,
    opening_lot,
    order_lot,
)


async def test_fifty_redemptions_at_once_where_points_suffice_for_seven(ledger: Ledger, another: LedgerOpener) -> None:
    await ledger.lots.add_batch([order_lot(f"o{number}", 25) for number in range(15)])  # 375 points
    async with another() as second:
        results = await asyncio.gather(
            *(one.redemptions.redeem(an_intent(50, coupon=True)) for one in (ledger, second) * 25),
            return_exceptions=True,
        )
    made = [result for result in results if isinstance(result, Redemption)]
    refused = [result for result in results if isinstance(result, TooFewPoints)]
    assert (len(made), len(refused)) == (7, 43)
    assert len({one.coupon.code for one in made if one.coupon}) == 7
    assert await ledger.accounts.balance(ACCOUNT, now()) == 25
    assert await broken(ledger) == []


async def test_one_redemption_sent_twenty_times_at_once_is_one(ledger: Ledger, another: LedgerOpener) -> None:
    await ledger.lots.add_batch([order_lot("o1", 60)])
    async with another() as second:
        results = await asyncio.gather(
            *(one.redemptions.redeem(an_intent(50, "key", coupon=True)) for one in (ledger, second) * 10)
        )
    assert len({one.coupon.code for one in results if one.coupon}) == 1
    assert len({one.created_at for one in results}) == 1
    assert await ledger.accounts.balance(ACCOUNT, now()) == 10
    assert await broken(ledger) == []


async def test_redemptions_of_one_process_do_not_collide(ledger: Ledger, another: LedgerOpener) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    await asyncio.gather(*(ledger.redemptions.redeem(an_intent(5)) for _ in range(20)))
    async with another() as second:
        assert await second.accounts.balance(ACCOUNT, now()) == 0
    assert await broken(ledger) == []


async def test_more_waiting_redemptions_than_may_wait_are_refused(ledger: Ledger, another: LedgerOpener) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    async with another(redeem_queue_per_account=3) as small:
        results = await asyncio.gather(
            *(small.redemptions.redeem(an_intent(1)) for _ in range(10)), return_exceptions=True
        )
    kinds = Counter(type(result) for result in results)
    assert kinds == {Redemption: 4, LedgerBusy: 6}
    assert await ledger.accounts.balance(ACCOUNT, now()) == 96


async def test_a_redemption_in_the_way_for_too_long_changes_nothing(ledger: Ledger, another: LedgerOpener) -> None:
    lot = order_lot("o1", 100)
    await ledger.lots.add_batch([lot])
    before = await contents(ledger)
    async with another(redeem_timeout_seconds=0.4) as hasty:
        await asyncio.gather(*(hasty.accounts.balance(ACCOUNT, now()) for _ in range(3)))  # its connections are made
        async with ledger.database.transaction() as session:
            await ledger.database.lots.update_one({"_id": lot.id}, {"$set": {"siteCode": "held"}}, session=session)
            began = asyncio.get_running_loop().time()
            results = await asyncio.gather(
                *(hasty.redemptions.redeem(an_intent(10)) for _ in range(3)), return_exceptions=True
            )
            took = asyncio.get_running_loop().time() - began
        # Out of time between two attempts, or during one; a slow machine decides which.
        assert all(
            isinstance(result, LedgerBusy) or (isinstance(result, LedgerUnavailable) and not result.outcome_unknown)
            for result in results
        ), results
        assert took < 3, "waiting in the queue counts towards the time-out"
        assert await contents(ledger) == before
        await hasty.redemptions.redeem(an_intent(10))
    assert await broken(ledger) == []


async def test_a_caller_with_less_time_is_told_in_time_that_nothing_changed(
    ledger: Ledger, another: LedgerOpener
) -> None:
    """Its own patience must not end first: it could not tell a redemption that waits from a commit under way."""
    lot = order_lot("o1", 100)
    await ledger.lots.add_batch([lot])
    before = await contents(ledger)
    async with another() as second:
        await asyncio.gather(*(second.accounts.balance(ACCOUNT, now()) for _ in range(3)))  # its connections are made
        async with ledger.database.transaction() as session:
            await ledger.database.lots.update_one({"_id": lot.id}, {"$set": {"siteCode": "held"}}, session=session)
            results = await asyncio.gather(
                *(second.redemptions.redeem(an_intent(10), within_seconds=1.4) for _ in range(3)),
                second.redemptions.redeem(an_intent(10), within_seconds=-1),
                return_exceptions=True,
            )
        assert all(
            isinstance(result, LedgerBusy) or (isinstance(result, LedgerUnavailable) and not result.outcome_unknown)
            for result in results
        ), results
        assert await contents(ledger) == before
        await second.redemptions.redeem(an_intent(10), within_seconds=30)
    assert await broken(ledger) == []


async def test_orders_arriving_during_redemptions(ledger: Ledger, another: LedgerOpener) -> None:
    await ledger.lots.add_batch([order_lot("o", 10)])
    async with another() as worker:
        results = await asyncio.gather(
            *(worker.lots.add_batch([order_lot(f"o{number}", 10), order_lot("o", 10)]) for number in range(10)),
            *(ledger.redemptions.redeem(an_intent(10)) for _ in range(15)),
            return_exceptions=True,
        )
    spent = sum(10 for result in results if isinstance(result, Redemption))
    assert not [result for result in results if isinstance(result, Exception) and not isinstance(result, TooFewPoints)]
    assert await ledger.accounts.balance(ACCOUNT, now()) == 110 - spent
    assert await broken(ledger) == []


@pytest.mark.parametrize("operation", ["open", "add"])
async def test_an_entry_by_hand_that_an_erasure_overtakes_is_refused(
    ledger: Ledger, another: LedgerOpener, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """It looked at the account before the erasure, and would come after it."""
    lot = opening_lot(5) if operation == "open" else manual_lot("m1", 5)
    guard = ledger.accounts._guard
    async with another() as second:

        async def overtaken(*arguments: Any) -> None:
            monkeypatch.undo()
            await second.accounts.erase(ACCOUNT)
            await guard(*arguments)

        monkeypatch.setattr(ledger.accounts, "_guard", overtaken)
        with pytest.raises(LedgerUnavailable, match="erased"):
            await getattr(ledger.accounts, operation)(lot)
    assert await ledger.accounts.balance(ACCOUNT, now()) is None
    assert await broken(ledger) == []


@pytest.mark.parametrize("seed", range(4))
async def test_an_erasure_raced_by_everything_leaves_nothing_from_before_it(
    ledger: Ledger, another: LedgerOpener, seed: int
) -> None:
    await ledger.lots.add_batch([order_lot(f"o{number}", 20) for number in range(8)])
    redemptions = [await ledger.redemptions.redeem(an_intent(5, coupon=True)) for _ in range(6)]
    late_batch = [order_lot(f"late{number}", 20) for number in range(5)]
    await asyncio.gather(*(ledger.redemptions.mark_published(one.id) for one in redemptions[:3]))
    async with another() as second:
        operations = [
            *(second.redemptions.charge_back(one, lot_back(one), reason="raced") for one in redemptions),
            *(second.redemptions.redeem(an_intent(5, coupon=True)) for _ in range(6)),
            *(second.accounts.add(manual_lot(f"m{number}")) for number in range(4)),
            second.accounts.open(opening_lot(5)),
            second.lots.add_batch(late_batch),
            ledger.accounts.erase(ACCOUNT),
        ]
        random.Random(seed).shuffle(operations)
        results = await asyncio.gather(*operations, return_exceptions=True)
        # What the worker does after each batch, before it commits offsets
        cache = TombstoneCache(second.tombstones)
        await second.lots.delete_erased(late_batch, await cache.refresh())
    assert not [one for one in results if isinstance(one, BaseException) and not isinstance(one, RewardPointsError)]
    assert await broken(ledger) == []
    (tombstone,) = await ledger.tombstones.since(None)
    history = await ledger.accounts.history(ACCOUNT)
    for lot in history.lots if history else ():
        assert lot.recorded_at > tombstone.erased_at


async def test_an_erased_customer_starts_afresh(ledger: Ledger) -> None:
    await ledger.lots.add_batch([order_lot("o1", 20)])
    await ledger.accounts.erase(ACCOUNT)
    with pytest.raises(NoAccount):
        await ledger.redemptions.redeem(an_intent(1))
    (tombstone,) = await ledger.tombstones.since(None)
    fresh = order_lot("o2", 30, created_at=tombstone.erased_at + timedelta(milliseconds=1))
    await ledger.lots.add_batch([fresh])
    assert await ledger.lots.delete_erased([fresh], [tombstone]) == 0
    await ledger.redemptions.redeem(an_intent(30))
    assert await broken(ledger) == []


async def test_two_erasures_at_once(ledger: Ledger, another: LedgerOpener) -> None:
    await ledger.lots.add_batch([order_lot(f"o{number}", 20) for number in range(5)])
    async with another() as second:
        results = await asyncio.gather(
            *(one.accounts.erase(ACCOUNT) for one in (ledger, second) * 4), return_exceptions=True
        )
    assert [one for one in results if not isinstance(one, LedgerUnavailable | None)] == []
    await ledger.accounts.erase(ACCOUNT)
    assert await ledger.accounts.history(ACCOUNT) is None
    assert len(await ledger.tombstones.since(None)) == 1
