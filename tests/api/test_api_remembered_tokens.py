"""Tokens that were verified once: remembering them never lets one through that would be refused without."""

import asyncio
import time
from typing import Any

import pytest

from rewardpoints.api import tokens
from rewardpoints.api.keys import MAX_STALE_SECONDS, MIN_REFRESH_SECONDS, KeyRing, KeysUnavailable
from rewardpoints.api.tokens import InvalidToken, Principal, TokenVerifier
from rewardpoints.settings import TokenSettings
from tests.api.harness import AUDIENCE, ISSUER, KeyServer, Signer

LEEWAY_SECONDS = 2
CACHE_SECONDS = 300


class Bench:
    """A verifier, its key server and its clocks, and how often a signature was checked."""

    def __init__(self, *signers: Signer) -> None:
        self.source = KeyServer(*signers)
        self.ticks = 1000.0
        self.wall = 0.0
        settings = TokenSettings(issuer=ISSUER, audience=AUDIENCE, leeway_seconds=LEEWAY_SECONDS)
        self.ring = KeyRing(
            self.source, algorithms=settings.algorithms, cache_seconds=CACHE_SECONDS, monotonic=lambda: self.ticks
        )
        self.verifier = TokenVerifier(settings, self.ring, wall_clock=lambda: time.time() + self.wall)
        self.checked = 0
        decode = self.verifier._decoder.decode

        def counted(*arguments: Any, **options: Any) -> dict[str, Any]:
            self.checked += 1
            return decode(*arguments, **options)

        self.verifier._decoder.decode = counted  # type: ignore[method-assign]

    async def verify(self, token: str) -> Principal:
        return await self.verifier.verify(token)

    async def renewed(self) -> None:
        """The keys are older than their time, and have been fetched again behind a request."""
        self.ticks += CACHE_SECONDS + 1
        assert self.ring.known("none", "ES256") is None
        renewal = self.ring._renewal
        assert renewal is not None
        await asyncio.wait([renewal])


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer("EdDSA", "key")


def claims(**changes: Any) -> dict[str, Any]:
    return {"tenant": "shop", "customer_id": "c1", **changes}


async def test_a_good_token_is_checked_once(signer: Signer) -> None:
    bench = Bench(signer)
    token = signer.sign(claims())

    seen = [await bench.verify(token) for _ in range(5)]

    assert bench.checked == 1
    assert {(one.tenant, one.customer_id) for one in seen} == {("shop", "c1")}
    assert bench.verifier.recall(token) == seen[0]


async def test_each_token_speaks_for_its_own_tenant_and_customer(signer: Signer) -> None:
    bench = Bench(signer)
    who = [("shop", "c1"), ("shop", "c2"), ("rival", "c1"), ("rival", None)]
    signed = [signer.sign(claims(tenant=tenant, customer_id=customer)) for tenant, customer in who]

    for _ in range(3):
        seen = [await bench.verify(token) for token in signed]
        assert [(one.tenant, one.customer_id) for one in seen] == who
    assert bench.checked == len(who)


async def test_nothing_but_the_very_bytes_is_remembered(signer: Signer) -> None:
    bench = Bench(signer)
    token = signer.sign(claims())
    await bench.verify(token)

    head, payload, signature = token.split(".")
    other = signer.sign(claims(customer_id="c2")).split(".")
    for forged in (
        f"{head}.{other[1]}.{signature}",
        f"{head}.{payload}.{other[2]}",
        f"{head}.{payload}.",
        f"{head}.{payload}",
        token.swapcase(),
        token[:-2],
        f"{token}.",
        f"{token}A",
    ):
        assert bench.verifier.recall(forged) is None
        with pytest.raises(InvalidToken):
            await bench.verify(forged)
    assert bench.checked > 1


async def test_a_refused_token_is_not_remembered(signer: Signer) -> None:
    bench = Bench(signer)
    stranger = Signer("EdDSA", "key")
    for token in (stranger.sign(claims()), signer.sign(claims(), aud="other"), signer.sign(claims(tenant=7))):
        for _ in range(2):
            with pytest.raises(InvalidToken):
                await bench.verify(token)
    assert bench.checked == 6
    assert not bench.verifier._verified


async def test_a_key_taken_out_ends_the_tokens_it_signed(signer: Signer) -> None:
    bench = Bench(signer)
    token = signer.sign(claims())
    await bench.verify(token)
    bench.source.signers = [Signer("EdDSA", "other")]

    await bench.renewed()

    bench.ticks += MIN_REFRESH_SECONDS
    assert bench.verifier.recall(token) is None
    with pytest.raises(InvalidToken):
        await bench.verify(token)
    assert not bench.verifier._verified


async def test_a_key_replaced_under_its_id_ends_the_tokens_of_the_one_before(signer: Signer) -> None:
    bench = Bench(signer)
    token = signer.sign(claims())
    await bench.verify(token)
    bench.source.signers = [Signer("EdDSA", "key")]

    await bench.renewed()

    with pytest.raises(InvalidToken):
        await bench.verify(token)


async def test_the_same_key_fetched_again_is_used_again(signer: Signer) -> None:
    bench = Bench(signer)
    token = signer.sign(claims())
    await bench.verify(token)

    await bench.renewed()
    await bench.verify(token)
    await bench.verify(token)

    assert bench.checked == 2


async def test_a_second_key_ends_what_was_signed_without_an_id() -> None:
    nameless = Signer("EdDSA", None)
    bench = Bench(nameless)
    token = nameless.sign(claims())
    await bench.verify(token)
    bench.source.signers = [nameless, Signer("EdDSA", "second")]

    await bench.renewed()

    bench.ticks += MIN_REFRESH_SECONDS
    with pytest.raises(InvalidToken):  # nobody can say which of two keys it means
        await bench.verify(token)


async def test_keys_too_old_to_serve_vouch_for_nothing(signer: Signer) -> None:
    bench = Bench(signer)
    token = signer.sign(claims())
    await bench.verify(token)
    bench.source.up = False
    bench.ticks += MAX_STALE_SECONDS + 1

    assert bench.verifier.recall(token) is None
    with pytest.raises(KeysUnavailable):
        await bench.verify(token)


async def test_a_token_ends_when_it_says(signer: Signer) -> None:
    bench = Bench(signer)
    token = signer.sign(claims(), exp=int(time.time()) + 600)
    await bench.verify(token)
    (verified,) = bench.verifier._verified.values()

    assert verified.until == verified.principal.expires_at + LEEWAY_SECONDS
    bench.wall = verified.until - time.time() - 60
    assert bench.verifier.recall(token) is not None
    bench.wall = verified.until - time.time()
    assert bench.verifier.recall(token) is None
    assert not bench.verifier._verified


async def test_a_token_that_ends_meanwhile_is_refused(signer: Signer) -> None:
    bench = Bench(signer)
    token = signer.sign(claims(), exp=int(time.time()))  # good for the leeway
    await bench.verify(token)

    async def refused() -> bool:
        try:
            await bench.verify(token)
        except InvalidToken:
            return True
        return False

    async with asyncio.timeout(30):
        while not await refused():  # noqa: ASYNC110 - what is waited for is the time
            await asyncio.sleep(0.05)


async def test_a_clock_set_back_has_the_token_checked_again(signer: Signer) -> None:
    bench = Bench(signer)
    token = signer.sign(claims())
    await bench.verify(token)
    bench.wall = -3600  # its "not before" might be ahead again

    assert bench.verifier.recall(token) is None
    await bench.verify(token)
    assert bench.checked == 2


async def test_what_is_remembered_is_bounded(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_REMEMBERED", 3)
    bench = Bench(signer)
    signed = [signer.sign(claims(customer_id=f"c{number}")) for number in range(5)]
    for token in signed[:3]:
        await bench.verify(token)
    await bench.verify(signed[0])  # used again: the second one is the oldest now
    await bench.verify(signed[3])
    assert [bench.verifier.recall(token) is not None for token in signed] == [True, False, True, True, False]

    long = signer.sign(claims(note="x" * tokens.LONGEST_REMEMBERED))
    await bench.verify(long)
    assert bench.verifier.recall(long) is None
    assert len(bench.verifier._verified) == 3
