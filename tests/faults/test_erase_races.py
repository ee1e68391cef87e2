"""A customer erased while batches, chargebacks, results, redemptions and grants of the customer are under way."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from rewardpoints.app.commands import read_topic
from rewardpoints.app.service import Parts, Service
from rewardpoints.settings import Settings
from tests.e2e.stack import Stack
from tests.e2e.test_redemptions import an_option
from tests.faults.conftest import Figures
from tests.faults.erasing import ErasureRound, Tally
from tests.faults.forms import how_many
from tests.faults.workbench import open_workbench

ROUNDS = how_many("ERASE_ROUNDS", 20)
AT_ONCE = 4
"""Customers erased beside each other: they share connections, tombstones and the worker's view of them."""


@pytest.fixture
async def settings(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Settings:
    # Most chargebacks of this test are for redemptions that have been erased: no flood to look into
    for name, value in stack.environment(HTTP_PORT="0", FLOOD_PAUSE="false").items():
        monkeypatch.setenv(name, value)
    return Settings.load(tokens=True)


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Service]:
    service = Service(settings, Parts(api=True))
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def test_nothing_of_before_its_tombstone_is_left_of_an_erased_customer(
    stack: Stack, settings: Settings, api: Service, figures: Figures
) -> None:
    tally = Tally()
    started = time.monotonic()
    async with (
        open_workbench(settings) as bench,
        httpx.AsyncClient(base_url=api.http.url, timeout=30) as client,
    ):
        option = await an_option(client, stack)
        for first in range(0, ROUNDS, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, ROUNDS))
            await asyncio.gather(
                *(
                    ErasureRound(stack, bench, client, option=option, number=number, tally=tally).run()
                    for number in numbers
                )
            )
    seconds = time.monotonic() - started
    await stack.assert_true()
    published = await read_topic(stack.kafka, stack.kafka.topic_coupon_creation_requests, 20 * ROUNDS)
    codes: dict[str, set[str]] = {}
    for record in published:
        codes.setdefault(record["value"]["id"], set()).add(record["value"]["code"])
    assert [identity for identity, said in codes.items() if len(said) > 1] == []
    assert {identity: said for identity, said in codes.items() if said != {tally.codes.get(identity, *said)}} == {}
    figures(
        rounds=ROUNDS,
        seconds=f"{seconds:.0f}",
        left_from_before=0,
        answers=dict(sorted(tally.answers.items())),
        retried=dict(tally.retried),
        lots_of_after_the_tombstone=tally.survivors,
        erased_lots_removed_by_the_worker=int(bench.metrics.erased_lots_removed._value.get()),
        coupon_requests=len(published),
    )
