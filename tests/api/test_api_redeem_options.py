import re
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from rewardpoints.domain.redeem_options import RedeemOption
from tests.api.harness import OPTION, Api

PERCENT = {"name": "10 %", "discountType": "PERCENT", "discountPercentage": 10}


def changed(**coupon: Any) -> dict[str, Any]:
    return {**OPTION, "coupon": {**OPTION["coupon"], **coupon}}


async def test_creating_answers_the_whole_list(api: Api) -> None:
    first = await api.call("POST", api.options_path, json=OPTION)
    second = await api.call("POST", api.options_path, json={**OPTION, "name": "another", "coupon": PERCENT})

    assert [first.status_code, second.status_code] == [200, 200]
    assert [option["name"] for option in second.json()] == [OPTION["name"], "another"]
    option = second.json()[0]
    assert {name: option[name] for name in OPTION} == OPTION
    assert option["metadata"]["version"] == 1
    for name in ("createdAt", "modifiedAt"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", option["metadata"][name])
    listed = await api.call("GET", api.options_path)
    assert listed.json() == second.json()


async def test_money_keeps_its_digits(api: Api) -> None:
    body = msgspec.json.encode(OPTION).replace(b'"amount":10', b'"amount":0.10000000000000000001')
    answer = await api.call(
        "POST", api.options_path, content=body, headers={"Content-Type": "application/json; charset=utf-8"}
    )

    assert answer.status_code == 200
    assert b'"amount":0.10000000000000000001' in answer.content
    stored = (await api.server.ports.redeem_options.all(api.tenant))[0]
    assert stored.content["coupon"]["discountAbsolute"]["amount"] == Decimal("0.10000000000000000001")


@pytest.mark.parametrize(
    "body",
    [
        {name: value for name, value in OPTION.items() if name != "coupon"},
        {**OPTION, "coupon": None},
        {**OPTION, "coupon": {}},
        {**OPTION, "points": 0},
        {**OPTION, "points": "90"},
        {**OPTION, "points": True},
        {**OPTION, "type": "gift"},
        {**OPTION, "name": ""},
        changed(discountType="FREE_SHIPPING"),
        changed(discountType="PERCENT"),
        changed(discountAbsolute={"amount": -1, "currency": "EUR"}),
        changed(discountAbsolute={"amount": 1, "currency": "euros"}),
        changed(note="a\x00b"),
        changed(note=10**20),
        changed(**{"a\x00b": 1}),
        [],
        "x",
        None,
    ],
)
async def test_an_unusable_option_is_refused(api: Api, body: object) -> None:
    answer = await api.call("POST", api.options_path, json=body)

    assert answer.status_code == 400
    assert set(answer.json()) == {"type", "title", "status", "detail", "instance"}
    assert (await api.call("GET", api.options_path)).json() == []


async def test_a_change_is_laid_over_the_stored_option(api: Api) -> None:
    option = await api.new_option()
    path = f"{api.options_path}/{option['id']}"

    answer = await api.call("PUT", path, json={"points": 100, "coupon": {"maxRedemptions": 2}, "description": None})

    assert (answer.status_code, answer.content) == (200, b"")
    (stored,) = (await api.call("GET", api.options_path)).json()
    assert stored["points"] == 100
    assert stored["coupon"] == {**OPTION["coupon"], "maxRedemptions": 2}
    assert "description" not in stored
    assert stored["metadata"]["version"] == 2
    assert stored["metadata"]["createdAt"] == option["metadata"]["createdAt"]


@pytest.mark.parametrize(
    "body",
    [{"points": 0}, {"coupon": None}, {"coupon": {"discountType": "FREE_SHIPPING"}}, {"metadata": {"version": "1"}}],
)
async def test_a_change_is_validated_as_a_whole(api: Api, body: dict[str, Any]) -> None:
    option = await api.new_option()

    answer = await api.call("PUT", f"{api.options_path}/{option['id']}", json=body)

    assert answer.status_code == 400
    assert (await api.call("GET", api.options_path)).json() == [option]


async def test_a_stale_version_is_a_conflict_a_repetition_is_not(api: Api) -> None:
    option = await api.new_option()
    path = f"{api.options_path}/{option['id']}"
    first = {"points": 100, "metadata": {"version": 1}}

    done = await api.call("PUT", path, json=first)
    repeated = await api.call("PUT", path, json=first)
    stale = await api.call("PUT", path, json={"points": 110, "metadata": {"version": 1}})
    unconditional = await api.call("PUT", path, json={"points": 120, "metadata": {"version": None}})

    assert [answer.status_code for answer in (done, repeated, stale, unconditional)] == [200, 200, 409, 200]
    assert stale.json() == {
        "status": 409,
        "message": "RedeemOption not Updated",
        "details": {
            "message": f"The resource that was requested for update with id = {option['id']} has changed. "
            "Please retry your request with valid version"
        },
    }
    (stored,) = (await api.call("GET", api.options_path)).json()
    assert (stored["points"], stored["metadata"]["version"]) == (120, 3)


async def test_a_change_that_is_overtaken_is_tried_again(api: Api) -> None:
    option = await api.new_option()
    real = api.server.ports.redeem_options.replace
    overtaken = 0

    async def racing(wanted: RedeemOption, *, stored_version: int) -> bool:
        nonlocal overtaken
        overtaken += 1
        if overtaken == 1:
            return False
        return await real(wanted, stored_version=stored_version)

    api.server.faults.plant("redeem_options.replace", racing)

    answer = await api.call("PUT", f"{api.options_path}/{option['id']}", json={"points": 100})

    assert (answer.status_code, overtaken) == (200, 2)


async def test_a_change_that_is_overtaken_forever_gives_up(api: Api) -> None:
    option = await api.new_option()

    async def never(*_arguments: Any, **_options: Any) -> bool:
        return False

    api.server.faults.plant("redeem_options.replace", never)

    answer = await api.call("PUT", f"{api.options_path}/{option['id']}", json={"points": 100})

    assert answer.status_code == 409


async def test_an_unknown_option(api: Api) -> None:
    answer = await api.call("PUT", f"{api.options_path}/missing", json={"points": 100})

    assert (answer.status_code, answer.json()["type"]) == (404, "resource_not_found")


async def test_deleting_is_idempotent(api: Api) -> None:
    option = await api.new_option()
    path = f"{api.options_path}/{option['id']}"

    answers = [await api.call("DELETE", path) for _ in range(2)]

    assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 2
    assert (await api.call("GET", api.options_path)).json() == []


async def test_options_belong_to_their_tenant(api: Api) -> None:
    option = await api.new_option()
    other = Api(api.server, api.client, f"{api.tenant}-other")

    assert (await other.call("GET", other.options_path)).json() == []
    assert (await other.call("PUT", f"{other.options_path}/{option['id']}", json={"points": 1})).status_code == 404
    assert (await other.call("DELETE", f"{other.options_path}/{option['id']}")).status_code == 204
    assert (await api.call("GET", api.options_path)).json() == [option]
