import asyncio
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.errors import AccountExists, IdempotencyConflict, LedgerUnavailable
from rewardpoints.ledger.account_pages import AccountPages
from rewardpoints.ledger.accounts import Accounts
from rewardpoints.ledger.ledger import Ledger
from tests.altered import altered
from tests.contracts.ledgers import (
    ACCOUNT,
    OTHER,
    YEAR,
    an_intent,
    broken,
    contents,
    manual_lot,
    now,
    opening_lot,
    order_lot,
    until,
)


def later_than(instant: datetime) -> bool:
    return now() > instant


async def test_there_is_no_account_without_entries(ledger: Ledger) -> None:
    assert await ledger.accounts.balance(ACCOUNT, now()) is None
    assert await ledger.accounts.history(ACCOUNT) is None
    assert await ledger.accounts.count("shop") == 0
    assert [history async for history in ledger.accounts.summary_histories("shop")] == []


async def test_a_balance_is_what_remains_of_valid_lots(ledger: Ledger) -> None:
    at = now()
    await ledger.lots.add_batch(
        [
            order_lot("valid", 100, valid_until=at + timedelta(milliseconds=1)),
            order_lot("expires at this instant", 10, valid_until=at),
            order_lot("expired", 1000, valid_until=at - YEAR),
            order_lot("spent", 1, remaining=0),
            order_lot("others", 7, account=OTHER),
        ]
    )
    assert await ledger.accounts.balance(ACCOUNT, at) == 100
    assert await ledger.accounts.balance(ACCOUNT, at + timedelta(milliseconds=1)) == 0
    assert await ledger.accounts.balance(OTHER, at) == 7


@pytest.mark.parametrize(
    "lot", [opening_lot(0), order_lot("old", 5, valid_until=now() - YEAR)], ids=["zero", "expired"]
)
async def test_an_account_without_points_has_a_balance_of_zero(ledger: Ledger, lot: Any) -> None:
    await ledger.lots.add_batch([lot])
    assert await ledger.accounts.balance(ACCOUNT, now()) == 0


async def test_accounts_that_look_alike_are_kept_apart(ledger: Ledger) -> None:
    accounts = [
        account_of("shop", name) for name in ("c", "c/summary", "c%2Fsummary", "C", "c ", "ü", "u\u0308", "$gt")
    ]
    await ledger.lots.add_batch([order_lot("o1", 2**place, account=one) for place, one in enumerate(accounts)])
    assert [await ledger.accounts.balance(one, now()) for one in accounts] == [2**place for place in range(8)]
    assert await ledger.accounts.count("shop") == 8


async def test_a_history_holds_all_entries_as_they_are(ledger: Ledger) -> None:
    lots = [order_lot("o1", 60), manual_lot("m1", 50), opening_lot(0)]
    await ledger.lots.add_batch([*lots, order_lot("x", account=OTHER)])
    redemption = await ledger.redemptions.redeem(an_intent(80, coupon=True))
    history = await ledger.accounts.history(ACCOUNT)
    assert history is not None
    assert history.account == ACCOUNT
    assert list(history.redemptions) == [redemption]
    drawn = {draw.lot: draw.points for draw in redemption.draws}
    expected = {lot.id: altered(lot, remaining=lot.points - drawn.get(lot.id, 0)) for lot in lots}
    assert {lot.id: lot for lot in history.lots} == expected


async def test_histories_walk_over_a_tenant_in_account_order(ledger: Ledger) -> None:
    names = sorted(f"c{number}" for number in range(23))
    lots = [
        order_lot(f"o{n}", 5, account=account_of("shop", name)) for name in names for n in range(int(name[1:]) % 4 + 1)
    ]
    # Names around the tenant's range
    strangers = [order_lot("o", account=account_of(tenant, "c")) for tenant in ("sho", "shop0", "shop/", "shop-", "t")]
    await ledger.lots.add_batch([*lots, *strangers])
    for name in names[::5]:
        await ledger.redemptions.redeem(an_intent(3, account=account_of("shop", name)))
    accounts = [account_of("shop", name) for name in names]
    # Pages and snapshots far smaller than the tenant, and smaller than some accounts
    for keys, entries in ((1, 1), (2, 3), (7, 5), (1000, 1000)):
        pages = AccountPages(ledger.database, keys_per_read=keys, entries_per_snapshot=entries)
        reader = Accounts(ledger.database, ledger.tombstones, pages)
        walked = [history async for history in reader.summary_histories("shop")]
        assert [history.account for history in walked] == accounts
        assert [len(history.lots) for history in walked] == [int(name[1:]) % 4 + 1 for name in names]
        assert [len(history.redemptions) for history in walked] == [int(place % 5 == 0) for place in range(23)]
        part = [history.account async for history in reader.summary_histories("shop", skip=4, limit=6)]
        assert part == accounts[4:10]
    assert await ledger.accounts.count("shop") == 23
    assert await broken(ledger) == []


async def test_balances_asked_for_at_once_are_each_its_own(ledger: Ledger) -> None:
    accounts = [account_of(tenant, f"c{number}") for tenant in ("shop", "rival") for number in range(20)]
    at = now()
    soon = at + timedelta(seconds=1)
    for place, account in enumerate(accounts):
        valid = order_lot("valid", place, account=account) if place else opening_lot(account=account)
        await ledger.lots.add_batch([valid, order_lot("soon", 1000, account=account, valid_until=soon)])
    asked = [(account, instant) for account in [*accounts, account_of("shop", "nobody")] for instant in (at, soon)]
    found = await asyncio.gather(*(ledger.accounts.balance(account, instant) for account, instant in asked))
    expected: list[int | None] = [points for place in range(40) for points in (place + 1000, place)]
    assert found == [*expected, None, None]


@pytest.mark.parametrize(("skip", "limit", "expected"), [(0, 0, 0), (3, None, 0), (2, 5, 1), (0, 2, 2)])
async def test_a_page_may_lie_beyond_the_end(ledger: Ledger, skip: int, limit: int | None, expected: int) -> None:
    await ledger.lots.add_batch([order_lot("o", account=account_of("shop", name)) for name in "abc"])
    assert len([one async for one in ledger.accounts.summary_histories("shop", skip=skip, limit=limit)]) == expected


async def test_balances_of_more_lots_than_an_answer_holds_by_default(ledger: Ledger) -> None:
    accounts = [account_of("shop", f"c{number}") for number in range(12)]
    lots = [order_lot(f"o{n}", 1, account=account) for account in accounts for n in range(30)]
    await ledger.lots.add_batch(lots)
    assert await asyncio.gather(*(ledger.accounts.balance(account, now()) for account in accounts)) == [30] * 12


async def test_an_account_with_redemptions_only_exists(ledger: Ledger) -> None:
    await ledger.lots.add_batch([order_lot("o1")])
    await ledger.redemptions.redeem(an_intent(10))
    await ledger.database.lots.delete_many({})  # as in the middle of an erasure
    assert await ledger.accounts.balance(ACCOUNT, now()) == 0
    assert await ledger.accounts.count("shop") == 1
    assert [history.account async for history in ledger.accounts.summary_histories("shop")] == [ACCOUNT]
    with pytest.raises(AccountExists):
        await ledger.accounts.open(opening_lot(5))


async def test_an_account_is_opened_once(ledger: Ledger) -> None:
    await ledger.accounts.open(opening_lot(5))
    before = await contents(ledger)
    with pytest.raises(AccountExists):
        await ledger.accounts.open(opening_lot(7))
    assert await contents(ledger) == before


async def test_an_account_with_points_from_an_order_is_open(ledger: Ledger) -> None:
    await ledger.lots.add_batch([order_lot("o1")])
    before = await contents(ledger)
    with pytest.raises(AccountExists):
        await ledger.accounts.open(opening_lot(7))
    assert await contents(ledger) == before


async def test_of_many_openings_at_once_one_succeeds(ledger: Ledger) -> None:
    results = await asyncio.gather(
        *(ledger.accounts.open(opening_lot(points)) for points in range(1, 13)), return_exceptions=True
    )
    assert results.count(None) == 1
    assert sum(isinstance(result, AccountExists) for result in results) == 11
    assert await ledger.accounts.balance(ACCOUNT, now()) == results.index(None) + 1


async def test_points_are_added_once_for_one_id(ledger: Ledger) -> None:
    lot = manual_lot("m1", 30)
    assert await ledger.accounts.add(lot) is True
    assert await ledger.accounts.add(altered(lot, created_at=now(), recorded_at=now())) is False
    assert await ledger.accounts.balance(ACCOUNT, now()) == 30


async def test_an_id_used_for_other_points_is_refused(ledger: Ledger) -> None:
    await ledger.accounts.add(manual_lot("m1", 30))
    before = await contents(ledger)
    with pytest.raises(IdempotencyConflict):
        await ledger.accounts.add(manual_lot("m1", 31, fingerprint="f2"))
    assert await contents(ledger) == before


async def test_the_same_addition_many_times_at_once_is_one(ledger: Ledger) -> None:
    results = await asyncio.gather(*(ledger.accounts.add(manual_lot("m1", 30)) for _ in range(12)))
    assert sorted(results) == [False] * 11 + [True]
    assert await ledger.accounts.balance(ACCOUNT, now()) == 30


async def test_an_erased_account_is_gone_and_leaves_a_tombstone(ledger: Ledger) -> None:
    before = now()
    await ledger.lots.add_batch([order_lot("o1"), order_lot("o2", account=OTHER)])
    redemption = await ledger.redemptions.redeem(an_intent(10, coupon=True))
    await ledger.accounts.erase(ACCOUNT)
    assert await ledger.accounts.balance(ACCOUNT, now()) is None
    assert await ledger.redemptions.find(redemption.id) is None
    assert await ledger.redemptions.take_due(now() + YEAR, lease_seconds=1, limit=10) == []
    assert await ledger.accounts.balance(OTHER, now()) == 100
    (tombstone,) = await ledger.tombstones.since(None)
    assert tombstone.account == ACCOUNT
    assert before <= tombstone.erased_at <= now()


async def test_erasing_again_moves_the_tombstone_forward(ledger: Ledger) -> None:
    await ledger.accounts.erase(ACCOUNT)
    (first,) = await ledger.tombstones.since(None)
    await until(lambda: now() > first.erased_at)
    await ledger.accounts.erase(ACCOUNT)
    (second,) = await ledger.tombstones.since(None)
    assert second.erased_at > first.erased_at


async def test_a_tombstone_never_moves_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by an erasure that overtakes another, nor with a new primary whose clock is behind."""
    await ledger.tombstones.write(ACCOUNT)
    (first,) = await ledger.tombstones.since(None)

    async def behind() -> datetime:
        return first.erased_at - timedelta(seconds=1)

    monkeypatch.setattr(ledger.database, "server_time", behind)
    assert await ledger.tombstones.write(ACCOUNT) < first.erased_at
    assert await ledger.tombstones.since(None) == [first]


@pytest.fixture
def due_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that would be due later are due before they are asked for."""
    for name in ("INTERRUPTED_AFTER", "LOOK_AGAIN_AFTER"):
        monkeypatch.setattr(f"rewardpoints.ledger.tombstones.{name}", timedelta(seconds=-1))


async def test_an_erasure_is_not_looked_at_before_its_time(ledger: Ledger) -> None:
    await ledger.tombstones.write(ACCOUNT)
    await ledger.accounts.erase(OTHER)
    assert await ledger.accounts.look_again(limit=10) == 0


@pytest.mark.usefixtures("due_at_once")
async def test_an_interrupted_erasure_is_finished(ledger: Ledger) -> None:
    """Whoever began it may have deleted what is newer than its tombstone: so it moves on."""
    await ledger.lots.add_batch([order_lot("o1"), order_lot("o2", account=OTHER)])
    begun = await ledger.tombstones.write(ACCOUNT)
    await until(partial(later_than, begun))
    assert await ledger.accounts.look_again(limit=10) == 1
    tombstone = await ledger.tombstones.find(ACCOUNT)
    assert tombstone is not None
    assert tombstone.erased_at > begun
    assert await ledger.accounts.balance(ACCOUNT, now()) is None
    assert await ledger.accounts.balance(OTHER, now()) == 100
    assert await ledger.accounts.look_again(limit=10) == 1  # at the end of it
    assert await ledger.accounts.look_again(limit=10) == 0


@pytest.mark.usefixtures("due_at_once")
async def test_a_lot_that_came_after_the_erasure_is_found(ledger: Ledger) -> None:
    """From a worker that had lost its partition, and was killed before its look."""
    await ledger.accounts.erase(ACCOUNT)
    await ledger.lots.add_batch([order_lot("o1", created_at=now() - YEAR)])
    assert await ledger.accounts.look_again(limit=10) == 1
    assert await ledger.accounts.balance(ACCOUNT, now()) is None


async def test_erasures_that_wait_for_a_look_are_counted(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    await ledger.tombstones.write(OTHER)
    waiting = await ledger.accounts.erasures_due()
    assert (waiting.count, waiting.oldest_seconds) == (0, 0)
    monkeypatch.setattr("rewardpoints.ledger.tombstones.INTERRUPTED_AFTER", timedelta(seconds=-100))
    await ledger.tombstones.write(ACCOUNT)
    waiting = await ledger.accounts.erasures_due()
    assert waiting.count == 1
    assert 100 <= waiting.oldest_seconds < 400


@pytest.mark.usefixtures("due_at_once")
async def test_what_is_newer_than_an_erasure_stays(ledger: Ledger) -> None:
    await ledger.accounts.erase(ACCOUNT)
    tombstone = await ledger.tombstones.find(ACCOUNT)
    assert tombstone is not None
    await ledger.lots.add_batch([order_lot("o1", created_at=tombstone.erased_at + timedelta(milliseconds=1))])
    assert await ledger.accounts.look_again(limit=10) == 1
    assert await ledger.accounts.look_again(limit=10) == 0
    assert await ledger.tombstones.find(ACCOUNT) == tombstone
    assert await ledger.accounts.balance(ACCOUNT, now()) == 100


@pytest.mark.usefixtures("due_at_once")
async def test_an_erasure_that_was_overtaken_leaves_the_end_to_the_other(ledger: Ledger) -> None:
    first = await ledger.tombstones.write(ACCOUNT)
    await until(partial(later_than, first))
    second = await ledger.tombstones.write(ACCOUNT)
    for erased_at, unfinished in ((first, True), (second, False)):
        await ledger.tombstones.finish(ACCOUNT, erased_at)
        (look,) = await ledger.tombstones.due(limit=10)
        assert (look.tombstone.erased_at, look.unfinished) == (second, unfinished)


async def test_tombstones_are_read_by_their_instant_oldest_first(ledger: Ledger) -> None:
    for account in (OTHER, ACCOUNT):
        await ledger.accounts.erase(account)
        await until(partial(later_than, now()))
    listed = await ledger.tombstones.since(None)
    assert [tombstone.account for tombstone in listed] == [OTHER, ACCOUNT]
    assert await ledger.tombstones.since(listed[1].erased_at) == [listed[1]]
    assert await ledger.tombstones.since(listed[1].erased_at + timedelta(milliseconds=1)) == []


@pytest.mark.parametrize("operation", ["open", "add"])
async def test_an_entry_from_before_the_erasure_is_refused(ledger: Ledger, operation: str) -> None:
    lot = opening_lot(5) if operation == "open" else manual_lot("m1", 5)
    await ledger.accounts.erase(ACCOUNT)
    before = await contents(ledger)
    with pytest.raises(LedgerUnavailable):
        await getattr(ledger.accounts, operation)(lot)
    assert await contents(ledger) == before
    (tombstone,) = await ledger.tombstones.since(None)
    same_millisecond = tombstone.erased_at + timedelta(microseconds=999)
    with pytest.raises(LedgerUnavailable):
        await getattr(ledger.accounts, operation)(altered(lot, recorded_at=same_millisecond))
    assert await contents(ledger) == before
    fresh = tombstone.erased_at + timedelta(milliseconds=1)
    await getattr(ledger.accounts, operation)(altered(lot, created_at=fresh, recorded_at=fresh))
    assert await ledger.accounts.balance(ACCOUNT, now()) == 5
    assert await broken(ledger) == []
