import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

import pytest

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.domain.ports import SiteKey
from rewardpoints.domain.site_settings import SettingsHistory, SettingsVersion
from rewardpoints.ledger.settings_cache import SettingsCache
from tests.contracts.ledgers import until
from tests.domain.builders import a_version

NOON = datetime(2025, 6, 10, 12, tzinfo=UTC)
MAIN, OTHER = ("shop", "main"), ("shop", "other")
CACHE = 900.0


class Store:
    """Versions in memory; notes every read, and can hold reads back or fail them."""

    def __init__(self) -> None:
        self.versions: dict[SiteKey, list[SettingsVersion]] = defaultdict(list)
        self.reads: list[frozenset[SiteKey]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.down = False

    async def histories(self, sites: Collection[SiteKey]) -> Mapping[SiteKey, SettingsHistory]:
        self.reads.append(frozenset(sites))
        seen = {site: SettingsHistory(tuple(self.versions[site])) for site in sites}
        await self.gate.wait()
        if self.down:
            raise LedgerUnavailable("down")
        return seen


class Time:
    def __init__(self) -> None:
        self.instant = NOON

    def __call__(self) -> datetime:
        return self.instant

    def pass_seconds(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)


@pytest.fixture
def store() -> Store:
    made = Store()
    made.versions[MAIN].append(a_version(1, NOON - timedelta(days=30)))
    return made


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def cache(store: Store, time: Time) -> SettingsCache:
    return SettingsCache(store, time, cache_seconds=CACHE)


def count(histories: Mapping[SiteKey, SettingsHistory], site: SiteKey = MAIN) -> int:
    return len(histories[site].versions)


async def test_a_list_is_read_once_within_the_cache_time(cache: SettingsCache, store: Store, time: Time) -> None:
    for _ in range(4):
        assert count(await cache.histories({MAIN: time()})) == 1
        time.pass_seconds(200)
    assert len(store.reads) == 1


async def test_a_list_too_old_for_the_instant_is_read_again(cache: SettingsCache, store: Store, time: Time) -> None:
    await cache.histories({MAIN: time()})
    store.versions[MAIN].append(a_version(2, NOON + timedelta(seconds=1 + CACHE)))
    time.pass_seconds(1 + CACHE)
    assert count(await cache.histories({MAIN: time()})) == 2


async def test_an_old_order_is_judged_by_the_list_at_hand(cache: SettingsCache, store: Store, time: Time) -> None:
    await cache.histories({MAIN: time()})
    time.pass_seconds(100 * CACHE)
    await cache.histories({MAIN: NOON - timedelta(days=3)})
    assert len(store.reads) == 1


async def test_cached_and_fresh_readers_find_the_same_version_in_force(store: Store, time: Time) -> None:
    """A version saved at any instant after a read is effective only when the cached list no longer counts."""
    for delay in range(0, 2000, 50):
        time.instant = NOON
        cached = SettingsCache(store, time, cache_seconds=CACHE)
        await cached.histories({MAIN: time()})
        saved_at = NOON + timedelta(seconds=delay)
        store.versions[MAIN][1:] = [a_version(2, saved_at + timedelta(seconds=CACHE))]
        for later in range(delay, 3000, 100):
            time.instant = NOON + timedelta(seconds=later)
            fresh = SettingsCache(store, time, cache_seconds=CACHE)
            for instant in (time(), time() - timedelta(seconds=90)):
                both = [(await one.histories({MAIN: instant}))[MAIN].in_force_at(instant) for one in (cached, fresh)]
                assert both[0] == both[1]


async def test_without_cache_time_every_present_instant_is_read(store: Store, time: Time) -> None:
    cache = SettingsCache(store, time, cache_seconds=0)
    for expected in (1, 2, 3):
        assert count(await cache.histories({MAIN: time()})) == expected
        time.pass_seconds(0.001)
        store.versions[MAIN].append(a_version(expected + 1, time()))
    await cache.histories({MAIN: NOON})
    assert len(store.reads) == 3


async def test_no_settings_is_never_remembered(cache: SettingsCache, store: Store, time: Time) -> None:
    assert count(await cache.histories({OTHER: time()}), OTHER) == 0
    assert count(await cache.histories({OTHER: time()}), OTHER) == 0
    store.versions[OTHER].append(a_version(1, NOON))
    assert count(await cache.histories({OTHER: time()}), OTHER) == 1
    assert len(store.reads) == 3


async def test_all_missing_sites_are_read_at_once(cache: SettingsCache, store: Store, time: Time) -> None:
    await cache.histories({MAIN: time()})
    needed = {("shop", f"s{number}"): time() for number in range(20)}
    histories = await cache.histories({MAIN: time(), **needed})
    assert set(histories) == {MAIN, *needed}
    assert store.reads == [frozenset({MAIN}), frozenset(needed)]


async def test_calls_at_one_time_share_reads(cache: SettingsCache, store: Store, time: Time) -> None:
    store.gate.clear()
    calls = [asyncio.create_task(cache.histories({MAIN: time(), OTHER: time()})) for _ in range(30)]
    await until(lambda: bool(store.reads))
    store.gate.set()
    histories = await asyncio.gather(*calls)
    assert {count(one) for one in histories} == {1}
    # MAIN once; OTHER, which is empty, once more for those who came while the first read was under way
    assert sum(MAIN in read for read in store.reads) == 1
    assert sum(OTHER in read for read in store.reads) <= 2


async def test_a_caller_that_gives_up_takes_nothing_from_the_others(
    cache: SettingsCache, store: Store, time: Time
) -> None:
    store.gate.clear()
    first, second = (asyncio.create_task(cache.histories({MAIN: time()})) for _ in range(2))
    await until(lambda: bool(store.reads))
    first.cancel()
    store.gate.set()
    assert count(await second) == 1
    with pytest.raises(asyncio.CancelledError):
        await first
    assert len(store.reads) == 1


async def test_a_store_that_is_down_is_told_and_asked_again(cache: SettingsCache, store: Store, time: Time) -> None:
    store.down = True
    results = await asyncio.gather(*(cache.histories({MAIN: time()}) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [LedgerUnavailable] * 5
    assert len(store.reads) == 1
    store.down = False
    assert count(await cache.histories({MAIN: time()})) == 1


async def test_what_is_cached_is_served_while_the_store_is_down(cache: SettingsCache, store: Store, time: Time) -> None:
    await cache.histories({MAIN: time()})
    store.down = True
    time.pass_seconds(CACHE / 2)
    assert count(await cache.histories({MAIN: time()})) == 1
    time.pass_seconds(CACHE)
    with pytest.raises(LedgerUnavailable):
        await cache.histories({MAIN: time()})


async def test_an_instant_ahead_of_everything_is_judged_by_a_new_list(
    cache: SettingsCache, store: Store, time: Time
) -> None:
    ahead = NOON + timedelta(days=1)
    for expected in (1, 2):
        assert count(await cache.histories({MAIN: ahead})) == 1
        assert len(store.reads) == expected


async def test_the_number_of_cached_sites_is_bounded(store: Store, time: Time) -> None:
    sites = [("shop", f"s{number}") for number in range(5)]
    for site in sites:
        store.versions[site].append(a_version(1, NOON))
    cache = SettingsCache(store, time, cache_seconds=CACHE, most_sites=3)
    assert len(await cache.histories(dict.fromkeys(sites, NOON))) == 5
    for site in sites[:3]:
        await cache.histories({site: NOON})
    store.reads.clear()
    await cache.histories({sites[0]: NOON})
    await cache.histories({sites[3]: NOON})  # drops the one not used for longest
    await cache.histories({sites[0]: NOON})
    assert store.reads == [frozenset({sites[3]})]
    await cache.histories({sites[1]: NOON})
    assert len(store.reads) == 2


async def test_nothing_needed_is_no_read(cache: SettingsCache, store: Store) -> None:
    assert await cache.histories({}) == {}
    assert store.reads == []
