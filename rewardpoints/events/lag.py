"""Lag: looks at the topics and groups of the service from outside, without joining a group or committing anything."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_fixed

from rewardpoints.domain.lag import KafkaLook, Member, PartitionLook, SubscriptionLook
from rewardpoints.domain.ports import Clock
from rewardpoints.events.connection import client_options, consumer_group
from rewardpoints.events.inspection import partitions_of
from rewardpoints.settings import KafkaSettings

LOOK_TIMEOUT_SECONDS: Final = 60.0
RECENT: Final = timedelta(hours=1)
"""How far back records and dead letters are compared."""

POLL_MS: Final = 250
POLLS: Final = 12
"""How often the next records of lagging partitions are asked for; what has not come by then has no known age."""

FETCH_BYTES: Final = 65_536
RETRY_SECONDS: Final = 0.25
RETRY_FOR_SECONDS: Final = 15.0
NO_MEMBERS: Final = "Empty"


def subscriptions(settings: KafkaSettings) -> list[tuple[str, str]]:
    """Name and topic of everything the service reads in a group."""
    named = [
        ("orders", settings.topic_order_completed),
        ("chargebacks", settings.topic_chargebacks),
        ("coupon-results", settings.topic_coupon_creation_results),
    ]
    return [(name, topic) for name, topic in named if topic]


class LagReader:
    """Looks at Kafka as often as it is asked, over connections of its own."""

    def __init__(self, settings: KafkaSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        options = client_options(settings)
        self._admin = AIOKafkaAdminClient(**options)
        self._consumer = AIOKafkaConsumer(
            **options, enable_auto_commit=False, auto_offset_reset="none", max_partition_fetch_bytes=FETCH_BYTES
        )

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            KafkaError, OSError: Kafka cannot be reached.
        """
        try:
            await self._admin.start()
            await self._consumer.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def look(self) -> KafkaLook:
        """Everything the service reads, as it is now.

        Takes a few round trips, and up to three seconds more where the next record of a lagging partition does not
        come.

        Raises:
            KafkaError, OSError: Kafka cannot be reached in a minute, or one of the topics does not exist.
        """
        async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
            return await _retrying()(self._look)

    async def _look(self) -> KafkaLook:
        looks = [await self._subscription(name, topic) for name, topic in subscriptions(self._settings)]
        return KafkaLook(
            at=self._clock(),
            subscriptions=tuple(looks),
            dead_letters=await self._recent(await self._partitions(self._settings.topic_dead_letter)),
        )

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in await partitions_of(self._consumer, topic)]

    async def _subscription(self, name: str, topic: str) -> SubscriptionLook:
        group = consumer_group(self._settings, name)
        partitions = await self._partitions(topic)
        # Members first: while a restarted broker still loads the group, that is an error which is tried again, where
        # aiokafka takes it for a group that has never committed. Commits before ends: read the other way round, a
        # reader could seem to be ahead of the end.
        state, members = await self._members(group, topic)
        committed = await self._committed(group, partitions)
        first = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        positions = {one: max(committed.get(one, first[one]), first[one]) for one in partitions}
        waiting = {one: position for one, position in positions.items() if position < ends[one]}
        next_at = await self._next_records(waiting)
        return SubscriptionLook(
            name=name,
            topic=topic,
            group=group,
            state=state,
            members=members,
            partitions=tuple(
                PartitionLook(
                    partition=one.partition,
                    first=first[one],
                    end=ends[one],
                    committed=committed.get(one),
                    next_record_at=next_at.get(one),
                )
                for one in partitions
            ),
            written=await self._recent(partitions),
        )

    async def _committed(self, group: str, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        found = await self._admin.list_consumer_group_offsets(group, partitions=list(partitions))
        return {partition: known.offset for partition, known in found.items() if known.offset >= 0}

    async def _members(self, group: str, topic: str) -> tuple[str, tuple[Member, ...]]:
        # One group a request: of several aiokafka misreads the second
        (response,) = await self._admin.describe_consumer_groups([group])
        (described,) = response.to_object()["groups"]
        if described["error_code"]:
            raise for_code(described["error_code"])(f"group {group} cannot be described")
        members = [_member(one, topic) for one in described["members"]]
        members.sort(key=lambda member: (member.partitions, member.id))
        # "Dead" is Kafka's word for a group nobody has ever joined
        return (NO_MEMBERS if described["state"] == "Dead" else described["state"]), tuple(members)

    async def _next_records(self, waiting: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, datetime]:
        """When the next record of each lagging partition was written."""
        found: dict[TopicPartition, datetime] = {}
        missing = dict(waiting)
        for _ in range(POLLS):
            if not missing:
                break
            self._consumer.assign(list(missing))
            for partition, position in missing.items():
                self._consumer.seek(partition, position)
            try:
                records = await self._consumer.getmany(timeout_ms=POLL_MS)
            except (KafkaError, ValueError):  # which the client cannot decode, or has been deleted since: no known age
                break
            for partition, some in records.items():
                found[partition] = datetime.fromtimestamp(some[0].timestamp / 1000, UTC)
                missing.pop(partition, None)
        self._consumer.unsubscribe()
        return found

    async def _recent(self, partitions: Sequence[TopicPartition]) -> int:
        """How many offsets of the partitions are of the last hour."""
        since = int((self._clock() - RECENT).timestamp() * 1000)
        begin = await self._consumer.offsets_for_times(dict.fromkeys(partitions, since))
        ends = await self._consumer.end_offsets(list(partitions))
        return sum(max(ends[one] - found.offset, 0) for one, found in begin.items() if found is not None)


def _retrying() -> AsyncRetrying:
    return AsyncRetrying(
        retry=retry_if_exception(_passing),
        wait=wait_fixed(RETRY_SECONDS),
        stop=stop_after_delay(RETRY_FOR_SECONDS),
        reraise=True,
    )


def _passing(error: BaseException) -> bool:
    """Whether the cluster says that it will be able to answer soon: electing, or making the topic of its offsets."""
    missing = isinstance(error, UnknownTopicOrPartitionError)
    return isinstance(error, KafkaError) and error.retriable and not missing


def _member(described: Mapping[str, Any], topic: str) -> Member:
    assigned: list[int] = []
    if described["member_assignment"]:  # empty while the group is rebalancing
        assignment = ConsumerProtocol.ASSIGNMENT.decode(described["member_assignment"])
        assigned = [number for name, numbers in assignment.assignment if name == topic for number in numbers]
    return Member(
        id=described["member_id"],
        client_id=described["client_id"],
        host=described["client_host"],
        partitions=tuple(sorted(assigned)),
    )
