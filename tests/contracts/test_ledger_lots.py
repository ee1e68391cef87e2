from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from rewardpoints.domain.earning import RULE
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.ports import Tombstone
from rewardpoints.ledger.ledger import Ledger
from tests.altered import altered
from tests.contracts.ledgers import ACCOUNT, OTHER, LedgerOpener, an_intent, broken, contents, now, order_lot


async def stored_lots(ledger: Ledger) -> list[Lot]:
    history = await ledger.accounts.history(ACCOUNT)
    return list(history.lots) if history else []


async def test_a_batch_is_added_once_however_often_it_comes(ledger: Ledger) -> None:
    lots = [order_lot(f"o{number}", 10 + number) for number in range(20)]
    first = await ledger.lots.add_batch(lots)
    again = await ledger.lots.add_batch([*lots[5:], order_lot("new", 7)])
    assert first.added == list(range(20))
    assert (first.already_there, first.differing, first.rejected) == ([], [], {})
    assert again.added == [15]
    assert again.already_there == list(range(15))
    assert again.differing == []
    assert sorted(lot.id for lot in await stored_lots(ledger)) == sorted(
        [*(lot.id for lot in lots), order_lot("new").id]
    )
    assert await broken(ledger) == []


async def test_an_empty_batch_is_no_work(ledger: Ledger) -> None:
    assert (await ledger.lots.add_batch([])).added == []


async def test_twice_in_one_batch_is_once_in_the_ledger(ledger: Ledger) -> None:
    lot = order_lot("o1")
    outcome = await ledger.lots.add_batch([lot, lot])
    assert sorted([*outcome.added, *outcome.already_there]) == [0, 1]
    assert len(outcome.added) == 1
    assert await ledger.accounts.balance(ACCOUNT, now()) == 100


async def test_a_lot_comes_back_as_it_was_added(ledger: Ledger) -> None:
    lot = order_lot("o1", 333)
    await ledger.lots.add_batch([lot])
    (stored,) = await stored_lots(ledger)
    assert stored == lot
    assert (stored.recorded_at, stored.origin, stored.fingerprint) == (lot.recorded_at, lot.origin, None)
    assert stored.earned is not None
    assert str(stored.earned.value) == "333.92"
    assert str(stored.earned.factor) == "1.0"


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"points": 101, "remaining": 101}, True),
        ({"created_at": now() - timedelta(days=2)}, True),
        ({"valid_until": now() + timedelta(days=2)}, True),
        ({"description": "another", "site_code": "other", "origin": None, "recorded_at": now()}, False),
    ],
)
async def test_a_duplicate_that_grants_something_else_is_told_and_changes_nothing(
    ledger: Ledger, changes: dict[str, Any], *, differs: bool
) -> None:
    lot = order_lot("o1")
    await ledger.lots.add_batch([order_lot("o0"), lot])
    before = await contents(ledger)
    other = altered(lot, **changes)
    compared = await ledger.lots.add_batch([other])
    blind = await ledger.lots.add_batch([other], compare=False)
    assert compared.already_there == blind.already_there == [0]
    assert compared.differing == ([0] if differs else [])
    assert blind.differing == []
    assert await contents(ledger) == before


async def test_another_rule_or_settings_version_is_a_difference(ledger: Ledger) -> None:
    lot = order_lot("o1")
    assert lot.earned is not None
    assert lot.earned.rule == RULE
    await ledger.lots.add_batch([lot])
    outcome = await ledger.lots.add_batch([altered(lot, earned=altered(lot.earned, settings_version=2))])
    assert outcome.differing == [0]


async def test_many_duplicates_are_compared(ledger: Ledger) -> None:
    lots = [order_lot(f"o{number}") for number in range(250)]
    await ledger.lots.add_batch(lots)
    changed = [altered(lot, points=1, remaining=1) if place % 50 == 0 else lot for place, lot in enumerate(lots)]
    assert (await ledger.lots.add_batch(changed)).differing == [0, 50, 100, 150, 200]


@pytest.mark.parametrize("place", [0, 4, 9])
async def test_what_cannot_be_encoded_keeps_no_other_lot_out(ledger: Ledger, place: int) -> None:
    lots = [order_lot(f"o{number}", 10) for number in range(10)]
    lots[place] = altered(lots[place], description="broken \ud800")
    outcome = await ledger.lots.add_batch(lots)
    assert list(outcome.rejected) == [place]
    assert "surrogates not allowed" in outcome.rejected[place]
    assert outcome.added == [number for number in range(10) if number != place]
    assert await ledger.accounts.balance(ACCOUNT, now()) == 90


async def test_several_unusable_lots_among_duplicates_and_new_ones(ledger: Ledger) -> None:
    lots = [order_lot(f"o{number}", 10) for number in range(12)]
    await ledger.lots.add_batch(lots[:4])
    lots[1] = altered(lots[1], description="\ud800")
    lots[5] = altered(lots[5], points=2**70, remaining=2**70)  # no integer of the server's
    lots[6] = altered(lots[6], remaining=-1)  # refused by the validator
    lots[7] = altered(lots[7], description="x" * 17_000_000)  # larger than a document may be
    outcome = await ledger.lots.add_batch(lots)
    assert sorted(outcome.rejected) == [1, 5, 6, 7]
    assert all(0 < len(reason) <= 300 for reason in outcome.rejected.values())
    assert outcome.already_there == [0, 2, 3]
    assert outcome.added == [4, 8, 9, 10, 11]
    assert await broken(ledger) == []


@pytest.mark.parametrize("changes", [{"remaining": 101}, {"remaining": -1}], ids=str)
async def test_the_server_itself_refuses_an_impossible_lot(ledger: Ledger, changes: dict[str, Any]) -> None:
    outcome = await ledger.lots.add_batch([altered(order_lot("o1"), **changes)])
    assert list(outcome.rejected) == [0]
    assert await contents(ledger) == {"lots": [], "redemptions": [], "tombstones": []}


async def test_what_a_batch_brought_back_of_an_erased_customer_is_deleted(ledger: Ledger) -> None:
    erased_at = now() - timedelta(minutes=10)
    before = order_lot("before", 1, created_at=erased_at - timedelta(seconds=1))
    same = order_lot("same", 2, created_at=erased_at)
    after = order_lot("after", 4, created_at=erased_at + timedelta(milliseconds=1))
    others = order_lot("others", 8, account=OTHER, created_at=erased_at - timedelta(days=1))
    batch = [before, same, after, others]
    await ledger.lots.add_batch(batch)
    tombstones = [Tombstone(ACCOUNT, erased_at)]
    assert await ledger.lots.delete_erased(batch, tombstones) == 2
    assert await ledger.lots.delete_erased(batch, tombstones) == 0
    assert await ledger.accounts.balance(ACCOUNT, now()) == 4
    assert await ledger.accounts.balance(OTHER, now()) == 8


async def test_a_lot_that_was_drawn_on_before_it_could_be_deleted_takes_its_redemption_with_it(ledger: Ledger) -> None:
    """An order in flight comes back after the erasure, and is spent before the worker looks for tombstones."""
    await ledger.accounts.erase(ACCOUNT)
    (tombstone,) = await ledger.tombstones.since(None)
    before = order_lot("before", 10, created_at=tombstone.erased_at)
    await ledger.lots.add_batch([before])
    await ledger.redemptions.redeem(an_intent(4, coupon=True))
    assert await ledger.lots.delete_erased([before], [tombstone]) == 1
    assert await ledger.accounts.balance(ACCOUNT, now()) is None
    assert await ledger.accounts.history(ACCOUNT) is None
    assert await broken(ledger) == []


async def test_a_lot_that_another_deleted_first_has_nothing_erased_again(
    ledger: Ledger, another: LedgerOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers hold the same batch; the customer came back meanwhile, and what is theirs now is not touched."""
    await ledger.accounts.erase(ACCOUNT)
    (tombstone,) = await ledger.tombstones.since(None)
    before = order_lot("before", 10, created_at=tombstone.erased_at)
    after = order_lot("after", 7, created_at=tombstone.erased_at + timedelta(milliseconds=1))
    await ledger.lots.add_batch([before, after])
    look = ledger.lots._find
    async with another() as second:

        async def overtaken(lot_ids: Sequence[str], fields: Mapping[str, int] | None = None) -> Any:
            monkeypatch.undo()
            found = await look(lot_ids, fields)
            assert await second.lots.delete_erased([before], [tombstone]) == 1
            return found

        monkeypatch.setattr(ledger.lots, "_find", overtaken)
        await ledger.lots.delete_erased([before], [tombstone])
    assert await ledger.accounts.balance(ACCOUNT, tombstone.erased_at) == 7
    assert await ledger.tombstones.since(None) == [tombstone]


@pytest.mark.parametrize("compare", [True, False])
async def test_after_a_batch_that_was_there_the_next_is_looked_for_first(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, *, compare: bool
) -> None:
    inserted: list[int] = []
    insert = ledger.lots._insert

    async def counted(documents: Sequence[Any], *rest: Any) -> None:
        inserted.append(len(documents))
        await insert(documents, *rest)

    monkeypatch.setattr(ledger.lots, "_insert", counted)
    lots = [order_lot(f"o{number}", 10 + number) for number in range(120)]
    for _ in range(3):
        again = await ledger.lots.add_batch(lots, compare=compare)
    assert (again.added, again.already_there, again.differing) == ([], list(range(120)), [])
    assert inserted == [120, 120], "what the second try found there, the third does not insert"

    other, new = order_lot("o7", 1), order_lot("new", 5)
    mixed = await ledger.lots.add_batch([*lots[:60], other, new, new, altered(new, points=6)], compare=compare)
    assert mixed.added == [61]
    assert mixed.already_there == [*range(61), 62, 63]
    assert mixed.differing == ([60, 63] if compare else [])
    assert inserted[2:] == [3]

    fresh = await ledger.lots.add_batch([order_lot(f"f{number}") for number in range(9)], compare=compare)
    assert fresh.added == list(range(9))
    assert (await ledger.lots.add_batch(lots[:2], compare=compare)).already_there == [0, 1]
    assert inserted[3:] == [9, 2], "after a batch that was new nothing is looked for"
    assert {lot.id: lot.points for lot in await stored_lots(ledger) if lot.id in {other.id, new.id}} == {
        other.id: 17,
        new.id: 5,
    }


async def test_nothing_is_deleted_without_a_tombstone(ledger: Ledger) -> None:
    lot = order_lot("o1")
    await ledger.lots.add_batch([lot])
    assert await ledger.lots.delete_erased([lot], []) == 0
    assert await ledger.lots.delete_erased([lot], [Tombstone(OTHER, now())]) == 0
    assert await ledger.accounts.balance(ACCOUNT, now()) == 100
