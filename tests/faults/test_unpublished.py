"""The API killed between the commit of redemptions and the publishing of their coupon requests."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.instants import EARLIEST
from rewardpoints.domain.redemptions import redemption_id
from rewardpoints.embedded.ports import free_port
from tests.e2e.stack import TENANT, Stack, until
from tests.e2e.test_redemptions import OPTION, REDEEM, an_account, an_option
from tests.faults.conftest import Figures
from tests.faults.forked_api import ForkedApi
from tests.faults.forms import how_many
from tests.faults.proxy import Proxy, kafka_proxy
from tests.servers import abort_open_transactions

POINTS = how_many("CRASH_POINTS", 3)
"""Kills that left at least one committed redemption unpublished or uncleared."""

MOST_KILLS = 3 * POINTS + 10
AT_ONCE = 5
CUSTOMERS = 5
DELAY_SECONDS = 0.01
"""Each way to Kafka and back: without it the time between commit and acknowledgement is about a millisecond."""

WINDOW_SECONDS = 0.06
"""A kill falls within this time after the first commit of its redemptions is seen."""

OPTION_POINTS = int(str(OPTION["points"]))
PUBLISH_SECONDS = 90.0


@dataclass(slots=True)
class Crashes:
    """What was asked and answered, and what the kills left."""

    asked: dict[str, str] = field(default_factory=dict)
    """Customer by key."""

    codes: dict[str, str] = field(default_factory=dict)
    """Code by key, as it was answered before a kill."""

    points: int = 0
    kills: int = 0
    left: Counter[str] = field(default_factory=Counter)
    """Redemptions by what was true of them right after a kill."""


class Requests:
    """The coupon requests in the topic: codes by redemption id, and how many records there are."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> None:
        self._consumer = consumer
        self._partitions = partitions
        self.codes: dict[str, set[str]] = {}
        self.records = 0

    async def read(self) -> None:
        """Up to the end there is now."""
        ends = await self._consumer.end_offsets(self._partitions)
        while any([await self._consumer.position(one) < ends[one] for one in self._partitions]):
            for records in (await self._consumer.getmany(timeout_ms=1000)).values():
                self.records += len(records)
                for record in records:
                    value = json.loads(record.value)
                    self.codes.setdefault(value["id"], set()).add(value["code"])


@contextlib.asynccontextmanager
async def reading_requests(stack: Stack) -> AsyncIterator[Requests]:
    kafka = stack.kafka
    partitions = [
        TopicPartition(kafka.topic_coupon_creation_requests, number) for number in range(kafka.topic_partitions)
    ]
    async with AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest", enable_auto_commit=False
    ) as consumer:
        consumer.assign(partitions)
        yield Requests(consumer, partitions)


def an_api(stack: Stack, proxy: Proxy) -> ForkedApi:
    """It has the relay too, with a short lease, so that a kill falls into the relay's work as well."""
    port = str(free_port())
    changes = {
        "HTTP_PORT": port,
        "KAFKA_BOOTSTRAP_SERVERS": proxy.address,
        "RUN_RELAY": "true",
        "RUN_CHARGEBACK_CONSUMER": "false",
        "RELAY_LEASE_SECONDS": "2",
        "RELAY_POLL_SECONDS": "0.1",
    }
    return ForkedApi(f"http://127.0.0.1:{port}", stack.environment(**changes), stack.folder)


async def test_killed_after_the_commit_every_request_is_published_with_the_same_id_and_code(
    stack: Stack, figures: Figures
) -> None:
    crashes, chance = Crashes(), random.Random(11)
    began = time.monotonic()
    async with (
        kafka_proxy(stack.kafka.bootstrap_servers) as proxy,
        an_api(stack, proxy) as api,
        reading_requests(stack) as requests,
    ):
        await api.start()
        async with httpx.AsyncClient(base_url=api.url, timeout=30) as client:
            option = await an_option(client, stack)
            for number in range(CUSTOMERS):
                await an_account(client, stack, f"c{number}", 2 * MOST_KILLS * OPTION_POINTS)
        while crashes.points < POINTS:
            assert crashes.kills < MOST_KILLS, crashes.left
            proxy.delay(DELAY_SECONDS)
            await crash(stack, api, requests, option=option, crashes=crashes, chance=chance)
            await proxy.heal()
            await api.start()
        # Now it lives on, and nobody asks again: what is due is the relay's alone
        await until(lambda: none_due(stack), seconds=PUBLISH_SECONDS, what="every request acknowledged")
        stored = await redemptions(stack)
        await requests.read()
        assert requests.codes == {identity: {code} for identity, code in stored.items()}
        assert {id_of(crashes, key): code for key, code in crashes.codes.items()}.items() <= stored.items()
        await asked_again(stack, api, option, crashes, stored)
        assert await api.stop() == 0
    await stack.assert_true()
    figures(
        crash_points=crashes.points,
        kills=crashes.kills,
        redemptions=len(stored),
        answered_before_their_kill=len(crashes.codes),
        right_after_the_kill=dict(crashes.left),
        requests_published=len(requests.codes),
        records=requests.records,
        other_ids_or_codes=0,
        seconds=f"{time.monotonic() - began:.0f}",
    )


async def crash(
    stack: Stack, api: ForkedApi, requests: Requests, *, option: str, crashes: Crashes, chance: random.Random
) -> None:
    """Several redemptions at once, and kill -9 within a moment after the first of them is committed."""
    keys = {f"k{crashes.kills}-{number}": f"c{number % CUSTOMERS}" for number in range(AT_ONCE)}
    crashes.asked |= keys
    crashes.kills += 1
    ids = {id_of(crashes, key) for key in keys}
    async with httpx.AsyncClient(base_url=api.url, timeout=30) as client:

        async def redeem(key: str, customer: str) -> None:
            headers = {**stack.customer(customer), "Idempotency-Key": key}
            with contextlib.suppress(httpx.HTTPError):  # killed before it could answer
                answer = await client.post(REDEEM, json={"id": option}, headers=headers)
                assert answer.status_code == httpx.codes.OK, answer.text
                crashes.codes[key] = answer.json()["code"]

        async def committed() -> bool:
            return bool(await redemptions(stack, *ids))

        asking = [asyncio.create_task(redeem(key, customer)) for key, customer in keys.items()]
        await until(committed, seconds=60, what="a redemption committed")
        await asyncio.sleep(chance.random() * WINDOW_SECONDS)  # the moment of the kill, and no wait for anything
        await api.kill()
        await asyncio.gather(*asking)
    await abort_open_transactions(stack.mongodb_uri)  # as the server does by itself a minute later
    await requests.read()
    unfinished = 0
    for redemption in await stack.ledger.database.redemptions.find({"publishAt": {"$gt": EARLIEST}}).to_list(None):
        there = redemption["_id"] in requests.codes
        crashes.left["published, not cleared" if there else "not published"] += 1
        unfinished += 1
    crashes.left["not committed"] += len(ids) - len(await redemptions(stack, *ids))
    crashes.points += unfinished > 0


async def asked_again(stack: Stack, api: ForkedApi, option: str, crashes: Crashes, stored: dict[str, str]) -> None:
    """Every key once more: the same code, or a first one for what was never committed."""
    async with httpx.AsyncClient(base_url=api.url, timeout=30) as client:
        for key, customer in crashes.asked.items():
            headers = {**stack.customer(customer), "Idempotency-Key": key}
            answer = await client.post(REDEEM, json={"id": option}, headers=headers)
            assert answer.status_code == httpx.codes.OK, answer.text
            code = answer.json()["code"]
            assert stored.get(id_of(crashes, key), code) == code
    assert set(await redemptions(stack)) == {id_of(crashes, key) for key in crashes.asked}


async def redemptions(stack: Stack, *ids: str) -> dict[str, str]:
    """Code by id, of these redemptions or of all."""
    wanted = {"_id": {"$in": ids}} if ids else {}
    found = await stack.ledger.database.redemptions.find(wanted, {"code": 1}).to_list(None)
    return {one["_id"]: one["code"] for one in found}


async def none_due(stack: Stack) -> bool:
    return await stack.ledger.database.redemptions.find_one({"publishAt": {"$gt": EARLIEST}}) is None


def id_of(crashes: Crashes, key: str) -> str:
    return redemption_id(account_of(TENANT, crashes.asked[key]), "key", key)
