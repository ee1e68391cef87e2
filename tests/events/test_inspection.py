"""Reading a topic by hand."""

import pytest
from aiokafka.errors import KafkaError

from rewardpoints.events.inspection import describe, last_records, record_at
from rewardpoints.settings import KafkaSettings
from tests.events.wire import FakeRecord, produce


async def test_the_newest_records_come_oldest_first(kafka: KafkaSettings) -> None:
    topic = kafka.topic_order_completed
    for number in range(12):
        await produce(kafka, topic, [b"%d" % number])
    found = await last_records(kafka, topic, 5)
    assert [record.value for record in found] == [b"7", b"8", b"9", b"10", b"11"]
    assert len(await last_records(kafka, topic, 100)) == 12


async def test_an_empty_topic_has_none(kafka: KafkaSettings) -> None:
    assert list(await last_records(kafka, kafka.topic_chargebacks, 5)) == []


async def test_a_topic_that_is_not_there_is_an_error(kafka: KafkaSettings) -> None:
    with pytest.raises(KafkaError, match="there is no topic"):
        await last_records(kafka, f"{kafka.topic_chargebacks}-not", 5)


async def test_one_record_is_found_by_its_place(kafka: KafkaSettings) -> None:
    topic = kafka.topic_order_completed
    await produce(kafka, topic, [b"%d" % number for number in range(30)], partition=1)
    found = await record_at(kafka, topic, 1, 17)
    assert found is not None
    assert (found.partition, found.offset, found.value) == (1, 17, b"17")
    assert await record_at(kafka, topic, 1, 30) is None
    assert await record_at(kafka, topic, 0, 0) is None
    with pytest.raises(KafkaError, match="no partition 9"):
        await record_at(kafka, topic, 9, 0)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(b'{"a": 1}', {"a": 1}), (b"{broken", "{broken"), (b"\xff", "\\xff"), (None, None)],
)
def test_a_record_is_shown_as_far_as_it_can_be(value: bytes | None, shown: object) -> None:
    described = describe(FakeRecord(value, (("tenant", b"acme"), ("odd", b"\xfe"), ("none", None))))
    assert described["value"] == shown
    assert described["headers"] == {"tenant": "acme", "odd": "\\xfe", "none": None}
