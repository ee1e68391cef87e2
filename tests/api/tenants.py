"""Two tenants with marked data, requests of every kind, and what one token may see and change of it all."""

import copy
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

import httpx
from pymongo import MongoClient

from rewardpoints.api.access import MANAGE_SCOPE, SITE_SCOPE, VIEW_SCOPE
from rewardpoints.domain.accounts import customer_of, tenant_of
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.redemptions import Redemption
from tests.api.fakes import FakeAccounts, FakeRedeemOptions, FakeSettings
from tests.api.harness import ALL_SCOPES, OPTION, Signer, TestServer

TENANTS = ("alpha", "beta")
CUSTOMERS = ("c1", "c2")
OPTIONS, SETTINGS = "options", "settings"
SITES = ("main", "second")


@dataclass(frozen=True, order=True)
class Area:
    """A part of the data: a customer's of a tenant, or a tenant's options or site settings."""

    tenant: str
    what: str
    customer: str = ""


@dataclass(frozen=True)
class Token:
    """A token, and what it is entitled to. Without ``tenant`` to nothing at all."""

    name: str
    tenant: str | None = None
    scopes: tuple[str, ...] = ()
    customer: str | None = None
    text: str | None = None

    def __str__(self) -> str:
        return f"{self.tenant or 'nobody'}'s {self.name}"

    def header(self, signer: Signer) -> dict[str, str]:
        if self.text == "":
            return {}
        claims: dict[str, Any] = {"tenant": self.tenant, "scope": " ".join(self.scopes), "customer_id": self.customer}
        return {"Authorization": f"Bearer {self.text or signer.sign(claims)}"}

    def may_see(self, area: Area) -> bool:
        if area.tenant != self.tenant:
            return False
        if area.what == OPTIONS:
            return True
        if self.customer is not None:
            return area.customer == self.customer
        return (SITE_SCOPE if area.what == SETTINGS else VIEW_SCOPE) in self.scopes

    def may_change(self, area: Area) -> bool:
        if area.tenant != self.tenant:
            return False
        if self.customer is not None:
            return area.customer == self.customer
        return (SITE_SCOPE if area.what == SETTINGS else MANAGE_SCOPE) in self.scopes


def tokens_of(tenant: str) -> list[Token]:
    return [
        Token("customer c1", tenant, customer="c1"),
        Token("customer c2", tenant, customer="c2"),
        Token("new customer", tenant, customer="c3"),
        Token("customer with scopes", tenant, ALL_SCOPES, "c1"),
        Token("customer of a devious id", tenant, customer=f"c1/../{tenant}/c2"),
        Token("guest", tenant),
        Token("viewing service", tenant, (VIEW_SCOPE,)),
        Token("managing service", tenant, (MANAGE_SCOPE,)),
        Token("site service", tenant, (SITE_SCOPE,)),
        Token("employee", tenant, ALL_SCOPES),
    ]


def every_token(signer: Signer) -> list[Token]:
    """Tokens of a tenant, of another, of tenants whose names resemble theirs, and what is no token."""
    stranger = Signer("RS256", signer.key_id)
    forged = stranger.sign({"tenant": "alpha", "scope": " ".join(ALL_SCOPES)})
    anonymous = {"scope": " ".join(ALL_SCOPES), "customer_id": "ANONYMOUS"}
    devious = ["alph", "alpha/", "alpha/c1", "alpha%2Fc1", "ALPHA", "*", "\u0430lpha"]
    return [
        *tokens_of("alpha"),
        Token("customer c1", "beta", customer="c1"),
        Token("employee", "beta", ALL_SCOPES),
        *(Token("employee", tenant, ALL_SCOPES) for tenant in devious),
        *(Token("customer c1", tenant, customer="c1") for tenant in devious[:3]),
        Token("anonymous with scopes", "alpha", text=signer.sign({"tenant": "alpha", **anonymous})),
        Token("forged token", text=forged),
        Token("missing token", text=""),
    ]


class World(Protocol):
    """Where the data is."""

    server: TestServer
    looks_are_cheap: bool

    def keep(self) -> None:
        """Remember the contents as they are."""

    def contents(self) -> dict[Area, list[str]]:
        """Everything that is stored, area by area."""
        ...

    def restore(self) -> None:
        """Bring the remembered contents back."""


@dataclass
class FakeWorld:
    """The data of fakes."""

    server: TestServer
    looks_are_cheap = True
    _kept: Any = None

    def keep(self) -> None:
        self._kept = copy.deepcopy(self.server.ports)

    def restore(self) -> None:
        self.server.ports = copy.deepcopy(self._kept)

    def contents(self) -> dict[Area, list[str]]:
        ports, found = self.server.ports, _Areas()
        accounts, options, sites = ports.accounts, ports.redeem_options, ports.settings_store
        assert isinstance(accounts, FakeAccounts)
        assert isinstance(options, FakeRedeemOptions)
        assert isinstance(sites, FakeSettings)
        entries: list[Lot | Redemption] = [*accounts.lots.values(), *accounts.redemptions.values()]
        for entry in entries:
            found.add(Area(tenant_of(entry.account), "account", customer_of(entry.account)), entry)
        for option in options.options.values():
            found.add(Area(option.tenant, OPTIONS), option)
        for (tenant, _), versions in sites.versions.items():
            for version in versions:
                found.add(Area(tenant, SETTINGS), version)
        return found.areas


class LedgerWorld:
    """The documents of a database."""

    looks_are_cheap = False

    def __init__(self, server: TestServer, mongodb_uri: str, database: str) -> None:
        self.server = server
        self._client: MongoClient[dict[str, Any]] = MongoClient(mongodb_uri)
        self._database = self._client[database]
        self._names = sorted(self._database.list_collection_names())
        self._kept: dict[str, list[dict[str, Any]]] = {}

    def keep(self) -> None:
        self._kept = self._documents()

    def restore(self) -> None:
        for name, now in self._documents().items():
            kept = self._kept.get(name, [])
            if now != kept:
                self._database[name].delete_many({})
                if kept:
                    self._database[name].insert_many(kept)

    def contents(self) -> dict[Area, list[str]]:
        found = _Areas()
        for name, documents in self._documents().items():
            for document in documents:
                found.add(_area(name, document), document)
        return found.areas

    def close(self) -> None:
        self._client.close()

    def _documents(self) -> dict[str, list[dict[str, Any]]]:
        return {name: list(self._database[name].find({}).sort("_id", 1)) for name in self._names}


def _area(collection: str, document: Mapping[str, Any]) -> Area:
    if collection == "redeemOptions":
        return Area(document["tenant"], OPTIONS)
    if collection == "siteSettings":
        return Area(document["tenant"], SETTINGS)
    account = document["_id"] if collection in {"guards", "tombstones"} else document["account"]
    return Area(tenant_of(account), "account", customer_of(account))


@dataclass
class _Areas:
    areas: dict[Area, list[str]] = field(default_factory=dict)

    def add(self, area: Area, entry: object) -> None:
        self.areas.setdefault(area, []).append(repr(entry))


@dataclass(frozen=True)
class Request:
    """One request, complete but for its token."""

    method: str
    template: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: Any = None

    def __str__(self) -> str:
        return f"{self.method} {self.path} {dict(self.query)} {dict(self.headers)} {self.body}"


@dataclass(frozen=True)
class Operation:
    """An operation as the API describes itself; requests are made from the names of its parameters alone."""

    method: str
    path: str
    path_names: tuple[str, ...]
    query_names: tuple[str, ...]
    has_body: bool

    def request(self, names: Mapping[str, str], **more: Any) -> Request:
        path = self.path
        for name in self.path_names:
            path = path.replace(f"{{{name}}}", quote(names[name], safe=""))
        return Request(self.method, self.path, path, **more)


def operations_of(document: Mapping[str, Any]) -> list[Operation]:
    """Every operation of an OpenAPI document: a new one is among them by itself."""
    found = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            parameters = operation.get("parameters", ())
            names = {place: tuple(p["name"] for p in parameters if p["in"] == place) for place in ("path", "query")}
            found.append(Operation(method.upper(), path, names["path"], names["query"], "requestBody" in operation))
    return found


class Crossed(AssertionError):
    """Something of one tenant or customer was read or changed with another's token."""


class Marked:
    """A world of marked data, and requests against it."""

    def __init__(self, world: World, client: httpx.Client) -> None:
        self.world = world
        self._client = client
        self._markers: dict[str, Area] = {}
        self._signed: dict[Token, dict[str, str]] = {}
        self.option_ids: dict[str, str] = {}
        self._before: dict[Area, list[str]] = {}

    def plant(self) -> None:
        """Data of both tenants under the same ids, every part of it with a text that stands nowhere else."""
        for tenant in TENANTS:
            self._plant(tenant)
        self.world.keep()
        self._before = self.world.contents()
        assert {area.tenant for area in self._before} == set(TENANTS)
        text = str(self._before)
        assert all(marker in text for marker in self._markers)

    def _plant(self, tenant: str) -> None:
        employee = Token("employee", tenant, ALL_SCOPES)
        option = {**OPTION, "points": 10, "name": self._mark(Area(tenant, OPTIONS))}
        self.option_ids[tenant] = self._ok(employee, "POST", f"/reward-points/{tenant}/redeemOptions", option)[-1]["id"]
        for site in SITES:
            content = {"orderValueToRewardPointsFactor": 1, "note": self._mark(Area(tenant, SETTINGS))}
            path = f"/site/{tenant}/sites/{site}/mixins/couponSettings"
            self._ok(employee, "PUT", path, {"rewardpoints": content})
        for customer in CUSTOMERS:
            area = Area(tenant, "account", customer)
            path = f"/reward-points/customer/{customer}"
            added = {"id": f"added-{customer}", "points": 100, "description": self._mark(area)}
            self._ok(employee, "POST", f"{path}/addPoints", {**added, "reference-id": self._mark(area)})
            self._ok(employee, "POST", f"{path}/redeemPoints", {"points": 1, "description": self._mark(area)})
            redeem = "/reward-points/public/customer/redeem"
            token = Token("customer", tenant, customer=customer)
            key = {"Idempotency-Key": f"key-{customer}"}
            code = self._ok(token, "POST", redeem, {"id": self.option_ids[tenant]}, headers=key)["code"]
            self._markers[code] = area

    def _mark(self, area: Area) -> str:
        marker = f"mark{secrets.token_hex(8)}"
        self._markers[marker] = area
        return marker

    def _ok(self, token: Token, method: str, path: str, body: Any, **options: Any) -> Any:
        headers = {**token.header(self.world.server.signer), **options.pop("headers", {})}
        answer = self._client.request(method, f"{self.world.server.url}{path}", json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def attempt(self, token: Token, request: Request) -> int:
        """Send a request; answers the status. Everything is as before afterwards.

        Where looking is dear, what a GET has changed is noticed after the next request that is none.

        Raises:
            Crossed: the token saw or changed what it is not entitled to.
        """
        if token not in self._signed:  # signing costs more than all the rest
            self._signed[token] = token.header(self.world.server.signer)
        headers = [*self._signed[token].items(), *request.headers]
        sent = self._client.build_request(
            request.method,
            f"{self.world.server.url}{request.path}",
            params=list(request.query),
            headers=[(name.encode(), value.encode()) for name, value in headers],
            json=request.body,
        )
        answer = self._client.send(sent)
        shown = f"{answer.text} {list(answer.headers.items())}"
        seen = {area for marker, area in self._markers.items() if marker in shown and not token.may_see(area)}
        look = self.world.looks_are_cheap or request.method != "GET"
        after = self.world.contents() if look else self._before
        areas = self._before.keys() | after.keys()
        changed = {area for area in areas if self._before.get(area) != after.get(area) and not token.may_change(area)}
        if self._before != after:
            self.world.restore()
        if seen or changed:
            raise Crossed(f"{token}: {request} answered {answer.status_code}; saw {seen}, changed {changed}")
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise AssertionError(f"{token}: {request} answered {answer.status_code}: {answer.text}")
        return answer.status_code

    def body(self, tenant: str, customer: str) -> dict[str, Any]:
        """A body that suits every operation that takes one, with everything in it that could name another's data."""
        named = {"tenant": tenant, "account": f"{tenant}/{customer}", "customerId": customer, "siteCode": "main"}
        option = self.option_ids[tenant]
        points = {"points": 3, "startPoints": {"id": f"added-{customer}", "points": 3}}
        settings = {"rewardpoints": {"orderValueToRewardPointsFactor": 2}}
        return {**OPTION, **named, **points, **settings, "id": option, "redeemOptionId": option}
