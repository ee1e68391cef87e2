"""Ids hold anything: each segment of the path as it was sent is decoded exactly once."""

import asyncio
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardpoints.api.paths import canonical_path, decode_segment
from tests.api.harness import ALL_SCOPES, Api

IDS = [
    "a/summary",
    "a/b/c",
    "/",
    "a b",
    "a+b",
    "m\u00fcller@example.com",
    "\u5ba2\u6237",
    "\U0001f600",
    "100%",
    "%2F",
    "%252F",
    "a?b",
    "a#b",
    "a;b=c",
    "..%2f",
    "redeemOptions",
    "addPoints",
    "x" * 256,
]


@pytest.mark.parametrize("customer_id", IDS, ids=range(len(IDS)))
async def test_every_id_is_a_customer_of_its_own(api: Api, customer_id: str) -> None:
    path = f"/reward-points/customer/{quote(customer_id, safe='')}"
    await api.give("a", 1000)

    opened = await api.call("POST", path, json={"customerId": customer_id, "points": 5})
    added = await api.call("POST", f"{path}/addPoints", json={"points": 3})
    redeemed = await api.call("POST", f"{path}/redeemPoints", json={"points": 1})
    balance = await api.call("GET", path)
    summary = await api.call("GET", f"{path}/summary")
    own = await api.as_customer(customer_id, "GET", "")

    assert [answer.status_code for answer in (opened, added, redeemed)] == [200, 201, 201]
    assert balance.json() == own.json() == 7
    assert (summary.json()["customerId"], summary.json()["activePoints"]) == (customer_id, 7)
    assert (await api.call("DELETE", path)).status_code == 200
    assert (await api.call("GET", path)).status_code == 404
    assert (await api.call("GET", "/reward-points/customer/a")).json() == 1000


async def raw(api: Api, target: bytes, *, method: bytes = b"GET") -> tuple[int, bytes]:
    """A request whose target goes out byte for byte; a client library would tidy it."""
    url = httpx.URL(api.server.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    token = api.token(*ALL_SCOPES).encode()
    writer.write(
        method
        + b" "
        + target
        + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "
        + token
        + b"\r\n\r\n"
    )
    await writer.drain()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ", 2)[1]), answer


@pytest.mark.parametrize(
    "target",
    [
        b"/reward-points/customer/%00",
        b"/reward-points/customer/a%00b/summary",
        b"/reward-points/customer/%FF",
        b"/reward-points/customer/%C3",
        b"/reward-points/customer/%ED%A0%80",
        b"/reward-points/customer/%0A",
        b"/reward-points/customer/" + b"x" * 257,
    ],
)
async def test_ids_that_are_no_text_are_refused(fake_api: Api, target: bytes) -> None:
    status, answer = await raw(fake_api, target)
    assert status == 400
    assert b'"title":"Bad Request"' in answer


@pytest.mark.parametrize(
    "target",
    [
        b"/reward-points/customer/",
        b"/reward-points/customer//summary",
        b"//reward-points/customer/a",
        b"/reward-points/customer/a/",
        b"/reward-points/customer/a/summary/",
        b"/reward-points%2Fcustomer/a",
        b"/reward-points/public%2Fcustomer",
        b"/REWARD-POINTS/customer/a",
        b"/",
        b"/%FF",
    ],
)
async def test_empty_and_unknown_segments_are_no_resource(fake_api: Api, target: bytes) -> None:
    status, answer = await raw(fake_api, target)
    assert status == 404
    assert b"There is no such resource" in answer


async def test_needless_encoding_names_the_same_customer(fake_api: Api) -> None:
    await fake_api.give("abc", 5)
    for target in (
        b"/reward-points/customer/%61bc",
        b"/reward%2Dpoints/customer/abc",
        b"/reward-points/customer/abc?x=%2F",
    ):
        assert (await raw(fake_api, target))[0] == 200


async def test_a_tenant_with_a_slash(fake_api: Api) -> None:
    api = Api(fake_api.server, fake_api.client, "a/b")
    answer = await api.call("GET", "/reward-points/a%2Fb/redeemOptions")
    assert (answer.status_code, answer.json()) == (200, [])
    assert (await api.call("GET", "/reward-points/a%252Fb/redeemOptions")).status_code == 403
    assert (await api.call("GET", "/reward-points/%FF/redeemOptions")).status_code == 403


@given(st.lists(st.text(min_size=1), min_size=1))
def test_segments_come_back_as_they_were(segments: list[str]) -> None:
    encodable = [segment.encode("utf-8", "ignore").decode() or "x" for segment in segments]
    sent = "/".join(quote(segment, safe="") for segment in encodable).encode()

    assert [decode_segment(segment) for segment in canonical_path(sent).split("/")] == encodable
