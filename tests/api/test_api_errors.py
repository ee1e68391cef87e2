"""What goes wrong is answered in the documented shapes, with CORS headers, and never twice."""

import asyncio
import logging
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from rewardpoints.domain.errors import LedgerUnavailable
from tests.api.harness import MAX_BODY_BYTES, ORIGIN, Api

ADD = "/reward-points/customer/c1/addPoints"
BAD_REQUEST = {"type", "title", "status", "detail", "instance"}
RESOURCE_ERROR = {"type", "status", "message"}


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/reward-points", "/reward-points/public/customer/nothing", "/reward-points/a/b/c"]
)
async def test_an_unknown_route_asks_for_no_token(fake_api: Api, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = await fake_api.call(method, path, token=None)
        assert (answer.status_code, set(answer.json())) == (404, RESOURCE_ERROR)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/reward-points/customer/c1", "DELETE, GET, POST"),
        ("POST", "/reward-points/public/customer", "GET"),
        ("HEAD", "/reward-points/public/customer", "GET"),
        ("OPTIONS", "/reward-points/summaryBatch", "GET"),
        ("GET", "/reward-points/shop/redeemOptions/x", "DELETE, PUT"),
        ("PROPFIND", "/reward-points/shop/redeemOptions", "GET, POST"),
        ("DELETE", "/site/shop/sites/main/mixins/couponSettings", "GET, PATCH, PUT"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_asks_for_no_token(fake_api: Api, method: str, path: str, allowed: str) -> None:
    answer = await fake_api.call(method, path, token=None)

    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert set(answer.json()) == RESOURCE_ERROR


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"{} {}",
        b"NaN",
        b'{"points": 1e99999999999999999999}',
        b'{"points": ' + b"9" * 5000 + b"}",
        b'{"points": 1, "x": "\xff"}',
        b'{"points": 1, "x": "\\ud800"}',
        b'{"points": 1, "x": "\\u0000"}',
        b'{"points": 1, "x": 1e-9000}',
        b"[" * 30_000,
        b'{"points": 1, "x": ' + b"[" * 40 + b"]" * 40 + b"}",
        b"\xef\xbb\xbf{}",
        '{"points": 1}'.encode("utf-16"),
    ],
)
async def test_a_body_that_is_no_json(fake_api: Api, body: bytes) -> None:
    answer = await fake_api.call("POST", ADD, content=body, headers={"Content-Type": "application/json"})

    assert (answer.status_code, set(answer.json())) == (400, BAD_REQUEST)
    assert await fake_api.server.ports.accounts.count("shop") == 0


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "Application/JSON; charset=utf-8", "application/x+json"]
)
async def test_accepted_content_types(fake_api: Api, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await fake_api.call("POST", ADD, content=b'{"points": 1}', headers=headers)
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "json", ""]
)
async def test_other_content_types(fake_api: Api, content_type: str) -> None:
    answer = await fake_api.call("POST", ADD, content=b'{"points": 1}', headers={"Content-Type": content_type})
    assert (answer.status_code, set(answer.json())) == (415, RESOURCE_ERROR)


async def _chunks(count: int) -> Any:
    for _ in range(count):
        yield b"x" * 1024


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_large(fake_api: Api, *, announced: bool) -> None:
    length = MAX_BODY_BYTES + 1024
    content = b"x" * length if announced else _chunks(length // 1024)
    answer = await fake_api.call("POST", ADD, content=content, headers={"Content-Type": "application/json"})

    assert (answer.status_code, set(answer.json())) == (413, RESOURCE_ERROR)
    assert (await fake_api.call("POST", ADD, json={"points": 1})).status_code == 201


async def test_the_largest_body_fits(fake_api: Api) -> None:
    body = b'{"points": 1, "x": "' + b"x" * (MAX_BODY_BYTES - 22) + b'"}'
    assert len(body) == MAX_BODY_BYTES
    answer = await fake_api.call("POST", ADD, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201


async def test_a_ledger_that_is_down(fake_api: Api) -> None:
    for method in ("balance", "summary_history", "add", "open", "erase", "count"):
        fake_api.server.faults.plant(f"accounts.{method}", LedgerUnavailable("secret host name"))
    requests: list[tuple[str, str, Any]] = [
        ("GET", "/reward-points/customer/c1", None),
        ("GET", "/reward-points/customer/c1/summary", None),
        ("GET", "/reward-points/summaryBatch?pageSize=1", None),
        ("POST", ADD, {"points": 1}),
        ("POST", "/reward-points/customer/c1", {"points": 1}),
        ("DELETE", "/reward-points/customer/c1", None),
    ]
    for method, path, body in requests:
        answer = await fake_api.call(method, path, json=body)
        assert (answer.status_code, set(answer.json())) == (503, RESOURCE_ERROR)
        assert int(answer.headers["retry-after"]) > 0
        assert "secret" not in answer.text


async def test_anything_unforeseen_is_a_500_that_tells_nothing(fake_api: Api, caplog: pytest.LogCaptureFixture) -> None:
    fake_api.server.faults.plant("accounts.balance", ValueError("secret"))

    answer = await fake_api.call("GET", "/reward-points/customer/a%20b", headers={"Origin": ORIGIN})

    assert answer.status_code == 500
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    body = answer.json()
    assert body.pop("timestamp").endswith("+00:00")
    assert body == {"status": 500, "error": "Internal Server Error", "path": "/reward-points/customer/a%20b"}
    assert not [
        record for record in caplog.records if record.name == "uvicorn.error" and record.levelno >= logging.ERROR
    ]
    fake_api.server.faults.clear()
    assert (await fake_api.call("GET", "/reward-points/customer/a%20b")).status_code == 404


async def test_a_500_whose_outcome_is_not_known_is_told_apart_in_the_log(fake_api: Api) -> None:
    await fake_api.give("c1", 100)
    fake_api.server.faults.plant("accounts.add", LedgerUnavailable("gone", outcome_unknown=True))

    with capture_logs() as logs:
        answer = await fake_api.call("POST", ADD, json={"points": 1})

    assert answer.status_code == 500
    assert [log["event"] for log in logs if log["log_level"] in {"warning", "error"}] == ["outcome not known"]


async def test_no_answer_in_time(fake_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardpoints.api.deadline.ANSWER_SECONDS", 1)
    await fake_api.give("c1", 100)
    option = await fake_api.new_option()

    async def hangs(*_arguments: Any, **_options: Any) -> Any:
        await asyncio.Event().wait()

    fake_api.server.faults.plant("redemptions.redeem", hangs)
    while_redeeming = await fake_api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]})
    fake_api.server.faults.plant("redeem_options.find", hangs)
    before = await fake_api.as_customer("c1", "POST", "/redeem", json={"id": option["id"]})

    assert (while_redeeming.status_code, before.status_code) == (500, 503)
    assert "Idempotency-Key" in while_redeeming.json()["error"]


PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": (
        "authorization,content-type,accept-language,content-language,x-version,emporix-tenant,idempotency-key"
    ),
}


async def test_browsers_may_call(fake_api: Api) -> None:
    answer = await fake_api.call("OPTIONS", "/reward-points/public/customer/redeem", token=None, headers=PREFLIGHT)

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        assert method in answer.headers["access-control-allow-methods"]


async def test_browsers_elsewhere_may_not(fake_api: Api) -> None:
    headers = {**PREFLIGHT, "Origin": "https://evil.example"}
    preflight = await fake_api.call("OPTIONS", "/reward-points/public/customer/redeem", token=None, headers=headers)
    simple = await fake_api.call("GET", "/reward-points/shop/redeemOptions", headers={"Origin": "https://evil.example"})

    assert preflight.status_code == 400
    assert "access-control-allow-origin" not in preflight.headers
    assert "access-control-allow-origin" not in simple.headers


async def test_every_answer_has_cors_headers(fake_api: Api) -> None:
    fake_api.server.faults.plant("accounts.summary_history", LedgerUnavailable("down"))
    requests: list[tuple[str, str, int, dict[str, Any]]] = [
        ("GET", "/reward-points/shop/redeemOptions", 200, {}),
        ("POST", ADD, 400, {"json": {}}),
        ("GET", "/reward-points/customer/c1", 401, {"token": None}),
        ("GET", "/reward-points/public/customer", 403, {}),
        ("GET", "/nothing", 404, {}),
        ("PUT", ADD, 405, {}),
        ("POST", ADD, 413, {"content": b"x" * (MAX_BODY_BYTES + 1)}),
        ("POST", ADD, 415, {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
        ("GET", "/reward-points/customer/c1/summary", 503, {}),
    ]
    for method, path, status, options in requests:
        headers = {"Origin": ORIGIN, **options.pop("headers", {})}
        answer = await fake_api.call(method, path, headers=headers, **options)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "Retry-After" in answer.headers["access-control-expose-headers"]


async def test_requests_are_counted_by_operation_never_by_customer(fake_api: Api) -> None:
    counted = [("GET /reward-points/customer/{customerId}", 404), ("unmatched", 405), ("unmatched", 404)]
    before = [fake_api.server.requests(*labels) for labels in counted]

    await fake_api.call("GET", "/reward-points/customer/secret%2Fid")
    await fake_api.call("PROPFIND", "/reward-points/customer/secret")
    await fake_api.call("GET", "/secret")

    text = (await fake_api.call("GET", "/metrics", token=None)).text
    assert [fake_api.server.requests(*labels) for labels in counted] == [count + 1 for count in before]
    assert "rewardpoints_http_requests_total" in text
    assert "secret" not in text
    assert "PROPFIND" not in text


async def test_a_cut_answer_is_counted_as_a_failure(fake_api: Api) -> None:
    await fake_api.give("c1", 5, description="x" * 1999)
    history = await fake_api.server.ports.accounts.history(fake_api.account("c1"))

    async def failing(*_arguments: Any, **_options: Any) -> Any:
        for _ in range(50):
            yield history
        raise LedgerUnavailable("gone")

    fake_api.server.faults.plant("accounts.summary_histories", failing)
    before = fake_api.server.requests("GET /reward-points/summaryBatch", 500)
    with pytest.raises(httpx.RemoteProtocolError):
        await fake_api.call("GET", "/reward-points/summaryBatch")

    assert fake_api.server.requests("GET /reward-points/summaryBatch", 500) == before + 1
