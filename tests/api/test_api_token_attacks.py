"""Attacks on tokens: every one is sent to operations of every kind, and none may get through.

``test_api_access`` shows who may call what with good tokens.
"""

import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rewardpoints.api.server import HttpServer
from rewardpoints.api.tokens import InvalidToken
from tests.api.attacks import (
    ALGORITHMS,
    CUSTOMER,
    LEEWAY_SECONDS,
    TENANT,
    Headers,
    a_verifier,
    body,
    claims_of,
    decoded,
    encoded,
    refused,
    signed_raw,
    wrong_algorithms,
    wrong_claims,
    wrong_forms,
    wrong_headers,
    wrong_requests,
)
from tests.api.harness import AUDIENCE, Api, KeyServer, Signer, TestServer, build_app, fake_server, serving

OPERATIONS: list[tuple[str, str, Any]] = [
    ("GET", f"/reward-points/{TENANT}/redeemOptions", None),
    ("GET", "/reward-points/public/customer", None),
    ("GET", "/reward-points/summaryBatch", None),
    ("POST", f"/reward-points/customer/{CUSTOMER}/addPoints", {"points": 1}),
    ("DELETE", f"/reward-points/customer/{CUSTOMER}", None),
]


@pytest.fixture(scope="module")
def signers() -> dict[str, Signer]:
    return {algorithm: Signer(algorithm, f"key-{algorithm}") for algorithm in ALGORITHMS}


@pytest.fixture(scope="module")
async def attacked(signers: dict[str, Signer]) -> AsyncIterator[tuple[TestServer, KeyServer]]:
    server, keys = fake_server(signers["RS256"]), KeyServer(*signers.values())
    async with serving(server, build_app(server, keys=keys)):
        yield server, keys


class Trap:
    """An HTTP server that an attack would have this service fetch a key from."""

    def __init__(self) -> None:
        self.requests = 0
        self._http = HttpServer(
            Starlette(routes=[Route("/{what:path}", self._answer)]), host="127.0.0.1", port=0, drain_seconds=1
        )

    async def _answer(self, _request: Request) -> Response:
        self.requests += 1
        return Response(b'{"keys": []}')

    async def __aenter__(self) -> str:
        await self._http.start()
        return self._http.url

    async def __aexit__(self, *_exception: object) -> None:
        await self._http.stop()


async def send(api: Api, headers: Headers, operation: tuple[str, str, Any]) -> httpx.Response:
    method, path, content = operation
    raw = [(name.encode(), value.encode("utf-8")) for name, value in headers]
    request = api.client.build_request(method, f"{api.server.url}{path}", json=content, headers=raw)
    return await api.client.send(request)


async def test_no_attack_gets_through(
    attacked: tuple[TestServer, KeyServer],
    signers: dict[str, Signer],
    client: httpx.AsyncClient,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    server, keys = attacked
    server.empty()
    api = Api(server, client, TENANT)
    await api.give(CUSTOMER, 100)
    stored = await server.ports.accounts.history(api.account(CUSTOMER))
    trap = Trap()
    async with trap as url:
        tokens = [*wrong_algorithms(signers), *wrong_headers(signers, url), *wrong_claims(signers)]
        tokens += wrong_forms(signers)
        attacks = [(name, [("Authorization", f"Bearer {token}")]) for name, token in tokens]
        attacks += wrong_requests(signers)
        through = []
        for name, headers in attacks:
            for operation in OPERATIONS:
                answer = await send(api, headers, operation)
                if answer.status_code != 401 or answer.json()["fault"]["faultstring"] != "Invalid access token":
                    through.append((name, operation[:2], answer.status_code))
    record_testsuite_property("token_attacks", f"{len(attacks) * len(OPERATIONS)} requests, {len(through)} through")

    assert len(attacks) > 300
    assert through == []
    assert trap.requests == 0  # no key was looked for where a token said it was
    assert keys.fetches <= 3  # one for each key id that is unknown, at most every 5 s
    assert await server.ports.accounts.history(api.account(CUSTOMER)) == stored


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_what_the_attacks_are_made_from_is_admitted(
    attacked: tuple[TestServer, KeyServer], signers: dict[str, Signer], client: httpx.AsyncClient, algorithm: str
) -> None:
    """The attacks are refused for what they change, not for what they are made from."""
    server, _ = attacked
    server.empty()
    api, signer, now = Api(server, client, TENANT), signers[algorithm], int(time.time())
    named = {"alg": algorithm, "kid": signer.key_id}
    accepted: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (named, {}),
        ({**named, "typ": "JWT", "cty": "x", "jku": "http://127.0.0.1:1/", "x5c": ["x"]}, {}),
        (named, {"aud": ["other", AUDIENCE]}),
        (named, {"exp": now + 0.5}),
        (named, {"exp": now - LEEWAY_SECONDS + 10}),
        (named, {"nbf": now + LEEWAY_SECONDS - 10, "iat": now + LEEWAY_SECONDS - 10}),
        (named, {"exp": 253_402_300_799, "iat": 0}),
        (named, {"sub": None, "note": "x" * 5000}),
    ]
    for header, changes in accepted:
        token = signed_raw(signer, json.dumps(header).encode(), body(**changes))
        answer = await send(api, [("Authorization", f"Bearer {token}")], OPERATIONS[0])
        assert (changes, answer.status_code) == (changes, 200)


async def test_no_changed_byte_gets_through(signers: dict[str, Signer]) -> None:
    signer = signers["EdDSA"]
    verifier = a_verifier(signer)
    good = signer.sign(claims_of())
    assert not await refused(verifier, good)

    for position, character in enumerate(good):
        for other in ("A", "_", ".", "=", "\n", "\u00e9"):
            changed = good[:position] + other + good[position + 1 :]
            if other == character or decoded_alike(changed, good):
                continue
            assert await refused(verifier, changed), (position, other)


def decoded_alike(one: str, other: str) -> bool:
    """Whether two tokens differ only in the spare bits, or the ignored characters, of the signature's encoding."""
    start, _, signature = one.rpartition(".")
    others_start, _, others = other.rpartition(".")
    try:
        return start == others_start and decoded(signature) == decoded(others)
    except ValueError:
        return False


async def test_no_text_raises_anything_else(signers: dict[str, Signer]) -> None:
    signer = signers["ES256"]
    verifier = a_verifier(signer)
    await verifier.verify(signer.sign(claims_of()))  # the keys are there: what follows waits for nothing
    json_text = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    )
    names = st.sampled_from(["alg", "kid", "exp", "tenant", "crit", "b64", "aud", "x"])
    parts = st.dictionaries(names, json_text, max_size=4).map(lambda value: encoded(json.dumps(value).encode()))
    algorithms = st.just(encoded(json.dumps({"alg": "ES256", "kid": signer.key_id}).encode()))

    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(st.text() | st.tuples(parts | algorithms, parts | st.text(), st.text()).map(".".join))
    def run(token: str) -> None:
        verifying = verifier.verify(token)
        try:
            with pytest.raises(InvalidToken):
                verifying.send(None)  # never waits for anything, or there would be no exception here
        finally:
            verifying.close()

    run()
