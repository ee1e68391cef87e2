"""Keys: fetched once, renewed, rotated, and missed."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from rewardpoints.api.keys import (
    MAX_KEY_SET_BYTES,
    MAX_STALE_SECONDS,
    MIN_REFRESH_SECONDS,
    JwksFile,
    JwksUrl,
    KeyRing,
    KeysUnavailable,
    key_source,
)
from rewardpoints.api.server import HttpServer
from rewardpoints.settings import JwksSettings
from tests.api.harness import Api, KeyServer, Signer, Ticks, build_app, fake_server, serving

OPTIONS = "/reward-points/shop/redeemOptions"


def ring_of(source: KeyServer, ticks: Ticks) -> KeyRing:
    return KeyRing(source, algorithms=("RS256", "ES256", "EdDSA"), cache_seconds=300, monotonic=ticks)


def signer(key_id: str | None, algorithm: str = "ES256") -> Signer:
    return Signer(algorithm, key_id)


async def test_keys_are_fetched_once_for_all() -> None:
    source, ticks = KeyServer(signer("a")), Ticks()
    ring = ring_of(source, ticks)

    found = await asyncio.gather(*(ring.find("a", "ES256") for _ in range(50)))

    assert all(found)
    assert source.fetches == 1


async def test_a_rotated_key_is_fetched_when_it_appears() -> None:
    source, ticks = KeyServer(signer("a")), Ticks()
    ring = ring_of(source, ticks)
    await ring.find("a", "ES256")
    source.signers = [signer("b")]
    ticks.now += MIN_REFRESH_SECONDS

    assert await ring.find("b", "ES256")
    assert await ring.find("a", "ES256") is None


async def test_invented_keys_do_not_flood_the_key_server() -> None:
    source, ticks = KeyServer(signer("a")), Ticks()
    ring = ring_of(source, ticks)

    found = await asyncio.gather(*(ring.find(f"invented-{number}", "ES256") for number in range(100)))

    assert not any(found)
    assert source.fetches == 1


async def test_old_keys_are_renewed_while_they_serve() -> None:
    source, ticks = KeyServer(signer("a")), Ticks()
    ring = ring_of(source, ticks)
    await ring.find("a", "ES256")
    source.signers = [signer("b")]
    ticks.now += 301

    assert await ring.find("a", "ES256")
    for _ in range(1000):
        await asyncio.sleep(0)
        if source.fetches == 2:
            break
    await asyncio.sleep(0)

    assert source.fetches == 2
    assert await ring.find("b", "ES256")
    await ring.close()


async def test_known_keys_serve_while_the_server_is_down_but_not_forever() -> None:
    source, ticks = KeyServer(signer("a")), Ticks()
    ring = ring_of(source, ticks)
    await ring.find("a", "ES256")
    source.up = False
    ticks.now += MAX_STALE_SECONDS

    assert await ring.find("a", "ES256")
    with pytest.raises(KeysUnavailable):
        await ring.find("b", "ES256")
    ticks.now += 1
    with pytest.raises(KeysUnavailable):
        await ring.find("a", "ES256")
    source.up = True
    ticks.now += MIN_REFRESH_SECONDS
    assert await ring.find("a", "ES256")
    await ring.close()


async def test_an_unknown_key_is_unknown_while_the_known_ones_are_fresh() -> None:
    source, ticks = KeyServer(signer("a")), Ticks()
    ring = ring_of(source, ticks)
    source.up = False
    with pytest.raises(KeysUnavailable):
        await ring.find("b", "ES256")
    source.up = True
    ticks.now += MIN_REFRESH_SECONDS
    await ring.find("a", "ES256")
    source.up = False
    ticks.now += 300

    assert await ring.find("b", "ES256") is None
    assert await ring.find("b", "ES256") is None  # by the last try's result
    assert source.fetches == 3
    ticks.now += 1
    with pytest.raises(KeysUnavailable):
        await ring.find("b", "ES256")
    await ring.close()


async def test_keys_that_are_too_old_are_no_keys_however_long_they_are_cached() -> None:
    source, ticks = KeyServer(signer("a")), Ticks()
    ring = KeyRing(source, algorithms=("ES256",), cache_seconds=2 * MAX_STALE_SECONDS, monotonic=ticks)
    await ring.find("a", "ES256")
    source.up = False
    ticks.now += MAX_STALE_SECONDS + 1

    with pytest.raises(KeysUnavailable):
        await ring.find("a", "ES256")


async def test_without_an_id_only_a_single_key_fits() -> None:
    source, ticks = KeyServer(signer("a"), signer("b", "EdDSA")), Ticks()
    ring = ring_of(source, ticks)
    assert await ring.find(None, "EdDSA")
    source.signers.append(signer("c", "EdDSA"))
    ticks.now += MIN_REFRESH_SECONDS
    await ring.find("c", "EdDSA")

    assert await ring.find(None, "EdDSA") is None


async def test_unusable_keys_cost_nothing_but_themselves() -> None:
    good, source, ticks = signer("a"), KeyServer(), Ticks()
    encrypting, foreign = signer("e"), signer("p")
    encrypting.jwk["use"] = "enc"
    foreign.jwk |= {"kty": "oct", "k": "c2VjcmV0"}
    broken = signer("x")
    broken.jwk |= {"x": 5}
    source.signers = [broken, foreign, encrypting, good]
    ring = ring_of(source, ticks)

    assert await ring.find("a", "ES256")
    for key_id in ("e", "p", "x"):
        assert await ring.find(key_id, "ES256") is None
        assert await ring.find(key_id, "HS256") is None


async def test_an_unreachable_key_server_is_503_and_recovers(client: httpx.AsyncClient, signer: Signer) -> None:
    server = fake_server(signer)
    keys = KeyServer(signer)
    keys.up = False
    async with serving(server, build_app(server, keys=keys)):
        api = Api(server, client, "shop")
        down = await api.call("GET", OPTIONS)
        garbage = await api.call("GET", OPTIONS, token="garbage")

    assert (down.status_code, down.json()["type"]) == (503, "service_unavailable")
    assert int(down.headers["retry-after"]) > 0
    assert garbage.status_code == 401


class SlowKeyServer(KeyServer):
    """Answers after ``seconds``."""

    seconds = 60.0

    async def fetch(self) -> bytes:
        await asyncio.sleep(self.seconds)
        return await super().fetch()


async def test_waiting_for_keys_ends_with_the_requests_time(
    client: httpx.AsyncClient, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardpoints.api.deadline.ANSWER_SECONDS", 0.05)
    server = fake_server(signer)
    async with serving(server, build_app(server, keys=SlowKeyServer(signer))):
        answer = await Api(server, client, "shop").call("GET", OPTIONS)

    assert (answer.status_code, answer.json()["type"]) == (503, "service_unavailable")


async def test_a_redemption_has_the_time_that_fetching_keys_left(
    client: httpx.AsyncClient, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardpoints.api.deadline.ANSWER_SECONDS", 2.5)
    keys = SlowKeyServer(signer)
    keys.seconds = 2.3
    server = fake_server(signer)

    async def hangs(*_arguments: Any) -> Any:
        await asyncio.Event().wait()

    server.faults.plant("redeem_options.find", hangs)
    async with serving(server, build_app(server, keys=keys)):
        started_at = time.monotonic()
        answer = await Api(server, client, "shop").as_customer("c1", "POST", "/redeem", json={"id": "x"})
        seconds = time.monotonic() - started_at

    assert (answer.status_code, keys.fetches) == (503, 1)
    assert seconds < 4  # 4.8 where the time begins after the keys came


@pytest.fixture
async def key_server() -> AsyncIterator[str]:
    good = json.dumps({"keys": [signer("a").jwk]}).encode()

    async def answer(request: Request) -> Response:
        match request.path_params["what"]:
            case "good":
                return Response(good)
            case "long":
                return Response(good + b" " * MAX_KEY_SET_BYTES)
            case "redirect":
                return RedirectResponse("/good")
            case "hangs":
                await asyncio.sleep(5)
        return Response(status_code=500)

    http = HttpServer(Starlette(routes=[Route("/{what}", answer)]), host="127.0.0.1", port=0, drain_seconds=1)
    await http.start()
    yield http.url
    await http.stop()


async def test_keys_behind_a_url(client: httpx.AsyncClient, key_server: str) -> None:
    source = key_source(JwksSettings(url=f"{key_server}/good"), client)
    assert b'"keys"' in await source.fetch()


@pytest.mark.parametrize("what", ["error", "long", "redirect", "hangs"])
async def test_key_servers_that_do_not_answer_well(client: httpx.AsyncClient, key_server: str, what: str) -> None:
    with pytest.raises(KeysUnavailable):
        await JwksUrl(client, f"{key_server}/{what}", timeout_seconds=0.5).fetch()


async def test_no_key_server_at_all(client: httpx.AsyncClient) -> None:
    with pytest.raises(KeysUnavailable):
        await JwksUrl(client, "http://127.0.0.1:1/keys", timeout_seconds=5).fetch()


async def test_keys_in_a_file(tmp_path: Path, client: httpx.AsyncClient) -> None:
    file = tmp_path / "jwks.json"
    source = key_source(JwksSettings(file=file), client)
    with pytest.raises(KeysUnavailable):
        await source.fetch()
    file.write_text(json.dumps({"keys": [signer("a").jwk]}))
    ring = KeyRing(JwksFile(file), algorithms=("ES256",), cache_seconds=300)
    assert await ring.find("a", "ES256")


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": 5}', b"\xff", b"[" * 100_000])
async def test_what_is_no_key_set(tmp_path: Path, document: bytes) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(document)
    with pytest.raises(KeysUnavailable):
        await KeyRing(JwksFile(file), algorithms=("ES256",), cache_seconds=300).find("a", "ES256")
