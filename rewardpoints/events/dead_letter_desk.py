"""The dead-letter topic as an operator works through it: letters read, told apart, and published again."""

import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from aiokafka.errors import KafkaError

from rewardpoints.domain.dead_letters import LetterAction, LetterFilter, LetterId, LetterState
from rewardpoints.domain.errors import RejectReason
from rewardpoints.domain.replays import PartitionProgress
from rewardpoints.events import dead_letters as headers
from rewardpoints.events.messages import named_account
from rewardpoints.events.producer import TOO_LARGE, EventProducer
from rewardpoints.events.range_reader import RangeReader
from rewardpoints.events.records import ORIGIN, Headers, Message, Record, UndecodableRecord
from rewardpoints.events.replay import in_window, window
from rewardpoints.settings import KafkaSettings

LETTERS_PER_READ: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the record of a letter stands, or stood; ``timestamp`` in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter, its headers read. What is missing or unreadable of them is None."""

    id: LetterId
    record: Record
    reason: str | None
    error: str | None
    source: Source | None
    origin: str | None
    attempts: int
    first_seen: str | None
    tenant: str | None
    omitted: bool
    value_sha256: str | None
    action: LetterAction | None = None

    @property
    def state(self) -> LetterState:
        """What was done about it."""
        return self.action.state if self.action else LetterState.OPEN


class CannotRetry(Exception):
    """The letter cannot be published again; the message says why."""


def letter_from(record: Record) -> DeadLetter:
    """The letter in a record of the dead-letter topic; whatever else stands there is a letter without a reason."""
    said = {name: value for name, value in record.headers if name.startswith(headers.PREFIX) and value is not None}
    topic = _text(said.get(headers.SOURCE_TOPIC))
    partition, offset = _number(said.get(headers.SOURCE_PARTITION)), _number(said.get(headers.SOURCE_OFFSET))
    source = None
    if topic and partition is not None and offset is not None:
        timestamp = _number(said.get(headers.SOURCE_TIMESTAMP))
        source = Source(topic=topic, partition=partition, offset=offset, timestamp=timestamp)
    return DeadLetter(
        id=LetterId(record.partition, record.offset),
        record=record,
        reason=_text(said.get(headers.REASON)),
        error=_text(said.get(headers.ERROR)),
        source=source,
        origin=_text(said.get(ORIGIN)),
        attempts=_number(said.get(headers.ATTEMPTS)) or 1,
        first_seen=_text(said.get(headers.FIRST_SEEN)),
        tenant=named_account(record)[0],
        omitted=headers.OMITTED in said,
        value_sha256=_text(said.get(headers.VALUE_SHA256)),
    )


def matches(letter: DeadLetter, wanted: LetterFilter) -> bool:
    """Whether a letter, its action known, is among those wanted."""
    return (
        letter.state in wanted.states
        and (not wanted.reasons or letter.reason in wanted.reasons)
        and (wanted.tenant is None or letter.tenant == wanted.tenant)
        and (wanted.source_topic is None or (letter.source is not None and letter.source.topic == wanted.source_topic))
        and in_window(window(letter.record.topic, wanted.since, wanted.before), letter.record)
    )


async def every_letter(reader: RangeReader) -> AsyncGenerator[Sequence[DeadLetter]]:
    """The letters there are now, some hundred at a time, in the order of their partitions.

    Raises:
        KafkaError: Kafka cannot be read.
    """
    reader.assign(await reader.ranges("beginning", "end"))
    while records := await reader.read(LETTERS_PER_READ):
        yield [letter_from(record) for record in records]


async def letters_at(settings: KafkaSettings, ids: Sequence[LetterId]) -> Sequence[DeadLetter]:
    """The letters of these ids, as far as they are still in the topic.

    Raises:
        KafkaError: Kafka cannot be read.
    """
    found = []
    for one in ids:
        record = await record_at(settings, settings.topic_dead_letter, one.partition, one.offset)
        if record is not None:
            found.append(letter_from(record))
    return found


async def record_at(settings: KafkaSettings, topic: str, partition: int, offset: int) -> Record | None:
    """One record, or None where it is not, or no longer, in its topic.

    Raises:
        KafkaError: Kafka cannot be read, or there is no such topic.
    """
    async with RangeReader(settings, topic) as reader:
        for one in await reader.ranges("beginning", "end"):
            if one.partition == partition and one.first <= offset < one.end:
                reader.assign([PartitionProgress(partition=partition, first=offset, end=offset + 1, position=offset)])
                found = await reader.read(1)
                return found[0] if found and found[0].offset == offset else None
    return None


class LetterDesk:
    """Publishes letters to the topics they came from, as the records they were."""

    def __init__(self, settings: KafkaSettings, producer: EventProducer) -> None:
        self._settings = settings
        self._producer = producer

    def check(self, letter: DeadLetter) -> Source:
        """Where a letter would be published again.

        Raises:
            CannotRetry: nowhere.
        """
        source = letter.source
        if source is None:
            raise CannotRetry("it does not say where it came from")
        if letter.reason == RejectReason.UNDECODABLE.value:
            raise CannotRetry("the Kafka client cannot read the original; publish it again at its source")
        settings = self._settings
        read = {settings.topic_order_completed, settings.topic_chargebacks, settings.topic_coupon_creation_results}
        if source.topic not in read:
            raise CannotRetry(f"this service does not read topic {source.topic}")
        return source

    async def message(self, letter: DeadLetter) -> Message:
        """The record of a letter as it will be published: key, value and headers of the original, and its origin.

        With the origin goes the first timestamp, which is an order's instant where the order has none of its own, and
        a chargeback's always. Only an order that was refused for being ahead of its record is judged by a new one. The
        record's own timestamp is new in any case: Kafka may delete an old one at once.

        Raises:
            CannotRetry: there is nothing to publish.
            KafkaError: the original of a letter without a value cannot be read now.
        """
        source = self.check(letter)
        record = letter.record
        if letter.omitted:
            record = await self._original(letter, source)
        kept: Headers = tuple((name, value) for name, value in record.headers if not name.startswith(headers.PREFIX))
        origin = letter.origin or f"{source}/{'' if source.timestamp is None else source.timestamp}"
        if letter.reason == RejectReason.FUTURE_TIME.value:
            origin = f"{origin.rpartition('/')[0]}/"
        added: Headers = (
            (headers.ATTEMPTS, b"%d" % letter.attempts),
            (ORIGIN, origin.encode()),
            *(((headers.FIRST_SEEN, letter.first_seen.encode()),) if letter.first_seen else ()),
        )
        return Message(source.topic, record.key, record.value, kept + added)

    async def publish(self, messages: Sequence[Message]) -> list[str | None]:
        """Publish and wait; for each None, or why the broker refuses it for good.

        Raises:
            KafkaError: some may not be published.
        """
        outcomes = await self._producer.publish_all(messages)
        answers: list[str | None] = []
        for outcome in outcomes:
            if outcome is not None and not isinstance(outcome, TOO_LARGE):
                raise outcome
            answers.append("the broker takes no message as large as this" if outcome else None)
        return answers

    async def _original(self, letter: DeadLetter, source: Source) -> Record:
        try:
            record = await record_at(self._settings, source.topic, source.partition, source.offset)
        except KafkaError as error:
            raise CannotRetry(f"its original cannot be read: {error}") from error
        if record is None or isinstance(record, UndecodableRecord):
            raise CannotRetry(f"it was too large to be kept whole, and the original is no longer at {source}")
        if letter.value_sha256 != hashlib.sha256(record.value or b"").hexdigest():
            raise CannotRetry(f"what stands at {source} now is another record")
        return record


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _number(value: bytes | None) -> int | None:
    return int(value) if value and value.isdigit() and len(value) <= 18 else None  # noqa: PLR2004 - fits 64 bits
