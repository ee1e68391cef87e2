"""No operation crosses from tenant to tenant, or from customer to customer, with any kind of token.

Operations come from the API's own description, so a new one is tested without being named here. Each request is
followed by a comparison of everything stored, and its whole answer is searched for the marks of others' data.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rewardpoints.api import access
from rewardpoints.domain.redeem_options import RedeemOption
from rewardpoints.domain.redemptions import Redemption
from tests.api.fakes import FakeAccounts, FakeRedeemOptions
from tests.api.harness import Signer, build_app, fake_server, ledger_server, serving
from tests.api.tenants import (
    CUSTOMERS,
    SITES,
    TENANTS,
    Crossed,
    FakeWorld,
    LedgerWorld,
    Marked,
    Operation,
    Request,
    Token,
    World,
    every_token,
    operations_of,
    tokens_of,
)

OPERATIONS = operations_of(build_app(fake_server(Signer("EdDSA", "unused"))).openapi())
EXAMPLES = 200


@pytest.fixture(scope="module")
async def marked(ledger_uri: str | None, signer: Signer) -> AsyncIterator[Marked]:
    async with AsyncExitStack() as stack:
        world: World
        if ledger_uri is None:
            world = FakeWorld(fake_server(signer))
        else:
            database = f"test_{secrets.token_hex(8)}"
            server = await stack.enter_async_context(ledger_server(ledger_uri, signer, database=database))
            world = LedgerWorld(server, ledger_uri, database)
            stack.callback(world.close)
        await stack.enter_async_context(serving(world.server, build_app(world.server)))
        client = stack.enter_context(httpx.Client(timeout=20))
        data = Marked(world, client)
        await asyncio.to_thread(data.plant)
        yield data


def matrix(marked: Marked, tokens: list[Token]) -> Iterator[tuple[Token, Operation, int]]:
    """Every operation with every token, aimed at each tenant's and customer's data."""
    for token in tokens:
        for operation in OPERATIONS:
            for tenant in TENANTS:
                names = {"tenant": tenant, "redeemOptionId": marked.option_ids[tenant], "siteCode": "main"}
                for customer in CUSTOMERS if "customerId" in operation.path_names else ("c1",):
                    body = marked.body(tenant, customer) if operation.has_body else None
                    request = operation.request({**names, "customerId": customer}, body=body)
                    yield token, operation, marked.attempt(token, request)


async def test_nothing_crosses(marked: Marked, record_testsuite_property: Callable[[str, object], None]) -> None:
    on_fakes = isinstance(marked.world, FakeWorld)
    tokens = every_token(marked.world.server.signer)
    chosen = [token for token in tokens if on_fakes or (token.name in FEWER and token.tenant in {*TENANTS, "alpha/"})]

    def run() -> tuple[int, Counter[str]]:
        tried, served = 0, Counter[str]()
        for _, operation, status in matrix(marked, chosen):
            tried += 1
            served[f"{operation.method} {operation.path}"] += httpx.codes.is_success(status)
        return tried, served

    tried, served = await asyncio.to_thread(run)
    name = f"cross_tenant_matrix_{'fakes' if on_fakes else 'ledger'}"
    record_testsuite_property(name, f"{tried} requests, {len(chosen)} tokens, {len(OPERATIONS)} operations, 0 crossed")
    assert tried > 300
    assert [operation for operation, count in served.items() if not count] == []  # each did what it is for, somewhere


FEWER = {"customer c1", "customer of a devious id", "employee"}
"""On the ledger: those who may do most. Who is refused is refused before the ledger is asked."""

ANY_NAME = st.sampled_from(
    ["c1", "c2", "c3", "alpha", "beta", "main", "second", "added-c1", "key-c1", "$ne", "*", ".."]
)
CUSTOMER_ID = st.sampled_from([*CUSTOMERS, "c3", "alpha/c1", "beta/c1", "../c1", "c1/summary", "c1\u200b", "ANONYMOUS"])
TENANT = st.sampled_from([*TENANTS, "gamma", "ALPHA", "alpha/", "public", "customer"])


@st.composite
def attempts(draw: st.DrawFn, marked: Marked, tokens: list[Token]) -> tuple[Token, Request]:
    token = draw(st.sampled_from(tokens))
    own = token.tenant or "alpha"
    operation = draw(st.sampled_from(OPERATIONS))
    pools: dict[str, st.SearchStrategy[str]] = {
        "tenant": st.one_of(st.just(own), TENANT),
        "customerId": CUSTOMER_ID,
        "redeemOptionId": st.sampled_from([*marked.option_ids.values(), "x"]),
        "siteCode": st.sampled_from(SITES),
        "pageNumber": st.sampled_from(["1", "2", "-1"]),
        "pageSize": st.sampled_from(["1", "1000"]),
    }
    names = {name: draw(pools.get(name, ANY_NAME)) for name in operation.path_names}
    query = draw(
        st.lists(
            st.sampled_from([*operation.query_names, "tenant", "customerId", "account"]).flatmap(
                lambda name: st.tuples(st.just(name), pools.get(name, ANY_NAME))
            ),
            max_size=3,
        )
    )
    headers = draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("Emporix-Tenant"), st.one_of(st.just(own), TENANT)),
                st.tuples(st.just("Idempotency-Key"), st.sampled_from(["key-c1", "key-c2", "new"])),
                st.tuples(
                    st.sampled_from(["X-Tenant", "X-Customer-Id", "X-Original-URL", "X-HTTP-Method-Override"]), ANY_NAME
                ),
            ),
            max_size=2,
        )
    )
    body = None
    if operation.has_body:
        body = {**marked.body(draw(st.sampled_from(TENANTS)), draw(st.sampled_from(CUSTOMERS))), **draw(_CHANGES)}
    return token, operation.request(names, query=tuple(query), headers=tuple(headers), body=body)


_CHANGES = st.dictionaries(
    st.sampled_from(["id", "customerId", "tenant", "account", "redeemOptionId", "points", "metadata"]),
    ANY_NAME | st.integers(1, 5) | st.just({"$ne": None}) | st.none(),
    max_size=2,
)


def explore(marked: Marked, *, examples: int = EXAMPLES) -> Counter[int]:
    """Generated requests with generated tokens, the same ones every time; answers how often each status came."""
    statuses = Counter[int]()
    tokens = every_token(marked.world.server.signer)

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(attempts(marked, tokens))
    def run(attempt: tuple[Token, Request]) -> None:
        statuses[marked.attempt(*attempt)] += 1

    run()
    return statuses


async def test_no_generated_request_crosses(
    marked: Marked, record_testsuite_property: Callable[[str, object], None]
) -> None:
    on_fakes = isinstance(marked.world, FakeWorld)
    statuses = await asyncio.to_thread(explore, marked, examples=EXAMPLES if on_fakes else EXAMPLES // 4)

    name = f"cross_tenant_property_{'fakes' if on_fakes else 'ledger'}"
    record_testsuite_property(name, f"{sum(statuses.values())} requests, 0 crossed: {dict(statuses)}")
    assert {200, 403} <= statuses.keys()


class OptionsOfAll(FakeRedeemOptions):
    """Planted: options are found whosever they are."""

    async def all(self, tenant: str) -> list[RedeemOption]:  # noqa: ARG002 - not looking at it is what is planted
        return list(self.options.values())


class AccountsOfAll(FakeAccounts):
    """Planted: whoever asks sees every tenant's accounts."""

    def accounts(self, tenant: str) -> Any:  # noqa: ARG002 - as above
        return sorted({entry.account for entry in self.lots.values()})


class FirstCome:
    """Planted: a redemption's key is the same for everybody."""

    def __init__(self, redemptions: Any) -> None:
        self._redemptions = redemptions

    async def redeem(self, intent: Any, **options: Any) -> Redemption:
        stored: dict[str, Redemption] = self._redemptions._accounts.redemptions
        found = next((entry for entry in stored.values() if entry.coupon), None)
        return found or await self._redemptions.redeem(intent, **options)


@pytest.mark.parametrize("planted", ["options", "accounts", "redemptions", "customer", "scope"])
async def test_what_would_cross_is_found(signer: Signer, monkeypatch: pytest.MonkeyPatch, planted: str) -> None:
    server = fake_server(signer)
    async with serving(server, build_app(server)):
        with httpx.Client(timeout=20) as client:
            marked = Marked(FakeWorld(server), client)
            await asyncio.to_thread(marked.plant)
            if planted == "customer":
                monkeypatch.setattr(
                    "rewardpoints.api.storefront.customer_id_of",
                    lambda request: request.query_params.get("customerId", "c1"),
                )
            elif planted == "scope":
                monkeypatch.setattr(access, "_check_caller", lambda _principal, _access: None)
            else:
                _plant(server, planted)
                marked.world.keep()
            with pytest.raises(Crossed):
                await asyncio.to_thread(lambda: list(matrix(marked, tokens_of("alpha"))))


def _plant(server: Any, planted: str) -> None:
    ports = server.ports
    if planted == "options":
        ports.redeem_options.__class__ = OptionsOfAll
    elif planted == "accounts":
        ports.accounts.__class__ = AccountsOfAll
    else:
        object.__setattr__(ports, "redemptions", FirstCome(ports.redemptions))
