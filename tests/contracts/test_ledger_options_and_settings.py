import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from rewardpoints.domain.errors import InvalidInput, VersionConflict
from rewardpoints.ledger.ledger import Ledger
from tests.contracts.ledgers import LedgerOpener, a_version, an_option, now


async def test_an_option_comes_back_exactly(ledger: Ledger) -> None:
    option = an_option("a/b %ü")
    await ledger.redeem_options.create(option)
    stored = await ledger.redeem_options.find("shop", "a/b %ü")
    assert stored == option
    assert str(stored.content["coupon"]["discountAbsolute"]["amount"]) == "5.10"


async def test_options_are_listed_oldest_first_and_by_tenant(ledger: Ledger) -> None:
    at = now()
    options = [an_option(name, created_at=at + timedelta(seconds=n)) for n, name in enumerate(["z", "y", "x"])]
    for option in reversed(options):
        await ledger.redeem_options.create(option)
    await ledger.redeem_options.create(an_option("z", tenant="other"))
    assert await ledger.redeem_options.all("shop") == options
    assert [option.tenant for option in await ledger.redeem_options.all("other")] == ["other"]
    assert await ledger.redeem_options.all("nobody") == []
    assert await ledger.redeem_options.find("nobody", "z") is None


async def test_an_option_is_replaced_only_in_the_version_it_was_read_in(ledger: Ledger) -> None:
    option = an_option()
    await ledger.redeem_options.create(option)
    second = replace(option, version=2, content={**option.content, "points": 70})
    assert await ledger.redeem_options.replace(second, stored_version=1) is True
    assert await ledger.redeem_options.replace(replace(second, version=3), stored_version=1) is False
    assert await ledger.redeem_options.find("shop", "o1") == second


async def test_of_many_replacements_at_once_one_is_stored(ledger: Ledger) -> None:
    option = an_option()
    await ledger.redeem_options.create(option)
    changes = [replace(option, version=2, content={**option.content, "points": points}) for points in range(1, 9)]
    results = await asyncio.gather(*(ledger.redeem_options.replace(change, stored_version=1) for change in changes))
    assert results.count(True) == 1
    assert await ledger.redeem_options.find("shop", "o1") == changes[results.index(True)]


async def test_what_does_not_exist_is_not_replaced(ledger: Ledger) -> None:
    assert await ledger.redeem_options.replace(an_option(), stored_version=1) is False
    assert await ledger.redeem_options.all("shop") == []


async def test_an_id_is_taken_once(ledger: Ledger) -> None:
    option = an_option()
    await ledger.redeem_options.create(option)
    await ledger.redeem_options.create(option)
    with pytest.raises(VersionConflict):
        await ledger.redeem_options.create(replace(option, content={**option.content, "points": 1}))
    assert await ledger.redeem_options.all("shop") == [option]


async def test_deleting_an_option_again_is_harmless(ledger: Ledger) -> None:
    await ledger.redeem_options.create(an_option())
    await ledger.redeem_options.create(an_option(tenant="other"))
    for _ in range(2):
        await ledger.redeem_options.delete("shop", "o1")
    assert await ledger.redeem_options.find("shop", "o1") is None
    assert await ledger.redeem_options.find("other", "o1") is not None


async def test_broken_unicode_in_an_option_is_refused(ledger: Ledger) -> None:
    option = an_option(content={"coupon": {"name": "\ud800"}})
    with pytest.raises(InvalidInput, match="coupon"):
        await ledger.redeem_options.create(option)
    assert await ledger.redeem_options.all("shop") == []


async def test_settings_versions_come_back_in_order(ledger: Ledger) -> None:
    versions = [a_version(number, factor=f"{number}.10") for number in (1, 2, 3)]
    for version in (versions[0], versions[1], versions[2]):
        assert await ledger.site_settings.append(version) is True
    history = await ledger.site_settings.history("shop", "main")
    assert list(history.versions) == versions
    assert [version.content for version in history.versions] == [version.content for version in versions]
    assert history.versions[1].settings.factor == Decimal("2.10")


async def test_the_sites_of_a_tenant_are_its_own(ledger: Ledger) -> None:
    for tenant, site in (("shop", "main"), ("shop", "eu/1"), ("shop", "eu/1"), ("shop2", "x"), ("sho", "y")):
        await ledger.site_settings.append(a_version(1, tenant=tenant, site_code=site))
    await ledger.site_settings.append(a_version(2))
    assert await ledger.site_settings.site_codes("shop") == ["eu/1", "main"]
    assert await ledger.site_settings.site_codes("nobody") == []


async def test_a_version_number_is_taken_once(ledger: Ledger) -> None:
    results = await asyncio.gather(
        *(ledger.site_settings.append(a_version(1, factor=f"{number}.5")) for number in range(8))
    )
    assert results.count(True) == 1
    history = await ledger.site_settings.history("shop", "main")
    assert [str(version.settings.factor) for version in history.versions] == [f"{results.index(True)}.5"]


async def test_sites_that_look_alike_are_kept_apart(ledger: Ledger) -> None:
    sites = [("shop", "a/b"), ("shop/a", "b"), ("shop", "a%2Fb"), ("shop", "main")]
    for number, (tenant, site_code) in enumerate(sites):
        await ledger.site_settings.append(a_version(1, tenant=tenant, site_code=site_code, factor=f"{number + 1}"))
    histories = await ledger.site_settings.histories([*sites, ("shop", "none")])
    assert [histories[site].versions[0].settings.factor for site in sites] == [1, 2, 3, 4]
    assert list(histories["shop", "none"].versions) == []


async def test_more_sites_than_one_query_takes(ledger: Ledger) -> None:
    for number in (0, 120, 249):
        await ledger.site_settings.append(a_version(1, site_code=f"s{number}"))
    histories = await ledger.site_settings.histories([("shop", f"s{number}") for number in range(250)])
    assert sorted(site for (_, site), history in histories.items() if history.versions) == ["s0", "s120", "s249"]


async def test_a_saved_version_is_seen_by_every_process(ledger: Ledger, another: LedgerOpener) -> None:
    site = ("shop", "main")
    async with another() as second:
        assert list((await second.settings_reader.histories({site: now()}))[site].versions) == []
        for number in (1, 2):
            version = a_version(number)
            await ledger.site_settings.append(version)
            seen = (await second.settings_reader.histories({site: now()}))[site]
            assert seen.latest == version


@pytest.mark.parametrize("times", [1, 3])
async def test_indexes_are_created_any_number_of_times(ledger: Ledger, times: int) -> None:
    listed = [await ledger.ensure_indexes() for _ in range(times)][-1]
    information = await ledger.database.lots.index_information()
    key = [("account", 1), ("open", 1), ("validUntil", 1), ("createdAt", 1), ("_id", 1)]
    assert information["account_open_validUntil_createdAt__id"]["key"] == key
    assert "lots.account_open_validUntil_createdAt__id" in listed
    assert len(set(listed)) == len(listed) > 5
    for collection, _, name in (index.partition(".") for index in listed):
        assert name in await ledger.database.raw[collection].index_information()


async def test_indexes_can_be_created_by_several_processes_at_once(ledger: Ledger, another: LedgerOpener) -> None:
    await ledger.database.raw.drop_collection("lots")
    async with another() as second:
        results = await asyncio.gather(*(one.ensure_indexes() for one in (ledger, second) * 3))
    assert len(set(map(tuple, results))) == 1


async def test_reaping_and_pinging_answer(ledger: Ledger) -> None:
    await ledger.reap()
    await ledger.ping()
