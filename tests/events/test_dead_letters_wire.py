"""Dead letters on a real broker: the original byte for byte, or a stub that says where to find it."""

import hashlib
from collections.abc import Sequence
from functools import partial

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.events import dead_letters as dead
from rewardpoints.events.dead_letters import DeadLetters, Rejection
from rewardpoints.events.flood_guard import FloodGuard
from rewardpoints.events.order_consumer import OrderConsumer
from rewardpoints.events.producer import EventProducer
from rewardpoints.events.records import Headers, Message, Record
from rewardpoints.settings import KafkaSettings, ServiceSettings
from rewardpoints.telemetry import Metrics
from tests.events.conftest import Read
from tests.events.fakes import NOW, FakeLots, FakeProducer, FakeSettings, FakeTombstones
from tests.events.wire import (
    BY_TENANT,
    FakeRecord,
    clock,
    committed,
    create_topic,
    metric,
    order_bytes,
    produce,
    read,
    until,
)

ERROR = RecordRejected(RejectReason.MALFORMED, "no JSON: ü")
ODD_HEADERS: Headers = (("a", b"1"), ("a", b"2"), ("none", None), ("bytes", b"\xff\x00"), ("empty", b""))


def added(record: Record) -> dict[str, bytes | None]:
    return {name: value for name, value in record.headers if name.startswith(dead.PREFIX)}


async def test_key_value_and_headers_stay_what_they_were(kafka: KafkaSettings, dead_letters: DeadLetters) -> None:
    value = b'\x00{"broken\xff'
    original = FakeRecord(value, ODD_HEADERS, topic="orders", partition=2, offset=41, timestamp=1234, key=b"k\xff")
    await dead_letters.publish(original, ERROR)
    (found,) = await read(kafka, kafka.topic_dead_letter, 1)
    assert (found.key, found.value) == (b"k\xff", value)
    assert found.headers[: len(ODD_HEADERS)] == ODD_HEADERS
    headers = added(found)
    first_seen = headers.pop(dead.FIRST_SEEN)
    assert first_seen is not None
    assert first_seen.endswith(b"+00:00")
    assert headers == {
        dead.REASON: b"malformed",
        dead.ERROR: "no JSON: ü".encode(),
        dead.SOURCE_TOPIC: b"orders",
        dead.SOURCE_PARTITION: b"2",
        dead.SOURCE_OFFSET: b"41",
        dead.SOURCE_TIMESTAMP: b"1234",
        dead.ATTEMPTS: b"1",
    }


async def test_a_record_of_nothing_stays_one(kafka: KafkaSettings, dead_letters: DeadLetters) -> None:
    await dead_letters.publish(FakeRecord(None, ()), ERROR)
    (found,) = await read(kafka, kafka.topic_dead_letter, 1)
    assert (found.key, found.value) == (b"", None)
    assert dead.OMITTED not in added(found)


async def test_a_record_at_the_size_limit_becomes_a_stub(kafka: KafkaSettings, dead_letters: DeadLetters) -> None:
    value = b"x" * (kafka.max_message_bytes - 200)
    await dead_letters.publish(FakeRecord(value, ODD_HEADERS, key=b"k"), ERROR)
    (found,) = await read(kafka, kafka.topic_dead_letter, 1)
    assert (found.key, found.value) == (b"k", None)
    assert found.headers[: len(ODD_HEADERS)] == ODD_HEADERS
    assert added(found)[dead.OMITTED] == b"value"
    assert added(found)[dead.VALUE_SIZE] == b"%d" % len(value)
    assert added(found)[dead.VALUE_SHA256] == hashlib.sha256(value).hexdigest().encode()


async def test_headers_at_the_size_limit_are_left_out_too(kafka: KafkaSettings, dead_letters: DeadLetters) -> None:
    await dead_letters.publish(FakeRecord(b"v", (("big", b"x" * kafka.max_message_bytes),), key=b"k"), ERROR)
    (found,) = await read(kafka, kafka.topic_dead_letter, 1)
    assert (found.key, found.value) == (b"", None)
    assert added(found)[dead.OMITTED] == b"value,key,headers"
    assert added(found)[dead.SOURCE_OFFSET] == b"0"


async def test_a_broker_with_a_lower_limit_gets_the_stub() -> None:
    producer = FakeProducer()
    producer.refuses = lambda message: MessageSizeTooLargeError() if len(message.value or b"") > 10 else None
    letters = DeadLetters(producer, "dead", Metrics(), clock)
    big, small = FakeRecord(b"x" * 11, (), offset=1), FakeRecord(b"y", (), offset=2)
    await letters.publish_all([Rejection(big, ERROR), Rejection(small, ERROR)])
    assert [message.value for message in producer.published] == [b"y", None]
    assert dict(producer.published[1].headers)[dead.SOURCE_OFFSET] == b"1"


async def test_small_records_keep_their_values_beside_a_large_one(
    kafka: KafkaSettings, producer: EventProducer, metrics: Metrics
) -> None:
    """aiokafka makes one batch of all of them, and the broker refuses it whole."""
    topic = f"{kafka.topic_dead_letter}-small"
    await create_topic(kafka, topic, **{"max.message.bytes": "100000"})
    sizes = [10, 150_000, 20]
    rejections = [Rejection(FakeRecord(b"x" * size, (), offset=at), ERROR) for at, size in enumerate(sizes)]
    await DeadLetters(producer, topic, metrics, clock).publish_all(rejections)
    found = await read(kafka.model_copy(update={"topic_partitions": 1}), topic, 3)
    lengths = {dict(record.headers)[dead.SOURCE_OFFSET]: record.value and len(record.value) for record in found}
    assert lengths == {b"0": 10, b"1": None, b"2": 20}


async def test_a_broker_that_takes_not_even_the_stub_stops_progress() -> None:
    producer = FakeProducer()
    producer.refuses = lambda _: MessageSizeTooLargeError()
    with pytest.raises(MessageSizeTooLargeError):
        await DeadLetters(producer, "dead", Metrics(), clock).publish(FakeRecord(b"x"), ERROR)


async def test_a_retried_record_counts_on_from_its_earlier_dead_letter() -> None:
    producer = FakeProducer()
    letters = DeadLetters(producer, "dead", Metrics(), lambda: NOW)
    earlier: Headers = ((dead.ATTEMPTS, b"2"), (dead.FIRST_SEEN, b"then"), (dead.REASON, b"other"))
    await letters.publish(FakeRecord(b"v", (*BY_TENANT, *earlier)), ERROR)
    headers = producer.published[0].headers
    assert headers[0] == BY_TENANT[0]
    assert len({name for name, _ in headers}) == len(headers)
    assert dict(headers)[dead.ATTEMPTS] == b"3"
    assert dict(headers)[dead.FIRST_SEEN] == b"then"
    assert dict(headers)[dead.REASON] == b"malformed"


async def test_an_unreachable_broker_raises() -> None:
    producer = FakeProducer()
    producer.outage.down = True
    with pytest.raises(KafkaConnectionError):
        await DeadLetters(producer, "dead", Metrics(), clock).publish(FakeRecord(b"x"), ERROR)


class Orders:
    """An order consumer over memory whose dead letters go where they are told."""

    def __init__(self, dead_letters: DeadLetters, metrics: Metrics) -> None:
        self.lots = FakeLots()
        self.consumer = OrderConsumer(
            self.lots,
            FakeTombstones(),
            FakeSettings(),
            dead_letters=dead_letters,
            flood_guard=FloodGuard(ServiceSettings()),
            metrics=metrics,
            clock=clock,
        )

    async def __call__(self, records: Sequence[Record]) -> None:
        await self.consumer.handle(records)

    def hold(self, count: int) -> bool:
        return len(self.lots.stored) == count


async def test_bad_records_among_good_ones_on_the_wire(
    kafka: KafkaSettings, dead_letters: DeadLetters, metrics: Metrics, reading: Read
) -> None:
    topic = kafka.topic_order_completed
    bad: list[tuple[bytes | None, Headers, bytes]] = [
        (b'{"id": ', BY_TENANT, b"malformed"),
        (b'{"status": "COMPLETED", "x": "\xff"}', BY_TENANT, b"malformed"),
        (order_bytes(None), BY_TENANT, b"invalid_id"),
        (order_bytes("N", totalPrice=-5), BY_TENANT, b"invalid_amount"),
        (order_bytes("E").replace(b'"totalPrice": 100', b'"totalPrice": 1e400'), BY_TENANT, b"invalid_amount"),
        (order_bytes("T"), (), b"missing_tenant"),
        (b'{"x":' + b"[" * 50_000, BY_TENANT, b"malformed"),
        (b"x" * (kafka.max_message_bytes - 200), BY_TENANT, b"malformed"),
        (None, BY_TENANT, b"malformed"),
    ]
    orders = Orders(dead_letters, metrics)
    async with reading(orders) as at_work:
        for number, (value, headers, _) in enumerate(bad):
            await produce(kafka, topic, [value], headers=headers, partition=0, key=b"bad")
            await produce(kafka, topic, [order_bytes(f"O{number}")], partition=0)
            await until(partial(orders.hold, number + 1))
        found = await read(kafka, kafka.topic_dead_letter, len(bad))
        group = at_work.subscriber.group
    in_order = sorted(found, key=lambda record: int(added(record)[dead.SOURCE_OFFSET] or b""))
    assert [added(record)[dead.REASON] for record in in_order] == [reason for *_, reason in bad]
    assert [record.value for record in in_order[:7]] == [value for value, *_ in bad[:7]]
    assert at_work.fatal == []
    assert await committed(kafka, group, topic) == {0: 2 * len(bad)}


async def test_a_failing_dead_letter_topic_stops_progress_until_it_works(
    kafka: KafkaSettings, metrics: Metrics, reading: Read
) -> None:
    topic = kafka.topic_order_completed
    producer = FakeProducer()
    producer.outage.down = True
    orders = Orders(DeadLetters(producer, kafka.topic_dead_letter, metrics, clock), metrics)
    await produce(kafka, topic, [b"{", order_bytes()], partition=0)
    async with reading(orders) as at_work:
        await until(lambda: producer.outage.calls >= 3)
        assert await committed(kafka, at_work.subscriber.group, topic) == {}
        producer.outage.down = False
        await until(lambda: producer.published)
        group = at_work.subscriber.group
    assert len(producer.published) == 1
    assert await committed(kafka, group, topic) == {0: 2}
    assert metric(metrics.registry, "dead_letters_total", topic=topic, reason="malformed") == 1


@pytest.mark.parametrize(
    "refusal",
    [
        TopicAuthorizationFailedError("dead"),
        UnknownTopicOrPartitionError("dead"),
        MessageSizeTooLargeError("not even the stub"),
        NotEnoughReplicasError("one broker is left"),
        KafkaTimeoutError("no acknowledgement"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_refused_dead_letter_stops_progress_until_it_is_taken(
    kafka: KafkaSettings, metrics: Metrics, reading: Read, refusal: KafkaError
) -> None:
    topic = kafka.topic_order_completed
    producer = FakeProducer()
    refused = 0

    def refuses_the_second(message: Message) -> KafkaError | None:
        nonlocal refused
        if dict(message.headers)[dead.SOURCE_OFFSET] != b"1":
            return None
        refused += 1
        return refusal

    producer.refuses = refuses_the_second
    orders = Orders(DeadLetters(producer, kafka.topic_dead_letter, metrics, clock), metrics)
    await produce(kafka, topic, [b"{", b"{", order_bytes()], partition=0)
    async with reading(orders) as at_work:
        await until(lambda: refused >= 6)  # each try may be several, ever smaller
        assert await committed(kafka, at_work.subscriber.group, topic) == {}
        assert metric(metrics.registry, "dead_letters_total", topic=topic, reason="malformed") == 0
        producer.refuses = lambda _: None
        await until(lambda: metric(metrics.registry, "commits_total", topic=topic) == 1)
        group = at_work.subscriber.group
    assert at_work.fatal == []
    assert orders.hold(1)
    assert await committed(kafka, group, topic) == {0: 3}
    assert {dict(message.headers)[dead.SOURCE_OFFSET] for message in producer.published} == {b"0", b"1"}
    assert metric(metrics.registry, "dead_letters_total", topic=topic, reason="malformed") == 2


async def test_a_dead_letter_topic_the_broker_does_not_allow_stops_progress_and_a_restart_with_another_one_goes_on(
    kafka: KafkaSettings, metrics: Metrics, reading: Read
) -> None:
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"{", order_bytes()], partition=0)
    impatient = EventProducer(kafka, ack_timeout_seconds=1)
    orders = Orders(DeadLetters(impatient, "no/topic?", metrics, clock), metrics)
    async with reading(orders) as at_work:
        await until(lambda: metric(metrics.registry, "batch_retries_total", topic=topic) >= 2)
        group = at_work.subscriber.group
    await impatient.stop()
    assert at_work.fatal == []
    assert await committed(kafka, group, topic) == {}
    producer = EventProducer(kafka, ack_timeout_seconds=5)
    mended = Orders(DeadLetters(producer, kafka.topic_dead_letter, metrics, clock), metrics)
    async with reading(mended):
        (letter,) = await read(kafka, kafka.topic_dead_letter, 1)
        await until(lambda: metric(metrics.registry, "commits_total", topic=topic) == 1)
    await producer.stop()
    assert letter.value == b"{"
    assert await committed(kafka, group, topic) == {0: 2}


async def test_the_producer_waits_for_no_cluster_that_is_not_there() -> None:
    producer = EventProducer(KafkaSettings(bootstrap_servers="127.0.0.1:1"), ack_timeout_seconds=2)
    assert not await producer.ready()
    with pytest.raises(KafkaError):
        await producer.connect()
    await producer.stop()
    with pytest.raises(KafkaError, match="stopped"):
        await producer.connect()
