"""Records the Kafka client cannot decode: each becomes a dead letter, and its neighbours are read."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import codec as codecs
from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBase, _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c

from rewardpoints.events import dead_letters as dead
from rewardpoints.events.dead_letters import DeadLetters
from rewardpoints.events.flood_guard import FloodGuard
from rewardpoints.events.order_consumer import OrderConsumer
from rewardpoints.events.records import Headers, Record, UndecodableRecord
from rewardpoints.events.salvage import salvage
from rewardpoints.settings import KafkaSettings, ServiceSettings
from rewardpoints.telemetry import Metrics
from tests.events.conftest import Read
from tests.events.fakes import FakeLots, FakeSettings, FakeTombstones
from tests.events.wire import (
    BY_TENANT,
    clock,
    committed,
    end_of,
    metric,
    order_bytes,
    produce,
    read,
    until,
)

PARTITION = TopicPartition("orders", 0)
WRITTEN = int(clock().timestamp() * 1000)
"""Timestamps of the records, in milliseconds: a broker removes what is older than its retention."""

_CRC_AT = DefaultRecordBase.CRC_OFFSET
_DATA_AT = DefaultRecordBase.HEADER_STRUCT.size
_LAST_OFFSET_DELTA_AT = struct.calcsize(">qiibIh")


class NotUtf8(str):
    """A header's name as no client of Java writes it."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfe"


def batch(*values: bytes, bad: Sequence[int] = (), base_offset: int = 0) -> bytearray:
    """A batch whose records at the positions ``bad`` have a header that cannot be decoded."""
    builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 1_000_000)
    for position, value in enumerate(values):
        odd: Headers = ((NotUtf8("x"), b"1"),) if position in bad else ()
        builder.append(position, WRITTEN + position, b"k", value, [*BY_TENANT, *odd])
    raw = bytearray(builder.build())
    struct.pack_into(">q", raw, 0, base_offset)  # no part of the checksum
    return raw


def sealed(raw: bytearray) -> bytearray:
    """With its length and checksum put right."""
    struct.pack_into(">i", raw, 8, len(raw) - DefaultRecordBase.AFTER_LEN_OFFSET)
    crc = calc_crc32c(bytes(raw[DefaultRecordBase.ATTRIBUTES_OFFSET :]))
    struct.pack_into(">I", raw, _CRC_AT, crc)
    return raw


def undecompressable(*values: bytes, base_offset: int = 0) -> bytearray:
    raw = batch(*values, base_offset=base_offset)
    struct.pack_into(">h", raw, DefaultRecordBase.ATTRIBUTES_OFFSET, DefaultRecordBase.CODEC_GZIP)
    return sealed(raw)


def compressed(data: bytes, *, codec: int) -> bytearray:
    """A batch whose records are ``data``, said to be compressed in a certain way."""
    raw = batch(b"0")
    raw[_DATA_AT:] = data
    struct.pack_into(">h", raw, DefaultRecordBase.ATTRIBUTES_OFFSET, codec)
    return sealed(raw)


def _moved(raw: bytearray, base_offset: int) -> bytearray:
    moved = bytearray(raw)
    struct.pack_into(">q", moved, 0, base_offset)
    return moved


class Orders:
    """An order consumer over memory."""

    def __init__(self, dead_letters: DeadLetters, metrics: Metrics) -> None:
        self.lots = FakeLots()
        self.handle = OrderConsumer(
            self.lots,
            FakeTombstones(),
            FakeSettings(),
            dead_letters=dead_letters,
            flood_guard=FloodGuard(ServiceSettings()),
            metrics=metrics,
            clock=clock,
        ).handle


async def produce_raw(settings: KafkaSettings, topic: str, raw: bytearray, *, partition: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
        built = producer.create_batch()
        built.append(key=None, value=b"replaced below", timestamp=None)
        built.close()
        built._buffer = raw
        await (await producer.send_batch(built, topic, partition=partition))


def kinds(records: Sequence[Record]) -> list[object]:
    """Values of what was read, offsets of what was not."""
    return [
        (record.offset, record.last_offset) if isinstance(record, UndecodableRecord) else record.value
        for record in records
    ]


async def test_a_header_name_that_is_no_utf8_costs_its_own_record_only(
    kafka: KafkaSettings, dead_letters: DeadLetters, metrics: Metrics, reading: Read
) -> None:
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [order_bytes("A")], partition=0)
    await produce_raw(kafka, topic, batch(order_bytes("B"), order_bytes("C"), order_bytes("D"), bad=[1]), partition=0)
    await produce(kafka, topic, [order_bytes("E")], partition=0)
    await produce(kafka, topic, [order_bytes("F")], partition=1)
    orders = Orders(dead_letters, metrics)
    async with reading(orders.handle) as at_work:
        await until(lambda: orders.lots.orders == {"A", "B", "D", "E", "F"})
        (letter,) = await read(kafka, kafka.topic_dead_letter, 1)
        group, subscriber = at_work.subscriber.group, at_work.subscriber._subscriber
        assert subscriber is not None
        assert len(subscriber.tasks) == 1  # the framework restarts a task that ends in anything but a KafkaError
    headers = dict(letter.headers)
    assert (letter.value, headers[dead.REASON]) == (None, b"undecodable")
    assert (headers[dead.SOURCE_OFFSET], headers[dead.SOURCE_TIMESTAMP]) == (b"2", b"%d" % (WRITTEN + 1))
    assert b"offsets 2 to 2" in (headers[dead.ERROR] or b"")
    assert at_work.fatal == []
    assert await committed(kafka, group, topic) == {0: 5, 1: 1}
    assert metric(metrics.registry, "dead_letters_total", topic=topic, reason="undecodable") == 1


async def test_a_batch_that_cannot_be_decompressed_is_one_dead_letter_and_is_stepped_over(
    kafka: KafkaSettings, dead_letters: DeadLetters, metrics: Metrics, reading: Read
) -> None:
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [order_bytes("A")], partition=0)
    try:
        await produce_raw(kafka, topic, undecompressable(b"1", b"2", b"3"), partition=0)
    except KafkaError as refusal:
        pytest.skip(f"this broker takes no such batch: {refusal!r}")
    await produce(kafka, topic, [order_bytes("B")], partition=0)
    orders = Orders(dead_letters, metrics)
    async with reading(orders.handle) as at_work:
        await until(lambda: orders.lots.orders == {"A", "B"})
        (letter,) = await read(kafka, kafka.topic_dead_letter, 1)
        group = at_work.subscriber.group
    headers = dict(letter.headers)
    assert (headers[dead.REASON], headers[dead.SOURCE_OFFSET]) == (b"undecodable", b"1")
    assert b"offsets 1 to 3" in (headers[dead.ERROR] or b"")
    assert await committed(kafka, group, topic) == {0: 5}
    async with reading(orders.handle):  # the range is committed as a whole
        await produce(kafka, topic, [order_bytes("C")], partition=0)
        await until(lambda: "C" in orders.lots.orders)
    assert metric(metrics.registry, "dead_letters_total", topic=topic, reason="undecodable") == 1


async def test_a_batch_of_an_unknown_compression_is_one_dead_letter(
    kafka: KafkaSettings, dead_letters: DeadLetters, metrics: Metrics, reading: Read
) -> None:
    topic = kafka.topic_order_completed
    try:
        await produce_raw(kafka, topic, compressed(b"what ever", codec=7), partition=0)
    except KafkaError as refusal:
        pytest.skip(f"this broker takes no such batch: {refusal!r}")
    await produce(kafka, topic, [order_bytes("A")], partition=0)
    orders = Orders(dead_letters, metrics)
    async with reading(orders.handle):
        await until(lambda: orders.lots.orders == {"A"})
        (letter,) = await read(kafka, kafka.topic_dead_letter, 1)
    assert b"Unknown compression codec" in (dict(letter.headers)[dead.ERROR] or b"")


async def test_partitions_with_undecodable_records_one_beside_the_other_are_all_read(
    kafka: KafkaSettings, dead_letters: DeadLetters, metrics: Metrics, reading: Read
) -> None:
    """In batches of two, so that positions lie inside batches of the topic, and with a restart in between."""
    topic = kafka.topic_order_completed
    expected = set()
    for partition in range(3):
        for start in range(2):
            names = [f"{partition}-{start}-{at}" for at in range(5)]
            await produce_raw(kafka, topic, batch(*map(order_bytes, names), bad=[1, 3]), partition=partition)
            expected |= {names[0], names[2], names[4]}
    orders = Orders(dead_letters, metrics)
    small = kafka.model_copy(update={"max_batch_records": 2})
    async with reading(orders.handle, settings=small) as at_work:
        await until(lambda: len(orders.lots.orders) >= 5)
        group = at_work.subscriber.group
    before = orders.lots.orders
    assert before <= expected
    async with reading(orders.handle, settings=small) as at_work:
        await until(lambda: orders.lots.orders == expected)
        found = await read(kafka, kafka.topic_dead_letter, 12)
    assert at_work.fatal == []
    places = {(dict(one.headers)[dead.SOURCE_PARTITION], dict(one.headers)[dead.SOURCE_OFFSET]) for one in found}
    assert places == {(b"%d" % partition, b"%d" % offset) for partition in range(3) for offset in (1, 3, 6, 8)}
    assert await committed(kafka, group, topic) == {0: 10, 1: 10, 2: 10}
    assert await end_of(kafka, kafka.topic_dead_letter) == 12


def test_salvage_goes_on_from_the_position_over_batches_and_stops_at_the_bound() -> None:
    chunk = bytes(
        batch(b"0", b"1") + batch(b"2", b"3", b"4", bad=[1], base_offset=2) + undecompressable(b"5", base_offset=5)
    )
    whole = salvage(PARTITION, chunk + chunk[:70], position=1, max_records=None)
    assert kinds(whole.records) == [b"1", b"2", (3, 3), b"4", (5, 5)]
    assert (whole.next_offset, whole.broken) == (6, True)
    first = salvage(PARTITION, chunk, position=0, max_records=3)
    assert kinds(first.records) == [b"0", b"1", b"2"]
    assert (first.next_offset, first.broken) == (3, False)
    cut = salvage(PARTITION, chunk[:-1], position=4, max_records=None)
    assert (kinds(cut.records), cut.next_offset) == ([b"4"], 5)


def test_salvage_after_an_undecodable_record_of_the_same_batch() -> None:
    """aiokafka decodes a batch from its beginning, so the committed offset behind the bad record does not help it."""
    found = salvage(PARTITION, bytes(batch(b"0", b"1", bad=[0])), position=1, max_records=None)
    assert (kinds(found.records), found.next_offset, found.broken) == ([b"1"], 2, True)


def test_salvage_names_a_range_where_record_boundaries_are_lost() -> None:
    raw = batch(b"0", b"1", b"2")
    end_of_first = _DATA_AT + 1 + raw[_DATA_AT] // 2
    raw[end_of_first] = 1  # a record of a length below 0
    found = salvage(PARTITION, bytes(sealed(raw)), position=0, max_records=None)
    assert (kinds(found.records), found.next_offset) == ([b"0", (1, 2)], 3)


@pytest.mark.parametrize("more", [b"", b"rest"])
def test_salvage_forgives_bytes_after_the_last_record(more: bytes) -> None:
    found = salvage(PARTITION, bytes(sealed(batch(b"0") + more)), position=0, max_records=None)
    assert (kinds(found.records), found.next_offset, found.broken) == ([b"0"], 1, bool(more))


@pytest.mark.parametrize(
    ("codec", "encode"),
    [
        (DefaultRecordBase.CODEC_GZIP, codecs.gzip_encode),
        (DefaultRecordBase.CODEC_SNAPPY, codecs.snappy_encode),
        (DefaultRecordBase.CODEC_LZ4, codecs.lz4_encode),
        (DefaultRecordBase.CODEC_ZSTD, codecs.zstd_encode),
    ],
)
def test_salvage_reads_compressed_batches(codec: int, encode: Callable[[bytes], bytes]) -> None:
    raw = batch(b"0", b"1", bad=[0])
    raw[_DATA_AT:] = encode(bytes(raw[_DATA_AT:]))
    struct.pack_into(">h", raw, DefaultRecordBase.ATTRIBUTES_OFFSET, codec)
    assert kinds(salvage(PARTITION, bytes(sealed(raw)), position=0, max_records=None).records) == [(0, 0), b"1"]


def test_salvage_waits_for_the_library_of_a_compression_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "has_zstd", lambda: False)
    raw = bytes(compressed(b"", codec=DefaultRecordBase.CODEC_ZSTD))
    with pytest.raises(UnsupportedCodecError, match="zstd"):
        salvage(PARTITION, raw, position=0, max_records=None)


def test_salvage_skips_the_markers_of_transactions() -> None:
    marker = batch(b"\x00\x00\x00\x00\x00\x01", base_offset=1)
    struct.pack_into(">h", marker, DefaultRecordBase.ATTRIBUTES_OFFSET, DefaultRecordBase.CONTROL_MASK)
    chunk = bytes(batch(b"0", bad=[0]) + sealed(marker) + batch(b"2", base_offset=2) + sealed(_moved(marker, 3)))
    found = salvage(PARTITION, chunk, position=0, max_records=None)
    assert (kinds(found.records), found.next_offset) == ([(0, 0), b"2"], 4)


def test_salvage_of_what_compaction_left() -> None:
    """Offsets are missing between records, before the first and behind the last one."""
    raw = batch(b"2", b"3", b"4", bad=[1], base_offset=2)
    raw[_DATA_AT + 3] = 4  # the first record's offset is 4: varints are zigzag
    second = _DATA_AT + 1 + raw[_DATA_AT] // 2
    third = second + 1 + raw[second] // 2
    raw[second + 3], raw[third + 3] = 8, 10
    struct.pack_into(">i", raw, _LAST_OFFSET_DELTA_AT, 9)
    found = salvage(PARTITION, bytes(sealed(raw)), position=0, max_records=None)
    assert (kinds(found.records), found.next_offset) == ([b"2", (6, 6), b"4"], 12)
    assert [record.offset for record in found.records] == [4, 6, 7]
    later = salvage(PARTITION, bytes(raw), position=7, max_records=None)
    assert (kinds(later.records), later.next_offset, later.broken) == ([b"4"], 12, True)


def test_salvage_of_a_batch_that_claims_more_records_than_it_holds() -> None:
    raw = batch(b"0", b"1")
    struct.pack_into(">i", raw, _DATA_AT - 4, 5)
    found = salvage(PARTITION, bytes(sealed(raw)), position=0, max_records=None)
    assert (kinds(found.records), found.next_offset, found.broken) == ([b"0", b"1"], 2, True)


def test_salvage_of_a_batch_that_is_cut_off_finds_nothing_and_does_not_move() -> None:
    found = salvage(PARTITION, bytes(batch(b"0", b"1"))[:-1], position=0, max_records=None)
    assert found == ([], 0, False)


def test_what_another_replica_may_have_right_is_not_given_up() -> None:
    raw = batch(b"0")
    raw[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="checksum"):
        salvage(PARTITION, bytes(raw), position=0, max_records=None)
    raw = batch(b"0")
    raw[16] = 1
    with pytest.raises(CorruptRecordException, match="format"):
        salvage(PARTITION, bytes(raw), position=0, max_records=None)
