"""All summaries of a tenant: paged, streamed, and cut where they cannot be completed."""

import asyncio
from typing import Any

import httpx
import pytest

from rewardpoints.domain.errors import LedgerUnavailable
from tests.api.harness import Api
from tests.api.test_api_management import customer


async def test_all_summaries(api: Api) -> None:
    empty = await api.call("GET", "/reward-points/summaryBatch")
    for customer_id in ("b", "a", "c%20d"):
        await api.give(customer_id, 5)

    answer = await api.call("GET", "/reward-points/summaryBatch")

    assert (empty.status_code, empty.json()) == (200, [])
    assert answer.headers["content-type"] == "application/json"
    assert "x-total-count" not in answer.headers
    assert sorted(summary["customerId"] for summary in answer.json()) == ["a", "b", "c d"]
    for summary in answer.json():
        path = customer(summary["customerId"].replace(" ", "%20"))
        assert summary == (await api.call("GET", f"{path}/summary")).json()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("pageNumber=1&pageSize=2", ["a", "b"]),
        ("pageNumber=2&pageSize=2", ["c"]),
        ("pageNumber=3&pageSize=2", []),
        ("pageSize=1", ["a"]),
        ("pageNumber=1", ["a", "b", "c"]),
        ("pageNumber=1000000000&pageSize=1000", []),
    ],
)
async def test_pages_of_summaries(api: Api, query: str, expected: list[str]) -> None:
    for customer_id in ("b", "a", "c"):
        await api.give(customer_id, 5)

    answer = await api.call("GET", f"/reward-points/summaryBatch?{query}")

    assert [summary["customerId"] for summary in answer.json()] == expected
    assert answer.headers["x-total-count"] == "3"


@pytest.mark.parametrize("query", ["pageNumber=0", "pageSize=0", "pageSize=1001", "pageNumber=x", "pageNumber=1.5"])
async def test_pages_are_bounded(api: Api, query: str) -> None:
    answer = await api.call("GET", f"/reward-points/summaryBatch?{query}")
    assert answer.status_code == 400


async def test_a_stream_that_fails_midway_is_cut(api: Api) -> None:
    for number in range(30):
        await api.give(f"c{number:02}", 5, description="x" * 1999)
    real = api.server.ports.accounts.summary_histories

    async def failing(tenant: str, **options: Any) -> Any:
        read = 0
        async for history in real(tenant, **options):
            read += 1
            if read == 25:
                raise LedgerUnavailable("gone")
            yield history

    api.server.faults.plant("accounts.summary_histories", failing)

    with pytest.raises(httpx.RemoteProtocolError):
        await api.call("GET", "/reward-points/summaryBatch")


async def test_a_stream_that_cannot_begin_is_an_error(api: Api) -> None:
    async def failing(*_arguments: Any, **_options: Any) -> Any:
        for history in await unreachable():
            yield history

    async def unreachable() -> list[Any]:
        raise LedgerUnavailable("gone")

    api.server.faults.plant("accounts.summary_histories", failing)

    answer = await api.call("GET", "/reward-points/summaryBatch")

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


async def test_a_stream_ends_its_reading_when_the_client_goes(fake_api: Api) -> None:
    await fake_api.give("c1", 5, description="x" * 1999)
    history = await fake_api.server.ports.accounts.history(fake_api.account("c1"))
    read = 0
    ended = asyncio.Event()

    async def endless(*_arguments: Any, **_options: Any) -> Any:
        nonlocal read
        try:
            while True:
                read += 1
                await asyncio.sleep(0)  # as a real ledger does
                yield history
        finally:
            ended.set()

    fake_api.server.faults.plant("accounts.summary_histories", endless)
    request = fake_api.client.build_request(
        "GET",
        f"{fake_api.server.url}/reward-points/summaryBatch",
        headers={"Authorization": f"Bearer {fake_api.token('rewardspoints.rewardpoints_view')}"},
    )
    answer = await fake_api.client.send(request, stream=True)
    await anext(answer.aiter_bytes())
    await answer.aclose()
    for _ in range(1000):
        await fake_api.call("GET", "/healthz")
        if ended.is_set():
            break

    assert ended.is_set()
    assert read < 100_000  # the reading waits for the client, which took one chunk
