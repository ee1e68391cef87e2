"""A ledger that does not answer: every operation does, in time, and says what is known."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from rewardpoints.api.deadline import ANSWER_SECONDS, MARGIN_SECONDS
from tests.api.harness import OPTION, Api

CLIENTS_GIVE_UP_SECONDS = 10
CUSTOMER = "/reward-points/customer/{customerId}"
STOREFRONT = "/reward-points/public/customer"
OPTIONS = "/reward-points/{tenant}/redeemOptions"
MIXINS = "/site/{tenant}/sites/{siteCode}/mixins"
SETTINGS = {"rewardpoints": {"orderValueToRewardPointsFactor": 1}}
HANGING: list[tuple[str, str, Any, str, int]] = [
    ("GET", STOREFRONT, None, "accounts.balance", 503),
    ("GET", f"{STOREFRONT}/summary", None, "accounts.summary_history", 503),
    ("GET", f"{STOREFRONT}/redeemOptions", None, "redeem_options.all", 503),
    ("POST", f"{STOREFRONT}/redeem", {"id": "option"}, "redeem_options.find", 503),
    ("GET", "/reward-points/summaryBatch", None, "accounts.summary_histories", 503),
    ("GET", CUSTOMER, None, "accounts.balance", 503),
    ("GET", f"{CUSTOMER}/summary", None, "accounts.summary_history", 503),
    ("POST", CUSTOMER, {"points": 1}, "accounts.open", 500),
    ("DELETE", CUSTOMER, None, "accounts.erase", 503),
    ("POST", f"{CUSTOMER}/addPoints", {"points": 1}, "accounts.add", 500),
    ("POST", f"{CUSTOMER}/redeemPoints", {"points": 1}, "redemptions.redeem", 500),
    ("GET", OPTIONS, None, "redeem_options.all", 503),
    ("POST", OPTIONS, OPTION, "redeem_options.create", 500),
    ("PUT", f"{OPTIONS}/{{redeemOptionId}}", {**OPTION, "metadata": {"version": 1}}, "redeem_options.find", 500),
    ("DELETE", f"{OPTIONS}/{{redeemOptionId}}", None, "redeem_options.delete", 500),
    ("GET", MIXINS, None, "settings_store.history", 503),
    ("GET", f"{MIXINS}/couponSettings", None, "settings_store.history", 503),
    ("PUT", f"{MIXINS}/couponSettings", SETTINGS, "settings_store.append", 500),
    ("PATCH", f"{MIXINS}/couponSettings", SETTINGS, "settings_store.append", 500),
]


async def hangs(*_arguments: Any, **_options: Any) -> Any:
    await asyncio.Event().wait()


async def hangs_at_its_first(*_arguments: Any, **_options: Any) -> AsyncIterator[Any]:
    await asyncio.Event().wait()
    yield


@pytest.mark.parametrize(
    ("method", "path", "body", "port", "status"), HANGING, ids=[f"{method} {path}" for method, path, *_ in HANGING]
)
async def test_an_operation_answers_in_time(
    fake_api: Api, monkeypatch: pytest.MonkeyPatch, *, method: str, path: str, body: Any, port: str, status: int
) -> None:
    monkeypatch.setattr("rewardpoints.api.deadline.ANSWER_SECONDS", 1)
    fake_api.server.faults.plant(port, hangs_at_its_first if port == "accounts.summary_histories" else hangs)
    token = fake_api.customer_token("c1") if path.startswith(STOREFRONT) else "all"
    where = path.format(customerId="c1", tenant=fake_api.tenant, siteCode="main", redeemOptionId="option")

    answer = await fake_api.call(method, where, token=token, json=body)

    assert answer.status_code == status, answer.text
    if status == httpx.codes.INTERNAL_SERVER_ERROR:
        assert "not known whether the request was carried out" in answer.json()["error"]
    else:
        assert answer.headers["retry-after"]


async def test_these_are_all_operations(fake_api: Api) -> None:
    described = (await fake_api.call("GET", "/openapi.json")).json()["paths"]
    with_tokens = {
        (method.upper(), path)
        for path, operations in described.items()
        for method, operation in operations.items()
        if operation.get("security")
    }
    assert with_tokens == {(method, path) for method, path, *_ in HANGING}


def test_the_latest_verdict_comes_before_clients_give_up() -> None:
    assert ANSWER_SECONDS + MARGIN_SECONDS < CLIENTS_GIVE_UP_SECONDS
