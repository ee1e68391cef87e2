"""Lag: how far the consumers are behind, from two looks at Kafka, and what coupon requests wait for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

MOST_COUNTED: Final = 10_000
"""Counts stop here: without a results topic every redemption stays unanswered, and looking must stay cheap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLook:
    """A partition as Kafka shows it: its offsets, what its group has committed, and when the next record came.

    ``committed`` is None where the group has committed nothing yet; ``next_record_at`` where there is none to be read,
    or it cannot be told.
    """

    partition: int
    first: int
    end: int
    committed: int | None
    next_record_at: datetime | None

    @property
    def position(self) -> int:
        """The offset the group reads next: what lies before the first has been deleted, and nobody waits for it."""
        return max(self.committed if self.committed is not None else self.first, self.first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a consumer group, and the partitions it reads."""

    id: str
    client_id: str
    host: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionLook:
    """One of the service's subscriptions at an instant: its group, and the partitions of its topic.

    ``written`` are the records that came to the topic within the last hour.
    """

    name: str
    topic: str
    group: str
    state: str
    members: tuple[Member, ...]
    partitions: tuple[PartitionLook, ...]
    written: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaLook:
    """Everything the service reads, at an instant, and the dead letters of the last hour."""

    at: datetime
    subscriptions: tuple[SubscriptionLook, ...]
    dead_letters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLag:
    """How far a partition's reader is behind: in records, and by the age of the oldest one it has not committed.

    ``seconds`` is 0 where nothing waits, None where it cannot be told; the rates are None without an earlier look.
    """

    partition: int
    position: int
    end: int
    records: int
    seconds: float | None
    written_per_second: float | None
    read_per_second: float | None
    member: Member | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionLag:
    """A subscription and its partitions' lag."""

    name: str
    topic: str
    group: str
    state: str
    members: tuple[Member, ...]
    partitions: tuple[PartitionLag, ...]

    @property
    def records(self) -> int:
        """Records that wait."""
        return sum(partition.records for partition in self.partitions)

    @property
    def seconds(self) -> float | None:
        """The age of the oldest of them; None where one cannot be told."""
        ages = [partition.seconds for partition in self.partitions]
        known = [age for age in ages if age is not None]
        return max(known, default=0.0) if len(known) == len(ages) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """Every subscription's lag; and of the last hour, the records that came in, and how many became dead letters."""

    at: datetime
    subscriptions: tuple[SubscriptionLag, ...]
    written: int
    dead_letters: int

    @property
    def rejected_share(self) -> float | None:
        """Dead letters of the last hour for each record that came in it; None where none came.

        Above 1 is possible: what is retried and refused again becomes a dead letter again.
        """
        return self.dead_letters / self.written if self.written else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponBacklog:
    """What coupon requests wait for. Counts stop at ``MOST_COUNTED``; ages are those of the redemptions.

    ``unpublished``: the broker has not acknowledged them. ``waiting``: neither issued nor charged back, of which
    ``overdue`` for longer than the service's limit. ``issued`` and ``charged_back``: of those redeemed since ``since``.
    """

    unpublished: int
    oldest_unpublished: datetime | None
    waiting: int
    oldest_waiting: datetime | None
    overdue: int
    oldest_overdue: datetime | None
    since: datetime
    issued: int
    charged_back: int


@dataclass(frozen=True, slots=True)
class State:
    """How far the service is at an instant: on Kafka, and with coupons."""

    lag: Lag
    coupons: CouponBacklog


def lag_of(look: KafkaLook, earlier: KafkaLook | None = None) -> Lag:
    """The lag at a look; with an earlier one also the rates between the two."""
    before: Mapping[tuple[str, int], PartitionLook] = {
        (subscription.name, partition.partition): partition
        for subscription in (earlier.subscriptions if earlier else ())
        for partition in subscription.partitions
    }
    seconds = (look.at - earlier.at).total_seconds() if earlier else 0.0
    return Lag(
        at=look.at,
        subscriptions=tuple(_subscription(one, look.at, before, seconds) for one in look.subscriptions),
        written=sum(one.written for one in look.subscriptions),
        dead_letters=look.dead_letters,
    )


def _subscription(
    look: SubscriptionLook, at: datetime, before: Mapping[tuple[str, int], PartitionLook], seconds: float
) -> SubscriptionLag:
    readers = {partition: member for member in look.members for partition in member.partitions}
    return SubscriptionLag(
        name=look.name,
        topic=look.topic,
        group=look.group,
        state=look.state,
        members=look.members,
        partitions=tuple(
            _partition(one, at, before.get((look.name, one.partition)), seconds, readers.get(one.partition))
            for one in look.partitions
        ),
    )


def _partition(
    look: PartitionLook, at: datetime, before: PartitionLook | None, seconds: float, member: Member | None
) -> PartitionLag:
    records = max(look.end - look.position, 0)
    age = None if look.next_record_at is None else max((at - look.next_record_at).total_seconds(), 0.0)
    compared = before if seconds > 0 else None
    return PartitionLag(
        partition=look.partition,
        position=look.position,
        end=look.end,
        records=records,
        seconds=age if records else 0.0,
        # a topic made anew starts again at 0
        written_per_second=max(look.end - compared.end, 0) / seconds if compared else None,
        read_per_second=max(look.position - compared.position, 0) / seconds if compared else None,
        member=member,
    )
