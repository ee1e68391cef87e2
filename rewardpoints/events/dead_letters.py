"""Dead letters: records that can never be applied, kept for an operator with the reason."""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

import structlog
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from rewardpoints.domain.errors import RecordRejected
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.ports import Clock
from rewardpoints.events.producer import TOO_LARGE, EventProducer
from rewardpoints.events.records import ORIGIN, Headers, Message, Record
from rewardpoints.telemetry import Metrics

logger = structlog.get_logger(__name__)

PREFIX: Final = "rewardpoints-dead-letter-"
"""Common prefix of the headers a dead letter adds to the original ones."""

REASON: Final = f"{PREFIX}reason"
ERROR: Final = f"{PREFIX}error"
SOURCE_TOPIC: Final = f"{PREFIX}source-topic"
SOURCE_PARTITION: Final = f"{PREFIX}source-partition"
SOURCE_OFFSET: Final = f"{PREFIX}source-offset"
SOURCE_TIMESTAMP: Final = f"{PREFIX}source-timestamp"
ATTEMPTS: Final = f"{PREFIX}attempts"
FIRST_SEEN: Final = f"{PREFIX}first-seen"
OMITTED: Final = f"{PREFIX}omitted"
VALUE_SIZE: Final = f"{PREFIX}value-size"
VALUE_SHA256: Final = f"{PREFIX}value-sha256"

MAX_ERROR_BYTES: Final = 2000


class Rejection(NamedTuple):
    """A record, and why it can never be applied."""

    record: Record
    error: RecordRejected


class DeadLetters:
    """Publishes dead letters: key, value and headers of the original unchanged, what happened in headers of their own.

    A record that is too large with these headers goes without its value, and says so with the value's size and
    SHA-256; the original stays readable at its source. A null key beside a null value becomes an empty one, which the
    Kafka client demands. ``attempts``, ``first-seen`` and ``origin`` carry on from an earlier dead letter's headers,
    which a retried record still has.
    """

    def __init__(self, producer: EventProducer, topic: str, metrics: Metrics, clock: Clock) -> None:
        self._producer = producer
        self._topic = topic
        self._metrics = metrics
        self._clock = clock

    async def publish(self, record: Record, error: RecordRejected) -> None:
        """Publish one dead letter and wait for its acknowledgement.

        Raises:
            KafkaError: it is not in the topic for certain; the record must not be passed over.
        """
        await self.publish_all([Rejection(record, error)])

    async def publish_all(self, rejections: list[Rejection]) -> None:
        """Publish dead letters and wait for their acknowledgements.

        Raises:
            KafkaError: not all of them are in the topic for certain; their records must not be passed over.
        """
        if not rejections:
            return
        now = self._clock()
        forms = [self._forms(rejection, now) for rejection in rejections]
        waiting = [(form, next(form)) for form in forms]
        while waiting:
            outcomes = await self._producer.publish_all([message for _, message in waiting])
            for outcome in outcomes:
                if outcome is not None and not isinstance(outcome, TOO_LARGE):
                    raise outcome
            refused = [(form, outcome) for (form, _), outcome in zip(waiting, outcomes, strict=True) if outcome]
            waiting = [(form, _next_form(form, outcome)) for form, outcome in refused]
        for rejection in rejections:
            self._metrics.dead_letters.labels(rejection.record.topic, rejection.error.reason.value).inc()
            logger.warning(
                "dead_letter",
                reason=rejection.error.reason.value,
                topic=rejection.record.topic,
                partition=rejection.record.partition,
                offset=rejection.record.offset,
            )

    def _forms(self, rejection: Rejection, now: datetime) -> Iterator[Message]:
        """The dead letter, ever smaller: whole, without its value, without the original's key and headers as well."""
        record = rejection.record
        added = _headers(rejection, now)
        kept: Headers = tuple((name, value) for name, value in record.headers if not name.startswith(PREFIX))
        whole = Message(self._topic, record.key, record.value, kept + added)
        if self._fits(whole):
            yield whole
        value = record.value or b""
        stub: Headers = (
            (OMITTED, b"value"),
            (VALUE_SIZE, b"%d" % len(value)),
            (VALUE_SHA256, hashlib.sha256(value).hexdigest().encode()),
        )
        without_value = Message(self._topic, record.key, None, kept + added + stub)
        if self._fits(without_value):
            yield without_value
        yield Message(self._topic, None, None, (*added, (OMITTED, b"value,key,headers"), *stub[1:]))

    def _fits(self, message: Message) -> bool:
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(message.key, message.value, list(message.headers))
        return int(size) <= self._producer.max_message_bytes


def _next_form(form: Iterator[Message], refusal: KafkaError) -> Message:
    message = next(form, None)
    if message is None:
        raise refusal
    return message


def _headers(rejection: Rejection, now: datetime) -> Headers:
    record, error = rejection
    earlier = {name: value for name, value in record.headers if name in (ATTEMPTS, FIRST_SEEN, ORIGIN) and value}
    return (
        (REASON, error.reason.value.encode()),
        (ERROR, error.explanation.encode("utf-8", "replace")[:MAX_ERROR_BYTES]),
        (SOURCE_TOPIC, record.topic.encode()),
        (SOURCE_PARTITION, b"%d" % record.partition),
        (SOURCE_OFFSET, b"%d" % record.offset),
        (SOURCE_TIMESTAMP, b"%d" % record.timestamp),
        (ATTEMPTS, b"%d" % (_number(earlier.get(ATTEMPTS)) + 1)),
        (FIRST_SEEN, earlier.get(FIRST_SEEN) or format_instant(now).encode()),
        *(((ORIGIN, earlier[ORIGIN]),) if ORIGIN in earlier else ()),
    )


def is_retried(record: Record) -> bool:
    """Whether a record was published again by an operator who knows that it was a dead letter before."""
    return any(name == ORIGIN for name, _ in record.headers)


def _number(value: bytes | None) -> int:
    return int(value) if value and value.isdigit() and len(value) < 10 else 0  # noqa: PLR2004 - no real count is longer
