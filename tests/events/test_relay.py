"""The relay and the publisher of the API: at least once, through outages and beside each other."""

import asyncio
import json
from datetime import timedelta

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.events.messages import encode_coupon_request
from rewardpoints.events.producer import EventProducer
from rewardpoints.events.relay import MAX_BACKGROUND_PUBLISHES, CouponRequestPublisher, Relay
from rewardpoints.settings import KafkaSettings
from rewardpoints.telemetry import Metrics
from tests.events.fakes import NOW, FakeProducer, FakeRedemptions, redemption
from tests.events.wire import create_topic, end_of, metric, read, until


class House:
    """A relay over redemptions in memory; ``now`` is its clock."""

    def __init__(self, *identities: str, producer: EventProducer | None = None, topic: str = "requests") -> None:
        self.redemptions = FakeRedemptions(*(redemption(identity) for identity in identities))
        self.fake = FakeProducer()
        self.metrics = Metrics()
        self.now = NOW
        self.publisher = CouponRequestPublisher(
            self.redemptions, producer or self.fake, self.metrics, topic=topic, by="relay"
        )

    def relay(self, *, batch: int = 10) -> Relay:
        return Relay(
            self.redemptions,
            self.publisher,
            self.metrics,
            lambda: self.now,
            lease_seconds=30,
            batch=batch,
            poll_seconds=0.01,
            unanswered_after_seconds=3600,
        )

    @property
    def ids(self) -> list[bytes | None]:
        return [dict(message.headers)["ce_id"] for message in self.fake.published]


async def test_what_is_due_is_published_and_cleared() -> None:
    house = House("a", "b")
    house.redemptions.stored["later"] = redemption("later", created_at=NOW + timedelta(seconds=1))
    assert await house.relay().publish_due() == (2, 2)
    assert sorted(house.ids, key=str) == [b"a", b"b"]
    assert house.redemptions.unpublished == {"later"}
    assert metric(house.metrics.registry, "coupon_requests_published_total", by="relay") == 2


async def test_what_is_not_acknowledged_stays_and_is_due_after_its_lease() -> None:
    house = House("a", "b")
    house.fake.refuses = lambda message: KafkaTimeoutError() if dict(message.headers)["ce_id"] == b"a" else None
    assert await house.relay().publish_due() == (2, 1)
    house.fake.refuses = lambda _: None
    house.now += timedelta(seconds=29)
    assert await house.relay().publish_due() == (0, 0)
    house.now += timedelta(seconds=1)
    assert await house.relay().publish_due() == (1, 1)
    assert house.ids == [b"b", b"a"]
    assert metric(house.metrics.registry, "coupon_requests_failed_total", by="relay") == 1


async def test_a_crash_between_ack_and_clearing_publishes_the_same_again() -> None:
    house = House("a")
    mark_published = house.redemptions.mark_published

    async def crash(redemption_id: str) -> None:
        raise LedgerUnavailable("gone")

    house.redemptions.mark_published = crash  # type: ignore[method-assign]  # the fault is planted
    with pytest.raises(LedgerUnavailable):
        await house.relay().publish_due()
    house.redemptions.mark_published = mark_published  # type: ignore[method-assign]  # and removed
    house.now += timedelta(seconds=30)
    await house.relay().publish_due()
    first, second = house.fake.published
    assert first == second


async def test_without_a_connection_nothing_is_taken() -> None:
    house = House("a")
    house.fake.outage.fail_next = 1
    with pytest.raises(KafkaConnectionError):
        await house.relay().publish_due()
    assert house.redemptions.stored["a"].publish_at == NOW


async def test_the_loop_survives_outages_of_both_and_stops() -> None:
    house = House("a")
    house.redemptions.outage.fail_next = 2
    house.fake.outage.fail_next = 2
    stopping = asyncio.Event()
    running = asyncio.create_task(house.relay().run(stopping))
    await until(lambda: not house.redemptions.unpublished)
    stopping.set()
    async with asyncio.timeout(1):
        await running
    assert house.ids == [b"a"]


@pytest.mark.parametrize("where", ["connect", "publish_all"])
async def test_a_relay_that_waits_for_a_silent_kafka_stops_within_a_few_seconds(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House("a")
    waiting = asyncio.Event()

    async def hanging(*_: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(house.fake, where, hanging)
    monkeypatch.setattr("rewardpoints.events.relay.STOP_SECONDS", 0.05)
    stopping = asyncio.Event()
    running = asyncio.create_task(house.relay().run(stopping))
    await waiting.wait()
    stopping.set()
    async with asyncio.timeout(2):
        await running
    assert house.redemptions.unpublished == {"a"}


async def test_what_waits_is_counted_while_kafka_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House("a")
    waiting = asyncio.Event()

    async def hanging(*_: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(house.fake, "publish_all", hanging)
    monkeypatch.setattr("rewardpoints.events.relay.OBSERVE_SECONDS", 0.01)
    monkeypatch.setattr("rewardpoints.events.relay.STOP_SECONDS", 0.05)
    stopping = asyncio.Event()
    running = asyncio.create_task(house.relay().run(stopping))
    await waiting.wait()
    house.redemptions.outage.fail_next = 2
    house.redemptions.stored["b"] = redemption("b")
    house.redemptions.unpublished.add("b")
    await until(lambda: metric(house.metrics.registry, "coupon_requests_due") == 2)
    stopping.set()
    await running


async def test_a_publish_that_ends_soon_after_the_stop_is_cleared() -> None:
    house = House("a")
    waiting, gate = asyncio.Event(), asyncio.Event()
    mark_published = house.redemptions.mark_published

    async def slow(redemption_id: str) -> None:
        waiting.set()
        await gate.wait()
        await mark_published(redemption_id)

    house.redemptions.mark_published = slow  # type: ignore[method-assign]  # the delay is planted
    stopping = asyncio.Event()
    running = asyncio.create_task(house.relay().run(stopping))
    await waiting.wait()
    stopping.set()
    asyncio.get_running_loop().call_later(0.05, gate.set)
    await running
    assert house.redemptions.unpublished == set()


async def test_full_batches_are_followed_at_once_and_the_gauges_are_kept() -> None:
    house = House(*map(str, range(25)))
    stopping = asyncio.Event()
    running = asyncio.create_task(house.relay(batch=5).run(stopping))
    await until(lambda: not house.redemptions.unpublished)
    stopping.set()
    await running
    assert len(house.fake.published) == 25
    assert metric(house.metrics.registry, "coupon_requests_due") == 25
    assert house.redemptions.counted[0] == (NOW, 3600)


async def test_several_relays_on_the_wire_publish_everything_with_its_key(
    kafka: KafkaSettings, producer: EventProducer
) -> None:
    topic = kafka.topic_coupon_creation_requests
    house = House(*map(str, range(60)), producer=producer, topic=topic)
    stopping = asyncio.Event()
    running = [asyncio.create_task(house.relay(batch=7).run(stopping)) for _ in range(3)]
    await until(lambda: not house.redemptions.unpublished)
    stopping.set()
    await asyncio.gather(*running)
    found = await read(kafka, topic, 60)
    assert await end_of(kafka, topic) == 60
    bodies = [json.loads(record.value or b"") for record in found]
    assert {body["id"] for body in bodies} == set(map(str, range(60)))
    assert {record.key for record in found} == {b"acme/C1"}
    assert len({record.partition for record in found}) == 1


async def test_a_request_too_large_does_not_keep_the_others_back(kafka: KafkaSettings, producer: EventProducer) -> None:
    house = House("small", producer=producer, topic=kafka.topic_coupon_creation_requests)
    house.redemptions.stored["big"] = redemption("big", big=2_000_000)
    assert await house.relay().publish_due() == (2, 1)
    assert house.redemptions.unpublished == {"big"}
    house.redemptions.stored["next"] = redemption("next")
    assert await house.relay().publish_due() == (1, 1)


async def test_requests_that_fit_pass_beside_one_the_broker_refuses(
    kafka: KafkaSettings, producer: EventProducer
) -> None:
    """aiokafka makes one batch of all of them, and the broker refuses it whole."""
    topic = f"{kafka.topic_coupon_creation_requests}-small"
    await create_topic(kafka, topic, **{"max.message.bytes": "20000"})
    house = House(*map(str, range(10)), producer=producer, topic=topic)
    house.redemptions.stored["big"] = redemption("big", big=30_000)
    assert await house.relay(batch=20).publish_due() == (11, 10)
    assert house.redemptions.unpublished == {"big"}
    assert await end_of(kafka.model_copy(update={"topic_partitions": 1}), topic) == 10


async def test_a_producer_that_failed_in_a_way_nobody_knows_is_not_kept(
    producer: EventProducer, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = encode_coupon_request(redemption("a"), kafka.topic_coupon_creation_requests)
    await producer.connect()

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the sender task is gone")

    monkeypatch.setattr(producer._producer, "send", broken)
    with pytest.raises(RuntimeError):
        await producer.publish_all([message, message])
    await producer.publish(message)


async def test_the_api_publishes_in_the_background() -> None:
    house = House("a")
    house.publisher.publish_soon(redemption("a"))
    assert house.ids == []
    await house.publisher.drain(1)
    assert house.ids == [b"a"]
    assert house.redemptions.unpublished == set()


@pytest.mark.parametrize("fault", ["kafka", "ledger", "bug"])
async def test_what_fails_in_the_background_is_left_to_the_relay(fault: str) -> None:
    house = House("a")
    if fault == "kafka":
        house.fake.refuses = lambda _: KafkaTimeoutError()
    elif fault == "ledger":
        house.redemptions.outage.down = True
    else:
        house.redemptions.outage.down = True
        house.redemptions.outage.error = KeyError("a bug")
    house.publisher.publish_soon(redemption("a"))
    await house.publisher.drain(1)
    assert house.redemptions.unpublished == {"a"}


async def test_background_publishes_are_bounded_and_given_up_when_drained() -> None:
    house = House("a")
    gate = asyncio.Event()

    async def hanging(redemption_id: str) -> None:
        await gate.wait()

    house.redemptions.mark_published = hanging  # type: ignore[method-assign]  # the fault is planted
    for _ in range(MAX_BACKGROUND_PUBLISHES + 5):
        house.publisher.publish_soon(redemption("a"))
    await house.publisher.drain(0.05)
    assert len(house.fake.published) == MAX_BACKGROUND_PUBLISHES
