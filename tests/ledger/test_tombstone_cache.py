import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.domain.ports import Tombstone
from rewardpoints.ledger.tombstones import FRESH_SECONDS, TombstoneCache

NOON = datetime(2025, 6, 10, 12, tzinfo=UTC)
A, B, C = (account_of("shop", name) for name in "abc")


class Store:
    def __init__(self) -> None:
        self.tombstones: list[Tombstone] = []
        self.asked: list[datetime | None] = []
        self.down = False

    async def since(self, instant: datetime | None) -> Sequence[Tombstone]:
        self.asked.append(instant)
        if self.down:
            raise LedgerUnavailable("down")
        return [one for one in self.tombstones if instant is None or one.erased_at >= instant]


def erased(account: str, seconds: float) -> Tombstone:
    return Tombstone(account_of("shop", account), NOON + timedelta(seconds=seconds))


async def test_all_are_read_first_and_then_only_what_is_new() -> None:
    store = Store()
    cache = TombstoneCache(store)
    assert await cache.refresh() == []
    store.tombstones = [erased("a", 0), erased("b", 100)]
    assert await cache.refresh() == store.tombstones
    store.tombstones.append(erased("c", 200))
    assert await cache.refresh() == [erased("b", 100), erased("c", 200)]
    assert store.asked == [None, None, NOON + timedelta(seconds=40)]
    assert [cache.erased_at(account) for account in (A, B, C)] == [one.erased_at for one in store.tombstones]


async def test_one_that_becomes_visible_late_is_seen() -> None:
    store = Store()
    cache = TombstoneCache(store)
    store.tombstones = [erased("b", 100)]
    await cache.refresh()
    store.tombstones.append(erased("a", 100 - 60))
    assert erased("a", 40) in await cache.refresh()
    assert cache.erased_at(A) == NOON + timedelta(seconds=40)


async def test_an_account_erased_again_has_its_later_instant() -> None:
    store = Store()
    cache = TombstoneCache(store)
    store.tombstones = [erased("a", 0)]
    await cache.refresh()
    store.tombstones = [erased("a", 5)]
    await cache.refresh()
    assert cache.erased_at(A) == NOON + timedelta(seconds=5)


async def test_a_look_that_fails_changes_nothing() -> None:
    store = Store()
    cache = TombstoneCache(store)
    store.tombstones = [erased("a", 0)]
    await cache.refresh()
    store.tombstones.append(erased("b", 100))
    store.down = True
    with pytest.raises(LedgerUnavailable):
        await cache.refresh()
    store.down = False
    assert erased("b", 100) in await cache.refresh()
    assert store.asked[1] == store.asked[2]


async def test_who_was_not_erased_has_no_instant() -> None:
    assert TombstoneCache(Store()).erased_at(A) is None


async def test_what_was_read_counts_as_known_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    store, now = Store(), [1000.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    cache = TombstoneCache(store)
    store.tombstones = [erased("a", 0)]
    await cache.ensure_fresh()
    assert cache.erased_at(A) == NOON
    now[0] += FRESH_SECONDS
    await cache.ensure_fresh()
    assert len(store.asked) == 1
    now[0] += 0.1
    store.down = True
    for _ in range(2):  # what could not be read is not known
        with pytest.raises(LedgerUnavailable):
            await cache.ensure_fresh()
    store.down = False
    await cache.ensure_fresh()
    await cache.ensure_fresh()
    assert len(store.asked) == 4
