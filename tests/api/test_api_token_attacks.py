"""Attacks on tokens: every one is sent to operations of every kind, and none may get through.

``test_api_access`` shows who may call what with good tokens; here nothing of a token is good but what the attack needs.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rewardpoints.api.keys import MIN_REFRESH_SECONDS, KeyRing
from rewardpoints.api.server import HttpServer
from rewardpoints.api.tokens import InvalidToken, TokenVerifier
from rewardpoints.settings import TokenSettings
from tests.api.harness import (
    ALL_SCOPES,
    AUDIENCE,
    ISSUER,
    Api,
    KeyServer,
    Signer,
    TestServer,
    build_app,
    fake_server,
    serving,
)

TENANT, CUSTOMER = "shop", "c1"
LEEWAY_SECONDS = 30
ALGORITHMS = ("RS256", "ES256", "EdDSA")
OPERATIONS: list[tuple[str, str, Any]] = [
    ("GET", f"/reward-points/{TENANT}/redeemOptions", None),
    ("GET", "/reward-points/public/customer", None),
    ("GET", "/reward-points/summaryBatch", None),
    ("POST", f"/reward-points/customer/{CUSTOMER}/addPoints", {"points": 1}),
    ("DELETE", f"/reward-points/customer/{CUSTOMER}", None),
]
Headers = list[tuple[str, str]]


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def signed_raw(signer: Signer, header: bytes, payload: bytes) -> str:
    """A token of exactly these bytes, signed well whatever they say."""
    signing = f"{encoded(header)}.{encoded(payload)}"
    algorithm = jwt.get_algorithm_by_name(signer.algorithm)
    return f"{signing}.{encoded(algorithm.sign(signing.encode(), signer.private_key))}"


def mac(header: Mapping[str, Any], payload: str, secret: bytes) -> str:
    """A token signed with a shared secret; PyJWT would refuse to take a public key for one."""
    signing = f"{encoded(json.dumps(header).encode())}.{payload}"
    return f"{signing}.{encoded(hmac.new(secret, signing.encode(), hashlib.sha256).digest())}"


def claims_of(**changes: Any) -> dict[str, Any]:
    """What makes a token of every kind at once: were it admitted, it could do anything at all."""
    now = int(time.time())
    claims = {
        "tenant": TENANT,
        "scope": " ".join(ALL_SCOPES),
        "sub": "attacker",
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": now + 600,
    }
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


def wrong_algorithms(signers: Mapping[str, Signer]) -> Iterator[tuple[str, str]]:
    rsa, curve, edwards = (signers[algorithm] for algorithm in ALGORITHMS)
    good = rsa.sign(claims_of())
    _, payload, signature = good.split(".")
    for name in ("none", "None", "NONE", "nOnE", ""):
        unsigned = encoded(json.dumps({"alg": name, "kid": rsa.key_id}).encode())
        yield f"alg {name!r}, no signature", f"{unsigned}.{payload}."
        yield f"alg {name!r}, another's signature", f"{unsigned}.{payload}.{signature}"
    public = rsa.private_key.public_key()
    secrets: dict[str, bytes] = {
        "PEM": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "PKCS1 PEM": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "JWK": json.dumps(rsa.jwk).encode(),
        "modulus": decoded(rsa.jwk["n"]),
        "nothing": b"",
    }
    for name, secret in secrets.items():
        for algorithm in ("HS256", "RS256"):
            yield f"{algorithm} with the {name} as secret", mac({"alg": algorithm, "kid": rsa.key_id}, payload, secret)
    for algorithm in ("RS384", "RS512", "PS256", "PS512"):
        yield (
            f"{algorithm} with the right key",
            jwt.encode(claims_of(), rsa.private_key, algorithm, headers={"kid": rsa.key_id}),
        )
    for signer in (rsa, curve, edwards):
        for other in (rsa, curve, edwards):
            if other is not signer:
                named = {"alg": other.algorithm, "kid": signer.key_id}
                yield (
                    f"{signer.algorithm} key, {other.algorithm}",
                    signed_raw(other, json.dumps(named).encode(), body()),
                )
                named = {"alg": signer.algorithm, "kid": signer.key_id}
                yield (
                    f"{signer.algorithm}, {other.algorithm} key",
                    signed_raw(other, json.dumps(named).encode(), body()),
                )
    for alg in (["RS256"], ["none", "RS256"], {"alg": "RS256"}, 256, None, True):
        listed = {"alg": alg, "kid": rsa.key_id}
        yield f"alg {alg}", signed_raw(rsa, json.dumps(listed).encode(), body())
    for signer, name, forged in (
        (curve, "all zero", bytes(64)),
        (curve, "empty", b""),
        (curve, "one", (b"\0" * 31 + b"\1") * 2),
        (edwards, "all zero", bytes(64)),
        (edwards, "identity", b"\1" + bytes(63)),
        (rsa, "all zero", bytes(256)),
        (rsa, "one", b"\0" * 255 + b"\1"),
        (rsa, "empty", b""),
    ):
        start = signer.sign(claims_of()).rpartition(".")[0]
        yield f"{signer.algorithm} signature {name}", f"{start}.{encoded(forged)}"


def body(**changes: Any) -> bytes:
    return json.dumps(claims_of(**changes)).encode()


def wrong_headers(signers: Mapping[str, Signer], trap: str) -> Iterator[tuple[str, str]]:
    rsa = signers["RS256"]
    stranger = Signer("RS256", "stranger")
    stranger.jwk["alg"] = "RS256"
    key_ids: list[Any] = [
        "stranger",
        "",
        "KEY-RS256",
        f"{rsa.key_id} ",
        f"{rsa.key_id}\0",
        "../../../../dev/null",
        "/etc/passwd",
        "file:///dev/null",
        f"{trap}/jwks.json",
        "x' UNION SELECT 'secret' --",
        "1; DROP TABLE keys",
        '{"$ne": null}',
        "$where",
        "${jndi:ldap://127.0.0.1/x}",
        "`id`",
        "k" * 4000,
        {"$ne": None},
        [rsa.key_id],
        0,
        True,
    ]
    for key_id in key_ids:
        named = json.dumps({"alg": "RS256", "kid": key_id}).encode()
        yield f"kid {str(key_id)[:30]!r}", signed_raw(stranger, named, body())
    pointers: dict[str, Any] = {
        "jku": f"{trap}/jwks.json",
        "x5u": f"{trap}/x5u.pem",
        "jwk": stranger.jwk,
        "x5c": [encoded(b"certificate")],
        "x5t": "thumbprint",
        "keys": [stranger.jwk],
    }
    for name, value in pointers.items():
        for key_id in ({"kid": "stranger"}, {"kid": rsa.key_id}, {}):
            named = json.dumps({"alg": "RS256", name: value, **key_id}).encode()
            yield f"{name} with {key_id}", signed_raw(stranger, named, body())
    for crit in (["exp"], ["b64"], ["x"], [], "exp", None, [5], ["kid"]):
        named = json.dumps({"alg": "RS256", "kid": rsa.key_id, "crit": crit, "x": 1}).encode()
        yield f"crit {crit}", signed_raw(rsa, named, body())
    b64 = json.dumps({"alg": "RS256", "kid": rsa.key_id, "b64": False, "crit": ["b64"]}).encode()
    yield "b64 false", signed_raw(rsa, b64, body())
    yield "b64 false, no payload", signed_raw(rsa, b64, b"")
    name = f'"kid": "{rsa.key_id}"'
    for text in (
        f'{{"alg": "none", "alg": "RS256", {name}}}',
        f'{{"alg": "RS256", "alg": "none", {name}}}',
        f'{{"alg": "RS256", "kid": "stranger", {name}}}',
        f'{{"alg": "RS256", {name}, {name}}}',
        f'{{"alg": "RS256", {name}, "x": NaN}}',
        f'{{"alg": "RS256", {name}, "x": {"[" * 4000}{"]" * 4000}}}',
        f'{{"alg": "RS256", {name}}}{{}}',
        f'["RS256", {name[7:]}]',
        "null",
        "",
        "{",
        "\ufeff{}",
    ):
        yield f"header {text[:50]}", signed_raw(rsa, text.encode(), body())
    utf16 = json.dumps({"alg": "RS256", "kid": rsa.key_id}).encode("utf-16")
    yield "header in UTF-16", signed_raw(rsa, utf16, body())
    yield "header not UTF-8", signed_raw(rsa, b'{"alg": "RS256", "kid": "\xff"}', body())


def wrong_claims(signers: Mapping[str, Signer]) -> Iterator[tuple[str, str]]:
    now = int(time.time())
    late, early = now - LEEWAY_SECONDS - 5, now + LEEWAY_SECONDS + 60
    values: list[tuple[str, list[Any]]] = [
        ("iss", ["https://evil.example", f"{ISSUER}/", ISSUER.upper(), [ISSUER], "", 5]),
        ("aud", ["other", f"{AUDIENCE}2", [], ["other"], {AUDIENCE: 1}, 5, [[AUDIENCE]], ""]),
        ("exp", [late, late + 0.9, 0, -1, -1e18, 1e18, 10**30, 1e308, now * 1000 + 600_000]),
        ("exp", [str(now + 600), "soon", "", True, [now + 600], {"$gt": 0}]),
        ("nbf", [early, early + 0.5, 1e18, str(now), True, [now]]),
        ("iat", [early, 1e18, str(now), False, {}]),
        ("tenant", ["", 5, ["shop"], {"$ne": ""}, True, "a\0b", "x" * 300, "\ud800"]),
        ("customer_id", ["", 5, ["c1"], {"$ne": ""}, False, "a\0b", "a\nb", "x" * 300]),
        ("scope", [list(ALL_SCOPES), {"$in": []}, 5, True]),
        ("sub", [5, ["x"], {}, True]),
    ]
    changes = [{claim: wrong} for claim, all_wrong in values for wrong in all_wrong]
    for signer in signers.values():
        for change in changes:
            named = json.dumps({"alg": signer.algorithm, "kid": signer.key_id}).encode()
            yield f"{signer.algorithm} {str(change)[:60]}", signed_raw(signer, named, body(**change))
    rsa = signers["RS256"]
    named = json.dumps({"alg": "RS256", "kid": rsa.key_id}).encode()
    for missing in ("iss", "aud", "exp", "tenant"):
        yield f"no {missing}", signed_raw(rsa, named, body(**{missing: None}))
    for text in (
        *("NaN", "Infinity", "-Infinity", "1e400", "9" * 400, "null", f'{now + 600}, "exp": {now - 600}'),
        *(f'{now - 600}, "exp": {now + 600}', f'{now + 600}, "exp": {now + 600}'),
        *(f'{now + 600}, "tenant": "shop"', f'{now + 600}, "customer_id": "c1", "customer_id": "c1"'),
        *(f'{now + 600}, "x": {{"a": 1, "a": 2}}', f'{now + 600}, "x": NaN', f'{now + 600}, "x": {"[" * 2000}'),
    ):
        whole = json.dumps(claims_of(exp=0)).encode().replace(b'"exp": 0', b'"exp": ' + text.encode())
        yield f"exp {text[:60]}", signed_raw(rsa, named, whole)
    for payload in (b"", b"null", b"[]", b"5", b'"x"', b"{", b"\xff", b"{}", b"[" * 3000):
        yield f"payload {payload[:10]!r}", signed_raw(rsa, named, payload)


def wrong_forms(signers: Mapping[str, Signer]) -> Iterator[tuple[str, str]]:
    rsa = signers["RS256"]
    good = rsa.sign(claims_of())
    header, payload, signature = good.split(".")
    other = rsa.sign(claims_of(tenant="other"))
    forms = {
        "another's signature": f"{header}.{payload}.{other.rpartition('.')[2]}",
        "another's payload": f"{header}.{other.split('.')[1]}.{signature}",
        "no signature": f"{header}.{payload}",
        "empty signature": f"{header}.{payload}.",
        "cut": good[:-10],
        "five parts": f"{good}.{payload}.{signature}",
        "parts swapped": f"{payload}.{header}.{signature}",
        "twice": good + good,
        "JSON form": json.dumps({"protected": header, "payload": payload, "signature": signature}),
        "only dots": "..",
        "many dots": "." * 8000,
        "just too long": rsa.sign(claims_of(note="x" * 8192)),
        "huge": rsa.sign(claims_of(note="x" * 15_000)),
        "huge garbage": "A" * 30_000,
        "percent-encoded": good.replace(".", "%2E"),
        "in quotes": f'"{good}"',
        "and a second word": f"{good} {good}",
        "and a comma": f"{good}, Bearer {good}",
        "with a parameter": f"{good};x=y",
        "with a tab": f"{header}.\t{payload}.{signature}",
    }
    yield from forms.items()


def wrong_requests(signers: Mapping[str, Signer]) -> Iterator[tuple[str, Headers]]:
    good, stranger = signers["RS256"].sign(claims_of()), Signer("RS256", "key-RS256").sign(claims_of())
    yield "no header", []
    for first, second in ((good, good), (good, stranger), (stranger, good), (good, ""), ("", good)):
        both = [("Authorization", f"Bearer {first}".strip()), ("authorization", f"Bearer {second}".strip())]
        names = ["good" if token == good else "bad" for token in (first, second)]
        yield f"two headers, {' and '.join(names)}", both
    yield "Basic and Bearer", [("Authorization", "Basic YTpi"), ("Authorization", f"Bearer {good}")]
    for name in ("X-Authorization", "Proxy-Authorization", "Cookie", "X-Forwarded-Authorization", "X-Access-Token"):
        yield name, [(name, f"Bearer {good}" if name != "Cookie" else f"Authorization=Bearer {good}")]
    for scheme in ("Basic", "Token", "JWT", "Digest", "BearerX", "Bearer:", ""):
        yield f"scheme {scheme!r}", [("Authorization", f"{scheme} {good}".strip())]


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


def a_verifier(*signers: Signer, source: KeyServer | None = None, **ring: Any) -> TokenVerifier:
    token = TokenSettings(issuer=ISSUER, audience=AUDIENCE)
    keys = KeyRing(source or KeyServer(*signers), algorithms=token.algorithms, cache_seconds=300, **ring)
    return TokenVerifier(token, keys)


async def refused(verifier: TokenVerifier, token: str) -> bool:
    try:
        await verifier.verify(token)
    except InvalidToken:
        return True
    return False


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


class Ticks:
    """A clock a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_rotated_key_is_picked_up_and_the_retired_one_refused() -> None:
    old, new = Signer("ES256", "old"), Signer("ES256", "new")
    source, ticks = KeyServer(old), Ticks()
    verifier = a_verifier(source=source, monotonic=ticks)
    assert not await refused(verifier, old.sign(claims_of()))
    source.signers = [new]
    ticks.now += MIN_REFRESH_SECONDS

    assert not await refused(verifier, new.sign(claims_of()))
    assert await refused(verifier, old.sign(claims_of()))


async def test_a_key_replaced_under_its_name_is_picked_up() -> None:
    old, new = Signer("ES256", "same"), Signer("ES256", "same")
    source, ticks = KeyServer(old), Ticks()
    verifier = a_verifier(source=source, monotonic=ticks)
    assert not await refused(verifier, old.sign(claims_of()))
    source.signers = [new]
    ticks.now += 301

    await refused(verifier, new.sign(claims_of()))  # begins the renewal
    await verifier._keys._renewal  # type: ignore[misc]  # was just begun
    assert not await refused(verifier, new.sign(claims_of()))
    assert await refused(verifier, old.sign(claims_of()))


async def test_invented_key_ids_over_a_minute_cost_the_key_server_a_request_every_five_seconds() -> None:
    known, stranger = Signer("ES256", "known"), Signer("ES256", None)
    source, ticks = KeyServer(known), Ticks()
    verifier = a_verifier(source=source, monotonic=ticks)
    token = stranger.sign(claims_of()).partition(".")[2]

    for number in range(600):
        named = encoded(json.dumps({"alg": "ES256", "kid": f"invented-{number}"}).encode())
        assert await refused(verifier, f"{named}.{token}")
        assert not await refused(verifier, known.sign(claims_of()))  # the good ones are served meanwhile
        ticks.now += 0.1

    assert source.fetches <= 60 / MIN_REFRESH_SECONDS + 1


async def test_an_emptied_key_set_refuses_everything() -> None:
    known = Signer("ES256", "known")
    source, ticks = KeyServer(known), Ticks()
    verifier = a_verifier(source=source, monotonic=ticks)
    assert not await refused(verifier, known.sign(claims_of()))
    source.signers = []
    ticks.now += MIN_REFRESH_SECONDS
    assert await refused(verifier, Signer("ES256", "other").sign(claims_of()))

    assert await refused(verifier, known.sign(claims_of()))
