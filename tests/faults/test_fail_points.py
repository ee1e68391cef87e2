"""What callers of the API and the topics see of a MongoDB that fails, by the server's own fault injection."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from rewardpoints.app.commands import read_topic
from tests.e2e.stack import Server, Stack, an_order, until
from tests.e2e.test_redemptions import OPTION, REDEEM, an_account, an_option
from tests.faults.traffic import NOT_KNOWN
from tests.servers import abort_open_transactions

PATIENT = {"RUN_CHARGEBACK_CONSUMER": "false"}
"""Where a fault passes: with the time that production has."""

HASTY = {
    **PATIENT,
    "REDEEM_TIMEOUT_SECONDS": "1",
    "MONGODB_OPERATION_TIMEOUT_SECONDS": "2",
    "MONGODB_SERVER_SELECTION_TIMEOUT_SECONDS": "2",
}
Fail = Callable[..., AbstractAsyncContextManager[None]]

CONFLICT = {"errorCode": 112, "errorLabels": ["TransientTransactionError"]}
LOST = {"closeConnection": True}
NOT_PRIMARY = {"errorCode": 10107}
NO_PRIMARY_NOW = {"errorCode": 10107, "errorLabels": ["TransientTransactionError", "RetryableWriteError"]}
SHUTTING_DOWN = {"errorCode": 91}
UNKNOWN = {"errorCode": 50, "errorLabels": ["UnknownTransactionCommitResult"]}
UNCONFIRMED = {
    "writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out", "errInfo": {"wtimeout": True}}
}
START_POINTS = 500
POINTS = int(str(OPTION["points"]))
UP_SECONDS = 120.0


@pytest.fixture
async def fail(mongodb_uri: str) -> AsyncIterator[Fail]:
    """Makes commands of this project's clients fail while the context lasts: ``times`` times, or always."""
    async with AsyncMongoClient[dict[str, Any]](mongodb_uri, appname="tests") as client:

        async def configure(**point: Any) -> None:
            await client.admin.command({"configureFailPoint": "failCommand", **point})

        try:
            await configure(mode="off")
        except OperationFailure as error:
            pytest.skip(f"the server allows no fault injection: {error.code}")

        @asynccontextmanager
        async def failing(*commands: str, how: dict[str, Any], times: int | None = None) -> AsyncIterator[None]:
            mode = {"times": times} if times else "alwaysOn"
            await configure(mode=mode, data={"failCommands": list(commands), "appName": "rewardpoints", **how})
            try:
                yield
            finally:
                await configure(mode="off")

        yield failing


@dataclass(frozen=True, slots=True)
class Case:
    """Commands that fail, how, how often (always for None), and what a redemption is answered meanwhile."""

    commands: tuple[str, ...]
    how: dict[str, Any]
    times: int | None
    answer: str


BODY = ("find", "update", "insert")
COMMIT = ("commitTransaction",)

CASES = {
    "conflicts": Case(("update",), CONFLICT, 3, "code"),
    "conflicts without end": Case(("update",), CONFLICT, None, "unchanged"),
    "a connection dropped now and then": Case(("update", "insert"), LOST, 3, "code"),
    "every connection dropped": Case(BODY, LOST, None, "unchanged"),
    "a new primary": Case(("update", "insert"), NO_PRIMARY_NOW, 2, "code"),
    "no primary": Case(BODY, NOT_PRIMARY, None, "unchanged"),
    "shutting down": Case(("update",), SHUTTING_DOWN, None, "unchanged"),
    "a commit's answer lost": Case(COMMIT, LOST, 2, "code"),
    "a commit's outcome unknown for a while": Case(COMMIT, UNKNOWN, 3, "code"),
    "a commit that nobody answers": Case(COMMIT, LOST, None, "unknown"),
    "a commit's outcome unknown to the end": Case(COMMIT, UNKNOWN, None, "unknown"),
    "a commit that happened unconfirmed": Case(COMMIT, UNCONFIRMED, None, "code"),
}


def kind_of(answer: httpx.Response) -> str:
    if answer.status_code == httpx.codes.OK:
        return "code"
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and "retry-after" in answer.headers:
        return "unchanged"
    return "unknown" if NOT_KNOWN in answer.text else f"{answer.status_code} {answer.text}"


async def test_redemptions_are_answered_for_what_they_are_and_the_same_key_heals(stack: Stack, fail: Fail) -> None:
    patient = await up(await stack.api("a1", MONGODB_URI=attentive(stack), **PATIENT))
    hasty = await up(await stack.api("a2", MONGODB_URI=attentive(stack), **HASTY))
    redemptions = stack.ledger.database.redemptions
    async with (
        httpx.AsyncClient(base_url=patient.url, timeout=30) as client,
        httpx.AsyncClient(base_url=hasty.url, timeout=30) as hasty_client,
    ):
        option = await an_option(client, stack)
        for number, (name, case) in enumerate(CASES.items()):
            customer = f"c{number}"
            await an_account(client, stack, customer, START_POINTS)
            headers = {**stack.customer(customer), "Idempotency-Key": "once"}
            async with fail(*case.commands, how=case.how, times=case.times):
                answer = await (client if case.times or case.answer == "code" else hasty_client).post(
                    REDEEM, json={"id": option}, headers=headers
                )
            assert kind_of(answer) == case.answer, f"{name}: {answer.text}"
            await abort_open_transactions(stack.mongodb_uri)  # as the server does by itself a minute later
            found = await redemptions.find({"account": f"shop/{customer}"}).to_list(None)
            if case.answer != "unknown":
                assert [one["code"] for one in found] == [answer.json()["code"] for _ in "1" if case.answer == "code"]
            codes = set()
            for _ in range(2):
                again = await healed(client, "POST", REDEEM, json={"id": option}, headers=headers)
                assert again.status_code == httpx.codes.OK, f"{name}: {again.text}"
                codes.add(again.json()["code"])
            (stored,) = await redemptions.find({"account": f"shop/{customer}"}).to_list(None)
            assert codes == {stored["code"]}, name
            if case.answer == "code":
                assert stored["code"] == answer.json()["code"], name
            balance = await client.get("/reward-points/public/customer", headers=headers)
            assert balance.json() == START_POINTS - POINTS, name
    await stack.assert_true()


async def test_points_are_added_once_and_a_customer_erased_whatever_failed(stack: Stack, fail: Fail) -> None:
    api = await up(await stack.api(MONGODB_URI=attentive(stack), **HASTY))
    employee = stack.employee()
    faults = {"dropped": LOST, "no primary": NOT_PRIMARY, "unconfirmed": UNCONFIRMED}
    async with httpx.AsyncClient(base_url=api.url, timeout=30) as client:
        for name, how in faults.items():
            path = f"/reward-points/customer/{name.replace(' ', '-')}"
            body = {"id": "grant", "points": 70}
            for times in (1, None):
                async with fail("insert", "update", "delete", "commitTransaction", how=how, times=times):
                    answer = await client.post(f"{path}/addPoints", json=body, headers=employee)
                assert answer.status_code in {201, 500, 503}, f"{name}: {answer.text}"
                assert answer.status_code != httpx.codes.INTERNAL_SERVER_ERROR or NOT_KNOWN in answer.text, answer.text
            await abort_open_transactions(stack.mongodb_uri)
            again = await healed(client, "POST", f"{path}/addPoints", json=body, headers=employee)
            assert again.status_code == httpx.codes.CREATED, f"{name}: {again.text}"
            assert (await client.get(path, headers=employee)).json() == 70, name
            async with fail("insert", "update", "delete", "commitTransaction", how=how):
                erased = await client.delete(path, headers=employee)
            assert erased.status_code in {500, 503}, f"{name}: {erased.text}"
            assert (await healed(client, "DELETE", path, headers=employee)).status_code == httpx.codes.OK, name
            assert (await client.get(path, headers=employee)).status_code == httpx.codes.NOT_FOUND, name
    await stack.assert_true()


async def test_orders_wait_for_a_failing_mongodb_and_none_is_lost_or_dead_lettered(stack: Stack, fail: Fail) -> None:
    worker = await up(await stack.worker(RETRY_MAX_SECONDS="0.5", MONGODB_URI=attentive(stack), **HASTY))
    faults: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
        "conflicts": (("insert",), CONFLICT),
        "dropped": (("insert",), LOST),
        "no primary": (("insert", "find"), NOT_PRIMARY),
        "shutting down": (("insert",), SHUTTING_DOWN),
        "unconfirmed": (("insert",), UNCONFIRMED),
        "no look at what was erased": (("find",), LOST),
    }
    expected = 0
    for name, (commands, how) in faults.items():
        retries, commits = await counted(worker, "batch_retries"), await counted(worker, "commits")
        orders = [an_order(f"{name}-{number}", f"c{number}", 5) for number in range(30)]
        async with fail(*commands, how=how):
            await stack.publish_orders(*orders, *orders[:5])
            await until(lambda tried=retries: retried(worker, tried + 2), seconds=60, what=f"{name}: tried again")  # type: ignore[misc]  # binds the loop's value
            assert await counted(worker, "commits") == commits, f"{name}: committed past what is not in the ledger"
        expected += len(orders)
        await until(lambda count=expected: lots_are(stack, count), seconds=60, what=f"{name}: every lot")  # type: ignore[misc]  # as above
    assert await read_topic(stack.kafka, stack.kafka.topic_dead_letter, 10) == []
    assert await worker.stop() == 0
    await stack.assert_true()


def attentive(stack: Stack) -> str:
    """A server that steps down tells its clients who follows; this one only says so, and is asked again every 10 s."""
    return f"{stack.mongodb_uri}{'&' if '?' in stack.mongodb_uri else '?'}heartbeatFrequencyMS=500"


async def healed(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> httpx.Response:
    """The answer once the client of MongoDB has found the primary again; until then it is 503."""
    answers: list[httpx.Response] = []

    async def answered() -> bool:
        answers.append(await client.request(method, path, **request))
        return answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

    await until(answered, seconds=UP_SECONDS, what=f"{method} {path}")
    return answers[-1]


async def up(server: Server) -> Server:
    async def is_up() -> bool:
        answer = await server.readiness()
        return answer is not None and all(check["status"] == "up" for check in answer.json()["checks"].values())

    await until(is_up, seconds=UP_SECONDS, what=f"{server.url} up")
    return server


async def counted(server: Server, metric: str) -> float:
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"rewardpoints_{metric}_total"))


async def retried(server: Server, times: float) -> bool:
    return await counted(server, "batch_retries") >= times


async def lots_are(stack: Stack, count: int) -> bool:
    return await stack.lot_count() == count
