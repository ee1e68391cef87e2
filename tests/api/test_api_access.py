"""Who may call what: every operation against every kind of token."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from rewardpoints.api.access import MANAGE_SCOPE, SITE_SCOPE, VIEW_SCOPE
from rewardpoints.settings import TokenSettings
from tests.api.harness import ALL_SCOPES, AUDIENCE, ISSUER, OPTION, Api, Signer, build_app, fake_server, serving

UNAUTHORIZED = {
    "fault": {"faultstring": "Invalid access token", "detail": {"errorcode": "oauth.v2.InvalidAccessToken"}}
}


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    scope: str | None  # None: a customer's; "": any token's
    body: Any = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


SETTINGS = {"rewardpoints": {"orderValueToRewardPointsFactor": 1}}
OPERATIONS = [
    Operation("GET", "/reward-points/public/customer", None),
    Operation("GET", "/reward-points/public/customer/summary", None),
    Operation("GET", "/reward-points/public/customer/redeemOptions", None),
    Operation("POST", "/reward-points/public/customer/redeem", None, {"id": "x"}),
    Operation("GET", "/reward-points/summaryBatch", VIEW_SCOPE),
    Operation("GET", "/reward-points/customer/c1", VIEW_SCOPE),
    Operation("GET", "/reward-points/customer/c1/summary", VIEW_SCOPE),
    Operation("POST", "/reward-points/customer/c1", MANAGE_SCOPE, {"points": 1}),
    Operation("DELETE", "/reward-points/customer/c1", MANAGE_SCOPE),
    Operation("POST", "/reward-points/customer/c1/addPoints", MANAGE_SCOPE, {"points": 1}),
    Operation("POST", "/reward-points/customer/c1/redeemPoints", MANAGE_SCOPE, {"points": 1}),
    Operation("GET", "/reward-points/{tenant}/redeemOptions", ""),
    Operation("POST", "/reward-points/{tenant}/redeemOptions", MANAGE_SCOPE, OPTION),
    Operation("PUT", "/reward-points/{tenant}/redeemOptions/x", MANAGE_SCOPE, {"points": 1}),
    Operation("DELETE", "/reward-points/{tenant}/redeemOptions/x", MANAGE_SCOPE),
    Operation("GET", "/site/{tenant}/sites/main/mixins", SITE_SCOPE),
    Operation("GET", "/site/{tenant}/sites/main/mixins/couponSettings", SITE_SCOPE),
    Operation("PUT", "/site/{tenant}/sites/main/mixins/couponSettings", SITE_SCOPE, SETTINGS),
    Operation("PATCH", "/site/{tenant}/sites/main/mixins/couponSettings", SITE_SCOPE, SETTINGS),
]
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


async def call(api: Api, operation: Operation, token: str | None, **options: Any) -> httpx.Response:
    path = operation.path.replace("{tenant}", api.tenant)
    if operation.body is not None:
        options = {"json": operation.body, **options}
    return await api.call(operation.method, path, token=token, **options)


def admitted(answer: httpx.Response) -> bool:
    return answer.status_code not in {401, 403}


def test_the_table_holds_every_operation(signer: Signer) -> None:
    document = build_app(fake_server(signer)).openapi()
    documented = {
        (
            method.upper(),
            path.replace("{customerId}", "c1").replace("{redeemOptionId}", "x").replace("{siteCode}", "main"),
        )
        for path, item in document["paths"].items()
        for method in item
    }
    assert documented == {(operation.method, operation.path) for operation in OPERATIONS}


@every_operation
async def test_no_token(fake_api: Api, operation: Operation) -> None:
    answer = await call(fake_api, operation, None, **({"content": b"{"} if operation.body else {}))

    assert (answer.status_code, answer.json()) == (401, UNAUTHORIZED)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("operation", [operation for operation in OPERATIONS if operation.body], ids=str)
async def test_the_token_is_checked_before_the_body(fake_api: Api, operation: Operation) -> None:
    # nothing of the announced body is sent: the answer can only come from looking at the token alone
    path = operation.path.replace("{tenant}", fake_api.tenant)
    head = f"{operation.method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\nContent-Length: 10\r\n\r\n"
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(fake_api.server.url).port)
        writer.write(head.encode())
        await writer.drain()
        status = await reader.readline()
        writer.close()
        await writer.wait_closed()

    assert b" 401 " in status


@every_operation
async def test_a_customers_token(fake_api: Api, operation: Operation) -> None:
    plain = await call(fake_api, operation, fake_api.customer_token("c1"))
    with_scopes = await call(fake_api, operation, fake_api.customer_token("c1", scope=" ".join(ALL_SCOPES)))

    expected = operation.scope in {None, ""}
    assert (admitted(plain), admitted(with_scopes)) == (expected, expected)


@every_operation
async def test_a_services_token(fake_api: Api, operation: Operation) -> None:
    all_scopes = await call(fake_api, operation, fake_api.token(*ALL_SCOPES))
    fitting = await call(fake_api, operation, fake_api.token(operation.scope or ""))
    others = [scope for scope in ALL_SCOPES if scope != operation.scope]
    unfitting = await call(fake_api, operation, fake_api.token(*others))

    assert admitted(all_scopes) == (operation.scope is not None)
    assert admitted(fitting) == (operation.scope is not None)
    assert admitted(unfitting) == (operation.scope == "")


@every_operation
@pytest.mark.parametrize("claims", [{}, {"customer_id": "ANONYMOUS", "scope": " ".join(ALL_SCOPES)}])
async def test_a_guests_token(fake_api: Api, operation: Operation, claims: dict[str, Any]) -> None:
    answer = await call(fake_api, operation, fake_api.token(**claims))

    assert admitted(answer) == (operation.scope == "")
    if operation.scope:
        assert answer.json() == {
            "code": 403,
            "status": "Forbidden",
            "message": "Scope validation failed",
            "details": [f"Missing required scopes '[{operation.scope}]'", f"missing scope: {operation.scope}"],
        }


@every_operation
async def test_another_tenants_token(fake_api: Api, operation: Operation) -> None:
    token = fake_api.token(*ALL_SCOPES, tenant="other")
    answer = await call(fake_api, operation, token)
    with_header = await call(fake_api, operation, token, headers={"Emporix-Tenant": fake_api.tenant})

    assert with_header.status_code == 403
    if "{tenant}" in operation.path:
        assert answer.status_code == 403
    assert (await fake_api.server.ports.accounts.count(fake_api.tenant)) == 0


async def test_a_tenant_sees_only_its_own(api: Api) -> None:
    await api.give("c1", 5)
    other = Api(api.server, api.client, f"{api.tenant}-other")

    assert (await other.call("GET", "/reward-points/customer/c1")).status_code == 404
    assert (await other.call("GET", "/reward-points/summaryBatch")).json() == []
    assert (await other.call("DELETE", "/reward-points/customer/c1")).status_code == 200
    assert (await api.call("GET", "/reward-points/customer/c1")).json() == 5


async def test_a_matching_tenant_header_is_fine(fake_api: Api) -> None:
    headers = {"Emporix-Tenant": "shop"}
    assert (await fake_api.call("GET", "/reward-points/shop/redeemOptions", headers=headers)).status_code == 200


@pytest.mark.parametrize("tenant", ["customer", "public", "summaryBatch"])
async def test_reserved_tenants(fake_api: Api, tenant: str) -> None:
    token = fake_api.token(*ALL_SCOPES, tenant=tenant)
    for path in ("/reward-points/summaryBatch", f"/site/{tenant}/sites/main/mixins"):
        answer = await fake_api.call("GET", path, token=token)
        assert (answer.status_code, answer.json()["code"]) == (403, 403)


def _with_header(token: str, **header: Any) -> str:
    changed = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return ".".join([changed, *token.split(".")[1:]])


def _public_pem(signer: Signer) -> str:
    pem: bytes = signer.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def _confused(signer: Signer, claims: dict[str, Any]) -> str:
    """A token signed with the public key as if it were a shared secret."""
    parts = [{"alg": "HS256", "typ": "JWT", "kid": signer.key_id}, claims]
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = hmac.new(_public_pem(signer).encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def bad_tokens(signer: Signer) -> dict[str, str]:
    claims = {"tenant": "shop", "scope": " ".join(ALL_SCOPES), "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 600}
    good = signer.sign(claims)
    now = int(time.time())
    return {
        "garbage": "garbage",
        "two parts": "a.b",
        "not base64": "!.!.!",
        "not ascii": "caf\u00e9",
        "none": jwt.encode(claims, "", algorithm="none"),
        "none with signature": _with_header(good, alg="none", typ="JWT", kid=signer.key_id),
        "public key as secret": _confused(signer, claims),
        "other algorithm": _with_header(good, alg="PS256", typ="JWT", kid=signer.key_id),
        "algorithm no text": _with_header(good, alg=["RS256"], kid=signer.key_id),
        "key id no text": _with_header(good, alg="RS256", kid=5),
        "header no object": ".".join([base64.urlsafe_b64encode(b"[]").decode(), *good.split(".")[1:]]),
        "deep header": ".".join([base64.urlsafe_b64encode(b"[" * 3000).decode(), *good.split(".")[1:]]),
        "unknown key": Signer("RS256", "key-2").sign(claims),
        "key of the same name": Signer("RS256", signer.key_id).sign(claims),
        "other signature": good[:-8] + ("AAAAAAAA" if good[-8:] != "AAAAAAAA" else "BBBBBBBB"),
        "too long": signer.sign(claims, note="x" * 9000),
        "wrong issuer": signer.sign(claims, iss="https://evil.example"),
        "no issuer": signer.sign(claims, iss=None),
        "wrong audience": signer.sign(claims, aud="other"),
        "no audience": signer.sign(claims, aud=None),
        "expired": signer.sign(claims, exp=now - 60),
        "no expiry": signer.sign(claims, exp=None),
        "expiry no number": signer.sign(claims, exp="soon"),
        "expiry infinite": signer.sign(claims, exp=float("inf")),
        "not yet": signer.sign(claims, nbf=now + 600),
        "no tenant": signer.sign(claims, tenant=None),
        "tenant no text": signer.sign(claims, tenant=5),
        "tenant empty": signer.sign(claims, tenant=""),
        "scope no text": signer.sign(claims, scope=[VIEW_SCOPE]),
        "subject no text": signer.sign(claims, sub=5),
        "customer no text": signer.sign(claims, customer_id=5),
        "customer empty": signer.sign(claims, customer_id=""),
        "customer with controls": signer.sign(claims, customer_id="a\x00b"),
    }


async def test_unacceptable_tokens_are_401_and_never_500(fake_api: Api) -> None:
    for name, token in bad_tokens(fake_api.server.signer).items():
        headers = {"Authorization": f"Bearer {token}".encode("latin-1")}
        answer = await fake_api.call("GET", "/reward-points/shop/redeemOptions", token=None, headers=headers)
        assert (name, answer.status_code, answer.json()) == (name, 401, UNAUTHORIZED)


@pytest.mark.parametrize("header", ["", "Bearer", "Basic YTpi", "{token}"])
async def test_only_bearer_tokens(fake_api: Api, header: str) -> None:
    headers = {"Authorization": header.replace("{token}", fake_api.token(*ALL_SCOPES))}
    answer = await fake_api.call("GET", "/reward-points/shop/redeemOptions", token=None, headers=headers)
    assert answer.status_code == 401


async def test_the_schemes_name_has_no_case(fake_api: Api) -> None:
    headers = {"Authorization": f"bearer {fake_api.token()}"}
    answer = await fake_api.call("GET", "/reward-points/shop/redeemOptions", token=None, headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("key_id", ["k", None])
async def test_every_algorithm(client: httpx.AsyncClient, algorithm: str, key_id: str | None) -> None:
    server = fake_server(Signer(algorithm, key_id))
    async with serving(server, build_app(server)):
        api = Api(server, client, "shop")
        assert (await api.call("GET", "/reward-points/shop/redeemOptions")).status_code == 200


async def test_claims_are_configurable(signer: Signer, client: httpx.AsyncClient) -> None:
    server = fake_server(signer)
    token = TokenSettings(claim_tenant="org", claim_scope="scp", claim_customer="cid", claim_subject="client")
    async with serving(server, build_app(server, token=token)):
        api = Api(server, client, "shop")
        service = signer.sign({"org": "shop", "scp": VIEW_SCOPE, "client": "x", "aud": None, "iss": None})
        customer = signer.sign({"org": "shop", "cid": "c1", "aud": "anything"})
        assert (await api.call("GET", "/reward-points/summaryBatch", token=service)).status_code == 200
        assert (await api.call("GET", "/reward-points/public/customer", token=customer)).status_code == 404


def test_symmetric_algorithms_cannot_be_configured() -> None:
    with pytest.raises(ValidationError):
        TokenSettings(algorithms=("HS256",))
