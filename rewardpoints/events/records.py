"""Records: what is read from Kafka and what is published, and when a record was."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, NoReturn, Protocol

from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.instants import LATEST

Headers = tuple[tuple[str, bytes | None], ...]


class Record(Protocol):
    """A record as the Kafka client delivers it (``aiokafka.ConsumerRecord``). ``timestamp`` in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(slots=True, kw_only=True)
class UndecodableRecord:
    """Stands for the records from ``offset`` to ``last_offset`` that the Kafka client could not decode."""

    topic: str
    partition: int
    offset: int
    last_offset: int
    timestamp: int
    error: str
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()


ORIGIN: Final = "rewardpoints-dead-letter-origin"
"""Header of a record that was published again: its first ``topic/partition/offset/timestamp``."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MILLISECONDS: Final = int((LATEST - _EPOCH).total_seconds()) * 1000


class Message(NamedTuple):
    """A message to be published."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


def recorded_at(record: Record) -> datetime:
    """When the record was first published: its own timestamp, or its origin's where it is a dead letter's retry.

    So an order without a time of its own, and a chargeback, mean the same instant when they are published again.

    Raises:
        RecordRejected: it has no usable one.
    """
    for name, value in record.headers:
        if name == ORIGIN and value is not None:
            first = value.rpartition(b"/")[2]
            if first.isdigit() and len(first) <= len(str(_LATEST_MILLISECONDS)):
                return _instant(int(first))
    return published_at(record)


def published_at(record: Record) -> datetime:
    """The record's own timestamp, which is what Kafka finds it by.

    Raises:
        RecordRejected: it has no usable one.
    """
    return _instant(record.timestamp)


def _instant(milliseconds: int | None) -> datetime:
    if milliseconds is None or not 0 <= milliseconds <= _LATEST_MILLISECONDS:
        reject(RejectReason.INVALID_TIME, "the record has no usable timestamp")
    return _EPOCH + timedelta(milliseconds=milliseconds)


def reject(reason: RejectReason, explanation: str, cause: Exception | None = None) -> NoReturn:
    """Refuse the record.

    Raises:
        RecordRejected: always, for this reason.
    """
    raise RecordRejected(reason, explanation) from cause
