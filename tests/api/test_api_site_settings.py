from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from rewardpoints.domain.site_settings import SettingsVersion
from rewardpoints.settings import SiteSettingsMode, SiteSettingsSettings
from tests.api.harness import Api, Signer, build_app, fake_server, serving

CONTENT: dict[str, Any] = {"orderValueToRewardPointsFactor": 1.5, "codePrefix": "LLS", "note": "kept"}


async def test_saving_and_reading(api: Api) -> None:
    before = await api.call("GET", api.settings_path)
    empty = await api.call("GET", api.settings_path.removesuffix("/couponSettings"))
    saved = await api.call("PUT", api.settings_path, json={"rewardpoints": CONTENT})
    read = await api.call("GET", api.settings_path)
    mixins = await api.call("GET", api.settings_path.removesuffix("/couponSettings"))

    assert (before.status_code, before.json()["status"]) == (404, 404)
    assert (empty.status_code, empty.json()) == (200, {})
    assert (saved.status_code, saved.json()) == (200, {"rewardpoints": CONTENT})
    assert read.json() == {"rewardpoints": CONTENT}
    assert mixins.json() == {"couponSettings": {"rewardpoints": CONTENT}}


async def test_putting_replaces(api: Api) -> None:
    await api.call("PUT", api.settings_path, json={"rewardpoints": CONTENT})
    await api.call("PUT", api.settings_path, json={"rewardpoints": {"orderValueToRewardPointsFactor": 2}})

    read = await api.call("GET", api.settings_path)

    assert read.json() == {"rewardpoints": {"orderValueToRewardPointsFactor": 2}}


async def test_patching_merges_whatever_name_was_used(api: Api) -> None:
    await api.call("PUT", api.settings_path, json={"rewardpoints": {**CONTENT, "enable": True}})
    patch = {"enable": False, "couponPrefix": None, "validityInMonths": 12}

    answer = await api.call("PATCH", api.settings_path, json={"rewardpoints": patch})

    assert answer.status_code == 200
    expected = {"orderValueToRewardPointsFactor": 1.5, "note": "kept", "enabled": False, "validityInMonths": 12}
    assert answer.json() == {"rewardpoints": expected}
    history = await api.server.ports.settings_store.history(api.tenant, "main")
    assert history.latest is not None
    assert history.latest.settings.enabled is False


async def test_every_change_is_a_version_and_no_change_is_none(api: Api) -> None:
    for factor in (1, 1, 2):
        await api.call("PUT", api.settings_path, json={"rewardpoints": {"orderValueToRewardPointsFactor": factor}})
    await api.call("PATCH", api.settings_path, json={"rewardpoints": {}})

    history = await api.server.ports.settings_store.history(api.tenant, "main")

    assert [version.version for version in history.versions] == [1, 2]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"rewardpoints": None},
        {"rewardpoints": []},
        {"rewardpoints": {"orderValueToRewardPointsFactor": "1"}},
        {"rewardpoints": {"orderValueToRewardPointsFactor": -1}},
        {"rewardpoints": {"orderValueToRewardPointsFactor": 1, "validityInMonths": 0}},
        {"rewardpoints": {"orderValueToRewardPointsFactor": 1, "enabled": True, "enable": False}},
        {"rewardpoints": {"orderValueToRewardPointsFactor": 1, "codePrefix": "a b"}},
        [],
        None,
    ],
)
async def test_settings_that_break_a_rule_are_refused(api: Api, method: str, body: object) -> None:
    answer = await api.call(method, api.settings_path, json=body)

    assert answer.status_code == 400
    assert (await api.call("GET", api.settings_path)).status_code == 404


async def test_saving_that_is_overtaken_is_tried_again(api: Api) -> None:
    real = api.server.ports.settings_store.append
    tries = 0

    async def racing(version: SettingsVersion) -> bool:
        nonlocal tries
        tries += 1
        return await real(version) if tries > 1 else False

    api.server.faults.plant("settings_store.append", racing)

    answer = await api.call("PUT", api.settings_path, json={"rewardpoints": CONTENT})

    assert (answer.status_code, tries) == (200, 2)


async def test_saving_that_is_overtaken_forever_gives_up(api: Api) -> None:
    async def never(_version: SettingsVersion) -> bool:
        return False

    api.server.faults.plant("settings_store.append", never)

    answer = await api.call("PUT", api.settings_path, json={"rewardpoints": CONTENT})

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


async def test_sites_have_settings_of_their_own(api: Api) -> None:
    await api.call("PUT", api.settings_path.replace("main", "a%2Fb"), json={"rewardpoints": CONTENT})

    assert (await api.call("GET", api.settings_path)).status_code == 404
    assert (await api.server.ports.settings_store.history(api.tenant, "a/b")).latest is not None


async def test_settings_take_effect_after_the_cache_time(signer: Signer, client: httpx.AsyncClient) -> None:
    server = fake_server(signer)
    async with serving(server, build_app(server, site_settings=SiteSettingsSettings(cache_seconds=900))):
        api = Api(server, client, "shop")
        earliest = server.clock()
        await api.call("PUT", api.settings_path, json={"rewardpoints": CONTENT})
        latest = server.clock()

    version = (await server.ports.settings_store.history("shop", "main")).latest
    assert version is not None
    assert earliest <= version.saved_at <= latest
    assert version.effective_at - version.saved_at == timedelta(seconds=900)


async def test_remote_settings_are_not_saved_here(signer: Signer, client: httpx.AsyncClient) -> None:
    server = fake_server(signer)
    remote = SiteSettingsSettings(
        mode=SiteSettingsMode.REMOTE, url="http://settings.example", sites=("shop/main",), token=SecretStr("x")
    )
    async with serving(server, build_app(server, site_settings=remote)):
        api = Api(server, client, "shop")
        answers = [
            await api.call(method, api.settings_path, json={"rewardpoints": CONTENT}) for method in ("PUT", "PATCH")
        ]
        read = await api.call("GET", api.settings_path)

    assert [answer.status_code for answer in answers] == [409, 409]
    assert answers[0].json()["details"][0]["message"] == "The settings are managed by the Site Settings Service"
    assert read.status_code == 404
