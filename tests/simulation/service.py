"""The service's processes over the simulated servers, put together from the product's own parts as ``app`` does."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar, cast

from starlette.requests import Request

from rewardpoints.api.bodies import RedeemIn
from rewardpoints.api.ports import Ports
from rewardpoints.api.storefront import Storefront
from rewardpoints.api.tokens import Principal
from rewardpoints.app.erasure_looks import look_at_erasures
from rewardpoints.domain.ports import Clock
from rewardpoints.events.chargeback_consumer import ChargebackConsumer
from rewardpoints.events.coupon_result_consumer import CouponResultConsumer
from rewardpoints.events.dead_letters import DeadLetters
from rewardpoints.events.flood_guard import FloodGuard
from rewardpoints.events.order_consumer import OrderConsumer
from rewardpoints.events.raw_subscriber import Handler, RawSubscriber
from rewardpoints.events.records import Record
from rewardpoints.events.relay import CouponRequestPublisher, Relay
from rewardpoints.ledger.driver import Database
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.tombstones import TombstoneCache
from rewardpoints.settings import KafkaSettings, MongodbSettings, ServiceSettings, SiteSettingsSettings
from rewardpoints.telemetry import Metrics
from tests.simulation.broker import Broker, SimulatedConsumer, SimulatedProducer
from tests.simulation.client import SimulatedClient
from tests.simulation.faults import FaultyNetwork
from tests.simulation.loop import Process, SimulationLoop
from tests.simulation.server import Server

TENANT = "acme"
ORDERS, REQUESTS, CHARGEBACKS, RESULTS, DEAD = "orders", "requests", "chargebacks", "results", "dead"
MONGODB = MongodbSettings.model_validate({"uri": "mongodb://simulated"})
KAFKA = KafkaSettings(
    bootstrap_servers="simulated:1",
    topic_order_completed=ORDERS,
    topic_coupon_creation_requests=REQUESTS,
    topic_coupon_creation_results=RESULTS,
    topic_chargebacks=CHARGEBACKS,
    topic_dead_letter=DEAD,
)
SERVICE = ServiceSettings(retry_max_seconds=3, relay_poll_seconds=2, relay_lease_seconds=10)
SITE_SETTINGS = SiteSettingsSettings.model_validate({"cache_seconds": 300})
PART_RECORDS = 3
"""Of a batch, so many go to the ledger at once: few, so that most batches have several parts."""

POLL_SECONDS = 0.3
TRANSACTIONS_OF_THE_DEAD_SECONDS = 15.0
Result = TypeVar("Result")


class Surroundings(Protocol):
    """What a process lives in."""

    loop: SimulationLoop
    chance: random.Random
    server: Server
    broker: Broker
    network: FaultyNetwork

    def now(self) -> datetime: ...
    def failed(self, problem: str) -> None: ...


@dataclass(slots=True)
class Service:
    """One running process."""

    process: Process
    ledger: Ledger
    storefront: Storefront | None
    run: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]

    async def redeem(self, customer: str, option: str, key: str | None) -> bytes:
        """The storefront's own handler; answers the body."""
        assert self.storefront is not None
        principal = Principal(tenant=TENANT, scopes=frozenset(), subject=customer, customer_id=customer)
        arrived_at = asyncio.get_running_loop().time()
        scope = {"rewardpoints.principal": principal, "rewardpoints.arrived_at": arrived_at}
        request = Request({"type": "http", "headers": [], **scope})
        answer = await self.storefront.redeem(request, RedeemIn(id=option), "main", key)
        return bytes(answer.body)


def ledger_over(world: Surroundings, client: SimulatedClient, clock: Clock, metrics: Metrics) -> Ledger:
    """The product's ledger over a simulated client."""
    return Ledger.over(Database(client, MONGODB), SERVICE, SITE_SETTINGS, clock, metrics)


def start(world: Surroundings, name: str, *, worker: bool) -> Service:
    """Start a worker (orders, relay) or an API (storefront, coupon answers)."""
    loop = world.loop
    process = loop.process(name)
    metrics, stopping = Metrics(), asyncio.Event()
    client = SimulatedClient(world.server, world.network, root=loop.root)
    ledger = ledger_over(world, client, world.now, metrics)
    producer = SimulatedProducer(KAFKA, world.broker, world.network, loop.root)
    publisher = CouponRequestPublisher(ledger.redemptions, producer, metrics, topic=REQUESTS, by=name)

    def run(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return loop.create_task(work, context=process.context.copy())

    def subscribe(topic: str, handle: Handler, *, one_by_one: bool) -> None:
        subscriber = RawSubscriber(
            topic,
            topic,
            handle,
            settings=KAFKA,
            metrics=metrics,
            clock=world.now,
            stopping=stopping,
            on_fatal=lambda error: world.failed(f"{name} ended: {error!r}"),
            retry_max_seconds=SERVICE.retry_max_seconds,
            one_by_one=one_by_one,
        )
        run(_consume(world, process, topic, subscriber))

    dead_letters = DeadLetters(producer, DEAD, metrics, world.now)
    storefront = None
    if worker:
        orders = OrderConsumer(
            ledger.lots,
            TombstoneCache(ledger.tombstones),
            ledger.settings_reader,
            dead_letters=dead_letters,
            flood_guard=FloodGuard(SERVICE),
            metrics=metrics,
            clock=world.now,
            part_records=PART_RECORDS,
        )
        subscribe(ORDERS, orders.handle, one_by_one=False)
        relay = Relay(
            ledger.redemptions,
            publisher,
            metrics,
            world.now,
            lease_seconds=SERVICE.relay_lease_seconds,
            batch=SERVICE.relay_batch,
            poll_seconds=SERVICE.relay_poll_seconds,
            unanswered_after_seconds=SERVICE.unanswered_after_seconds,
        )
        for part, work in (
            ("relay", relay.run(stopping)),
            ("erasures", look_at_erasures(ledger.accounts, metrics, stopping)),
        ):
            run(work).add_done_callback(partial(_ended, world, f"{part} of {name}"))
    else:
        chargebacks = ChargebackConsumer(
            ledger.redemptions,
            ledger.settings_reader,
            dead_letters=dead_letters,
            flood_guard=FloodGuard(SERVICE),
            metrics=metrics,
            clock=world.now,
        )
        results = CouponResultConsumer(
            ledger.redemptions, dead_letters=dead_letters, flood_guard=FloodGuard(SERVICE), metrics=metrics
        )
        subscribe(CHARGEBACKS, chargebacks.handle, one_by_one=True)
        subscribe(RESULTS, results.handle, one_by_one=True)
        ports = Ports(
            accounts=ledger.accounts,
            redemptions=ledger.redemptions,
            redeem_options=ledger.redeem_options,
            settings_store=ledger.site_settings,
            settings_reader=ledger.settings_reader,
            coupon_requests=publisher,
        )
        storefront = Storefront(ports, world.now, random.Random(world.chance.random()).randbytes)
    process.when_dead.append(lambda: _reap(world, client))
    return Service(process, ledger, storefront, run)


def _reap(world: Surroundings, client: SimulatedClient) -> None:
    """The server ends the transactions of a client that is gone, some time later."""
    for transaction in client.begun:
        seconds = world.chance.uniform(0, TRANSACTIONS_OF_THE_DEAD_SECONDS)
        world.loop.call_later(seconds, world.server.abort, transaction, context=world.loop.root)


def _ended(world: Surroundings, name: str, task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        world.failed(f"the {name} ended: {task.exception()!r}")


async def _consume(world: Surroundings, process: Process, topic: str, subscriber: RawSubscriber) -> None:
    """Poll and hand over, as FastStream's loop does."""
    group = world.broker.group(topic)
    consumer = SimulatedConsumer(group, world.network, world.loop.root)
    subscriber._subscriber = cast("Any", SimpleNamespace(consumer=consumer))
    group.members.append(consumer)
    group.rebalance(world.chance)

    def leave() -> None:
        group.members.remove(consumer)
        group.rebalance(world.chance)

    def be_missed() -> None:
        world.loop.call_later(world.chance.uniform(0.5, 5), leave, context=world.loop.root)

    process.when_dead.append(be_missed)
    while True:
        records = consumer.poll(world.chance.randint(1, 12), world.chance)
        if records:
            await subscriber._on_batch(cast("Sequence[Record]", records))
        else:
            await asyncio.sleep(POLL_SECONDS)
