"""Keys that change while tokens are checked: the new one is taken soon, the retired one no longer."""

import json

from rewardpoints.api.keys import MIN_REFRESH_SECONDS
from tests.api.attacks import a_verifier, claims_of, encoded, refused
from tests.api.harness import KeyServer, Signer, Ticks


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
