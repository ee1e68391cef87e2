"""The API through successes and every failure, as a process of its own: its logs are the process's.

``python -m tests.api.noisy LEVEL json|text SECRET`` writes the logs to standard error, and each answer that is an
error to standard output. ``SECRET`` stands in every token, id, text and exception, and in paths, which
answers may repeat, its mirror image.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx

from rewardpoints.app.process import _log_loop_error
from rewardpoints.domain.errors import LedgerBusy, LedgerUnavailable, RewardPointsError
from rewardpoints.telemetry import configure_logging
from tests.api.harness import ALL_SCOPES, OPTION, Api, KeyServer, Signer, TestServer, build_app, fake_server, serving

METHODS = (
    *("accounts.balance", "accounts.summary_history", "accounts.summary_histories", "accounts.count", "accounts.open"),
    *("accounts.add", "accounts.erase", "redemptions.redeem", "redeem_options.all", "redeem_options.find"),
    *("redeem_options.create", "redeem_options.replace", "redeem_options.delete", "settings_store.history"),
    *("settings_store.append", "settings_reader.histories", "coupon_requests.publish_soon"),
)


class DriverError(Exception):
    """What a driver raises: it repeats the document, and has a number."""

    code = 121


def faults(secret: str) -> Iterator[Exception]:
    told = f"write failed: {{account: 'shop/{secret}', token: '{secret}'}}"
    yield DriverError(told)
    yield LedgerUnavailable(told, outcome_unknown=True)
    yield LedgerBusy(told)
    yield RewardPointsError(told)
    yield OSError(24, told)
    yield ExceptionGroup(told, [KeyError(secret), DriverError(told)])


def requests(api: Api, secret: str) -> Iterator[tuple[str, str, Any, str]]:
    """Method, path, body and token of one good request for each operation."""
    employee = api.token(*ALL_SCOPES, sub=secret)
    own = secret[::-1]
    customer = api.customer_token(own, sub=secret, email=f"{secret}@example.org")
    points = {"points": 1, "description": secret, "id": secret}
    path = f"/reward-points/customer/{own}"
    yield "POST", f"{path}/addPoints?siteCode={secret}", points, employee
    yield "POST", f"{path}/redeemPoints", points, employee
    yield "POST", f"{path}2", {"points": 5}, employee
    yield "GET", path, None, employee
    yield "GET", f"{path}/summary", None, employee
    yield "GET", "/reward-points/summaryBatch", None, employee
    yield "GET", "/reward-points/summaryBatch?pageSize=5", None, employee
    yield "GET", api.options_path, None, employee
    yield "POST", api.options_path, {**OPTION, "points": 1, "name": secret}, employee
    yield "PUT", f"{api.options_path}/{own}", {"points": 5, "name": secret}, employee
    yield "DELETE", f"{api.options_path}/{own}", None, employee
    yield "PUT", api.settings_path, {"rewardpoints": {"note": secret}}, employee
    yield "PATCH", api.settings_path, {"rewardpoints": {"note": secret}}, employee
    yield "GET", api.settings_path, None, employee
    yield "GET", api.settings_path.rpartition("/")[0], None, employee
    public = "/reward-points/public/customer"
    for get in ("", "/summary", "/redeemOptions"):
        yield "GET", f"{public}{get}", None, customer
    yield "POST", f"{public}/redeem?siteCode={secret}", {"id": own}, customer
    yield "DELETE", f"{path}3", None, employee


def refused(api: Api, secret: str) -> Iterator[tuple[str, str, Any, str]]:
    """Requests that are refused, each for another reason."""
    employee = api.token(*ALL_SCOPES)
    add = "/reward-points/customer/c1/addPoints"
    for body in ({"points": secret}, {"points": 1, "id": secret * 50}, {"points": 1, "validUntil": secret}, [secret]):
        yield "POST", add, body, employee
    yield "POST", f"{add}?siteCode={secret * 50}", {"points": 1}, employee
    yield "POST", api.options_path, {**OPTION, "type": secret}, employee
    yield "POST", api.options_path, {**OPTION, "coupon": {"discountType": secret}}, employee
    yield "PUT", api.settings_path, {"rewardpoints": {"orderValueToRewardPointsFactor": secret}}, employee
    yield "POST", "/reward-points/customer/c1", {"customerId": secret}, employee
    yield "POST", "/reward-points/public/customer/redeem", {"id": secret[::-1]}, api.customer_token("c1")
    for token in (secret, f"{secret}.{secret}.{secret}", employee[:-5] + secret, Signer("RS256", secret).sign({})):
        yield "GET", api.options_path, None, token
    yield "GET", "/reward-points/summaryBatch", None, api.token(tenant=secret)
    yield "GET", f"/reward-points/{secret[::-1]}/redeemOptions", None, employee
    yield "GET", f"/{secret[::-1]}", None, employee


async def run(secret: str) -> None:
    asyncio.get_running_loop().set_exception_handler(_log_loop_error)
    signer = Signer("RS256", "key-1")
    server, keys = fake_server(signer), KeyServer(signer)
    async with serving(server, build_app(server, keys=keys)), httpx.AsyncClient(timeout=20) as client:
        api = Api(server, client, "shop")
        for method, path, body, token in (*requests(api, secret), *refused(api, secret)):
            await send(api, method, path, body, token)
        for fault in faults(secret):
            for method in METHODS:
                server.faults.plant(method, fault)
            for method, path, body, token in requests(api, secret):
                await send(api, method, path, body, token)
        server.faults.clear()
        await cut_midway(api, server, secret)
        await leave_unhandled(secret)
    keys.up = False
    async with serving(server, build_app(server, keys=keys)), httpx.AsyncClient(timeout=20) as client:
        api = Api(server, client, "shop")
        await send(api, "GET", api.options_path, None, api.token(sub=secret))


async def send(api: Api, method: str, path: str, body: Any, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": path.partition("?")[0]}
    try:
        answer = await api.client.request(method, f"{api.server.url}{path}", json=body, headers=headers)
    except httpx.RemoteProtocolError:
        return  # a stream that was cut
    if answer.is_error:
        shown = {"status": answer.status_code, "path": path, "body": answer.text, "headers": dict(answer.headers)}
        sys.stdout.write(json.dumps(shown) + "\n")


async def cut_midway(api: Api, server: TestServer, secret: str) -> None:
    """A stream of summaries whose reading fails after its answer has begun."""
    await api.give(secret, 5, description="x" * 1999)
    history = await server.ports.accounts.history(api.account(secret))

    async def failing(*_arguments: Any, **_options: Any) -> AsyncIterator[Any]:
        for _ in range(50):
            yield history
        raise DriverError(secret)

    server.faults.plant("accounts.summary_histories", failing)
    await send(api, "GET", "/reward-points/summaryBatch", None, api.token(*ALL_SCOPES))


async def leave_unhandled(secret: str) -> None:
    """A callback and a task whose exceptions nobody looks at."""

    def raise_it(told: str) -> None:
        raise DriverError(told)

    async def fail() -> None:
        raise DriverError(secret)

    asyncio.get_running_loop().call_soon(raise_it, secret)
    left = asyncio.create_task(fail())
    await asyncio.sleep(0.01)
    del left


if __name__ == "__main__":
    configure_logging(sys.argv[1], json=sys.argv[2] == "json")
    asyncio.run(run(sys.argv[3]))
