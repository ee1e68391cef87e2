"""An API on a real socket, and a client of it: the in-process test client decodes paths twice."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import jwt
import pymongo
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fastapi import FastAPI
from pydantic import SecretStr
from pymongo import MongoClient

from rewardpoints.api.access import MANAGE_SCOPE, SITE_SCOPE, VIEW_SCOPE
from rewardpoints.api.application import create_app
from rewardpoints.api.keys import KeyRing, KeySource, KeysUnavailable
from rewardpoints.api.operations import ReadinessChecks
from rewardpoints.api.ports import Ports
from rewardpoints.api.server import HttpServer
from rewardpoints.api.tokens import TokenVerifier
from rewardpoints.domain.accounts import Account, account_of
from rewardpoints.domain.ports import Clock
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import HttpSettings, MongodbSettings, ServiceSettings, SiteSettingsSettings, TokenSettings
from rewardpoints.telemetry import Metrics
from tests.api.fakes import (
    FakeAccounts,
    FakeCheck,
    FakeRedeemOptions,
    FakeRedemptions,
    FakeSettings,
    Faults,
    RecordedCouponRequests,
    TestClock,
)

ORIGIN = "https://shop.example"
ISSUER = "https://id.example"
AUDIENCE = "rewardpoints"
PORTS = tuple(port.name for port in fields(Ports))
MAX_BODY_BYTES = 65_536
ALL_SCOPES = (VIEW_SCOPE, MANAGE_SCOPE, SITE_SCOPE)
OPTION: dict[str, Any] = {
    "type": "coupon",
    "name": "10 euro voucher",
    "description": "90 points become a voucher over 10 euros.",
    "points": 90,
    "coupon": {
        "name": "Voucher over 10 euros",
        "discountType": "ABSOLUTE",
        "discountAbsolute": {"amount": 10, "currency": "EUR"},
        "allowAnonymous": True,
        "maxRedemptions": 1,
        "status": "VALID",
    },
}


class Signer:
    """A private key, its public half as a JSON Web Key, and tokens signed with it."""

    def __init__(self, algorithm: str, key_id: str | None) -> None:
        self.algorithm = algorithm
        self.key_id = key_id
        made: dict[str, Any] = {
            "RS256": lambda: (rsa.generate_private_key(65537, 2048), jwt.algorithms.RSAAlgorithm),
            "ES256": lambda: (ec.generate_private_key(ec.SECP256R1()), jwt.algorithms.ECAlgorithm),
            "EdDSA": lambda: (ed25519.Ed25519PrivateKey.generate(), jwt.algorithms.OKPAlgorithm),
        }
        self.private_key, kind = made[algorithm]()
        self.jwk: dict[str, Any] = json.loads(kind.to_jwk(self.private_key.public_key()))
        if key_id is not None:
            self.jwk["kid"] = key_id

    def sign(self, claims: Mapping[str, Any], **changes: Any) -> str:
        complete = {"iss": ISSUER, "aud": AUDIENCE, "sub": "test", "exp": int(time.time()) + 600, **claims, **changes}
        complete = {name: value for name, value in complete.items() if value is not None}
        headers = {"kid": self.key_id} if self.key_id is not None else None
        return jwt.encode(complete, self.private_key, algorithm=self.algorithm, headers=headers)


class KeyServer:
    """A key source whose answer and state a test sets."""

    def __init__(self, *signers: Signer) -> None:
        self.signers = list(signers)
        self.up = True
        self.fetches = 0

    async def fetch(self) -> bytes:
        self.fetches += 1
        if not self.up:
            raise KeysUnavailable("down")
        return json.dumps({"keys": [signer.jwk for signer in self.signers]}).encode()


class Ticks:
    """A clock a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def fake_ports(clock: Clock, requests: RecordedCouponRequests) -> Ports:
    """Empty fakes."""
    accounts, settings = FakeAccounts(), FakeSettings()
    return Ports(
        accounts=accounts,
        redemptions=FakeRedemptions(accounts, clock),
        redeem_options=FakeRedeemOptions(),
        settings_store=settings,
        settings_reader=settings,
        coupon_requests=requests,
    )


@dataclass
class TestServer:
    """A running API with everything a test reaches into."""

    __test__ = False

    ports: Ports
    clock: TestClock
    signer: Signer
    coupon_requests: RecordedCouponRequests
    url: str = ""
    faults: Faults = field(default_factory=Faults)
    metrics: Metrics = field(default_factory=Metrics)
    mongodb: FakeCheck = field(default_factory=FakeCheck)
    kafka: FakeCheck = field(default_factory=FakeCheck)

    def restore(self) -> None:
        """Undo what a test did to the server itself."""
        self.faults.clear()
        self.clock.ahead = timedelta()
        self.mongodb.up = self.kafka.up = True

    def empty(self) -> None:
        """Fresh fakes in place of the ports."""
        self.coupon_requests.redemptions.clear()
        self.ports = fake_ports(self.clock, self.coupon_requests)

    def requests(self, operation: str, status: int) -> float:
        """How often an operation answered a status."""
        labels = {"operation": operation, "status": str(status)}
        return self.metrics.registry.get_sample_value("rewardpoints_http_requests_total", labels) or 0


def build_app(
    server: TestServer,
    *,
    http: HttpSettings | None = None,
    site_settings: SiteSettingsSettings | None = None,
    token: TokenSettings | None = None,
    keys: KeySource | None = None,
) -> FastAPI:
    """The application over the server's ports, with faults where a test plants them."""
    token = token or TokenSettings(issuer=ISSUER, audience=AUDIENCE)
    ring = KeyRing(keys or KeyServer(server.signer), algorithms=token.algorithms, cache_seconds=300)
    return create_app(
        ports=Ports(**{name: server.faults.over(name, partial(_port, server, name)) for name in PORTS}),
        http=http or HttpSettings(cors_origins=(ORIGIN,), max_body_bytes=MAX_BODY_BYTES),
        site_settings=site_settings or SiteSettingsSettings(cache_seconds=0),
        verifier=TokenVerifier(token, ring),
        clock=server.clock,
        metrics=server.metrics,
        readiness=ReadinessChecks(required={"mongodb": server.mongodb}, optional={"kafka": server.kafka}),
        asyncapi={"asyncapi": "3.0.0"},
        randomness=secrets.token_bytes,
    )


def _port(server: TestServer, name: str) -> Any:
    return getattr(server.ports, name)


@asynccontextmanager
async def serving(server: TestServer, app: FastAPI) -> AsyncIterator[TestServer]:
    """Serves the application on a free port of loopback."""
    http = HttpServer(app, host="127.0.0.1", port=0, drain_seconds=1)
    await http.start()
    server.url = http.url
    try:
        yield server
    finally:
        await http.stop()


def fake_server(signer: Signer) -> TestServer:
    """A server over the fakes, not running yet."""
    clock, requests = TestClock(), RecordedCouponRequests()
    return TestServer(ports=fake_ports(clock, requests), clock=clock, signer=signer, coupon_requests=requests)


@asynccontextmanager
async def ledger_server(mongodb_uri: str, signer: Signer, *, database: str | None = None) -> AsyncIterator[TestServer]:
    """A server over the ledger, not running yet; its database goes with it."""
    database = database or f"test_{secrets.token_hex(8)}"
    clock = TestClock()
    ledger = Ledger.open(
        MongodbSettings(uri=SecretStr(mongodb_uri), database=database),
        ServiceSettings(),
        SiteSettingsSettings(cache_seconds=0),
        clock,
        Metrics(),
    )
    await ledger.ensure_indexes()
    requests = RecordedCouponRequests()
    ports = Ports(
        accounts=ledger.accounts,
        redemptions=ledger.redemptions,
        redeem_options=ledger.redeem_options,
        settings_store=ledger.site_settings,
        settings_reader=ledger.settings_reader,
        coupon_requests=requests,
    )
    try:
        yield TestServer(ports=ports, clock=clock, signer=signer, coupon_requests=requests)
    finally:
        await ledger.close()
        with pymongo.timeout(10), MongoClient[dict[str, Any]](mongodb_uri) as client:
            client.drop_database(database)


@dataclass
class Api:
    """A client with a tenant of its own."""

    server: TestServer
    client: httpx.AsyncClient
    tenant: str

    def token(self, *scopes: str, tenant: str | None = None, **claims: Any) -> str:
        """A service's token; without scopes a guest's."""
        return self.server.signer.sign({"tenant": tenant or self.tenant, "scope": " ".join(scopes), **claims})

    def customer_token(self, customer_id: str, **claims: Any) -> str:
        return self.server.signer.sign({"tenant": self.tenant, "customer_id": customer_id, **claims})

    def account(self, customer_id: str) -> Account:
        return account_of(self.tenant, customer_id)

    async def call(self, method: str, path: str, *, token: str | None = "all", **options: Any) -> httpx.Response:
        """One request; ``token``: ``"all"`` is a service's with every scope, None sends none."""
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {self.token(*ALL_SCOPES) if token == 'all' else token}"
        return await self.client.request(method, f"{self.server.url}{path}", headers=headers, **options)

    async def as_customer(self, customer_id: str, method: str, path: str, **options: Any) -> httpx.Response:
        token = self.customer_token(customer_id)
        return await self.call(method, f"/reward-points/public/customer{path}", token=token, **options)

    async def give(self, customer_id: str, points: int, **content: Any) -> None:
        path = f"/reward-points/customer/{customer_id}/addPoints"
        answer = await self.call("POST", path, json={"points": points, **content})
        assert answer.status_code == 201, answer.text

    async def new_option(self, **changes: Any) -> dict[str, Any]:
        answer = await self.call("POST", self.options_path, json={**OPTION, **changes})
        assert answer.status_code == 200, answer.text
        created: dict[str, Any] = answer.json()[-1]
        return created

    @property
    def options_path(self) -> str:
        return f"/reward-points/{self.tenant}/redeemOptions"

    @property
    def settings_path(self) -> str:
        return f"/site/{self.tenant}/sites/main/mixins/couponSettings"
