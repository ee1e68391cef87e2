"""Tokens and headers made to get through, and a verifier to try them on.

Nothing of a token is good but what the attack needs.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rewardpoints.api.keys import KeyRing
from rewardpoints.api.tokens import InvalidToken, TokenVerifier
from rewardpoints.settings import TokenSettings
from tests.api.harness import ALL_SCOPES, AUDIENCE, ISSUER, KeyServer, Signer

TENANT, CUSTOMER = "shop", "c1"
LEEWAY_SECONDS = 30
ALGORITHMS = ("RS256", "ES256", "EdDSA")
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
