"""Reading ranges without a group: each record once, whatever has gone or is away."""

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import KafkaConnectionError, KafkaError, UnknownTopicOrPartitionError

from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.replays import PartitionProgress
from rewardpoints.events.range_reader import RangeReader
from rewardpoints.events.records import Record
from rewardpoints.settings import KafkaSettings
from tests.events.test_undecodable_wire import batch, produce_raw, undecompressable
from tests.events.wire import produce


async def everything(reader: RangeReader, max_records: int = 7) -> list[Record]:
    found: list[Record] = []
    while records := await reader.read(max_records):
        found += records
    return found


def places(records: Sequence[Record]) -> set[tuple[int, int]]:
    return {(record.partition, record.offset) for record in records}


async def test_every_record_comes_once_and_a_range_ends_where_it_was_fixed(kafka: KafkaSettings) -> None:
    topic = kafka.topic_order_completed
    for partition, count in ((0, 30), (1, 12)):
        await produce(kafka, topic, [b"%d" % number for number in range(count)], partition=partition)
    async with RangeReader(kafka, topic) as reader:
        ranges = await reader.ranges("beginning", "end")
        await produce(kafka, topic, [b"later"] * 5, partition=0)
        reader.assign(ranges)
        found = await everything(reader)
        assert (len(found), len(places(found))) == (42, 42)
        assert [one.position for one in reader.progress] == [30, 12, 0]
        assert await reader.read(7) == []


async def test_bounds_are_offsets_times_and_ends(kafka: KafkaSettings) -> None:
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"x"] * 10, partition=1)
    async with RangeReader(kafka, topic) as reader:

        async def ends(begin: Any, end: Any) -> tuple[int, int]:
            (one,) = await reader.ranges(begin, end, partition=1)
            return one.first, one.end

        hour = timedelta(hours=1)
        assert await ends(3, 7) == (3, 7)
        assert await ends(3, 700) == (3, 10)
        assert await ends("end", "end") == (10, 10)
        assert await ends("beginning", "beginning") == (0, 0)
        assert await ends(datetime.now(UTC) + hour, "end") == (10, 10)
        assert await ends(datetime.now(UTC) - hour, datetime.now(UTC)) == (0, 10)
        with pytest.raises(InvalidInput, match="no partition 9"):
            await reader.ranges("beginning", "end", partition=9)
        with pytest.raises(InvalidInput, match="partition"):
            await reader.ranges(1, "end")
    async with RangeReader(kafka, f"{topic}-none") as reader:
        with pytest.raises(UnknownTopicOrPartitionError):
            await reader.ranges("beginning", "end")


async def test_what_retention_took_is_counted_and_stepped_over(kafka: KafkaSettings) -> None:
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"x"] * 50, partition=0)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    async with RangeReader(kafka, topic) as reader:
        ranges = await reader.ranges("beginning", "end")
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=20)})
        await admin.close()
        reader.assign(ranges)
        found = await everything(reader)
        assert places(found) == {(0, offset) for offset in range(20, 50)}
        assert reader.gone == 20


async def test_what_cannot_be_decoded_holds_nothing_up(kafka: KafkaSettings) -> None:
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"a"] * 3, partition=0)
    await produce_raw(kafka, topic, batch(b"b", b"c", b"d", bad=[1]), partition=0)
    await produce(kafka, topic, [b"e"] * 3, partition=0)
    await produce(kafka, topic, [b"f"] * 3, partition=1)
    with contextlib.suppress(KafkaError):  # a broker may take no such batch
        await produce_raw(kafka, topic, undecompressable(b"1", b"2", b"3"), partition=1)
    async with RangeReader(kafka, topic) as reader:
        reader.assign(await reader.ranges("beginning", "end"))
        found = await everything(reader, max_records=2)
        assert len(found) == len(places(found))
        assert {record.value for record in found} >= {b"a", b"b", b"d", b"e", b"f"}
        assert all(one.position == one.end for one in reader.progress)


async def test_a_broker_that_is_away_is_no_end(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Kafka client then answers nothing, as it does at the end of a topic."""
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"x"] * 5, partition=0)
    async with RangeReader(kafka, topic) as reader:
        reader.assign([PartitionProgress(partition=0, first=0, end=5, position=0)])

        async def nothing(**_: Any) -> dict[Any, Any]:
            return {}

        async def away(*_: Any) -> bytes:
            raise KafkaConnectionError

        with monkeypatch.context() as patch:
            patch.setattr(reader._consumer, "getmany", nothing)
            patch.setattr(reader._consumer, "chunk", away)
            with pytest.raises(KafkaConnectionError):
                await reader.read(10)
        assert len(await everything(reader)) == 5
