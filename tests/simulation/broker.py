"""A Kafka cluster in memory: partitions, consumer groups that rebalance at any time, commits and publishes that fail.

``SimulatedProducer`` is the product's producer over a client of this cluster; ``SimulatedConsumer`` is what the
product's subscriber commits with.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError, KafkaTimeoutError

from rewardpoints.domain.ports import Clock
from rewardpoints.events.producer import EventProducer
from rewardpoints.events.records import Headers
from rewardpoints.settings import KafkaSettings
from tests.simulation.network import Network

PARTITIONS = 3


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record as a consumer gets it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Broker:
    """The topics, and the groups that read them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.logs: dict[TopicPartition, list[LogRecord]] = {}
        self.groups: dict[str, Group] = {}

    def append(
        self, topic: str, value: bytes | None, *, key: bytes | None = None, headers: Headers = (), partition: int
    ) -> LogRecord:
        """Write a record."""
        log = self.logs.setdefault(TopicPartition(topic, partition), [])
        timestamp = int(self._clock().timestamp() * 1000)
        record = LogRecord(topic, partition, len(log), timestamp, key, value, headers)
        log.append(record)
        return record

    def read(self, topic: str) -> list[LogRecord]:
        """Everything in a topic."""
        return [
            record for partition in range(PARTITIONS) for record in self.logs.get(TopicPartition(topic, partition), ())
        ]

    def group(self, topic: str) -> "Group":
        """The one group that reads a topic."""
        return self.groups.setdefault(topic, Group(self, topic))


class Group:
    """A consumer group. A rebalance takes partitions away at once, whatever their consumers are doing."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self.broker = broker
        self.topic = topic
        self.members: list[SimulatedConsumer] = []
        self.committed: dict[TopicPartition, int] = {}
        self.generation = 0

    def rebalance(self, chance: random.Random) -> None:
        """Hand the partitions out anew."""
        self.generation += 1
        for member in self.members:
            member.positions.clear()
            member.generation = self.generation
        if self.members:
            for number in range(PARTITIONS):
                partition = TopicPartition(self.topic, number)
                chance.choice(self.members).positions[partition] = self.committed.get(partition, 0)

    @property
    def lag(self) -> int:
        """Records that are not committed."""
        partitions = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        return sum(len(self.broker.logs.get(one, ())) - self.committed.get(one, 0) for one in partitions)


class SimulatedConsumer:
    """A member of a group, as the product's subscriber knows it, and the poll that feeds the subscriber."""

    def __init__(self, group: Group, network: Network, root: Context) -> None:
        self._group = group
        self._network = network
        self._root = root
        self.positions: dict[TopicPartition, int] = {}
        self.generation = -1

    def assignment(self) -> set[TopicPartition]:
        return set(self.positions)

    def poll(self, most: int, chance: random.Random) -> list[LogRecord]:
        """The next records of some partitions, each partition's in order."""
        records: list[LogRecord] = []
        partitions = list(self.positions)
        chance.shuffle(partitions)
        for partition in partitions:
            position = self.positions[partition]
            log = self._group.broker.logs.get(partition, [])
            taken = log[position : position + most - len(records)]
            self.positions[partition] = position + len(taken)
            records += taken
        return records

    def stay_in_group(self) -> None:
        """Nobody is expelled here for taking long."""

    def read_again(self) -> None:
        for partition in self.positions:
            self.positions[partition] = self._group.committed.get(partition, 0)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        carried = asyncio.get_running_loop().create_task(
            self._commit(dict(offsets), self.generation), context=self._root.copy()
        )
        carried.add_done_callback(_retrieve)
        await asyncio.shield(carried)

    async def _commit(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        fate = self._network.fate("commit")
        await asyncio.sleep(fate.there)
        if fate.request_lost:
            raise KafkaConnectionError
        if generation != self._group.generation or self not in self._group.members:
            raise CommitFailedError
        self._group.committed.update(offsets)
        self._network.note(f"commit {sorted(offsets.items())}")
        await asyncio.sleep(fate.back)
        if fate.answer_lost:
            raise KafkaConnectionError


class _ProducerClient:
    """What the product uses of ``AIOKafkaProducer``."""

    def __init__(self, broker: Broker, network: Network, root: Context) -> None:
        self._broker = broker
        self._network = network
        self._root = root

    async def send(
        self, topic: str, value: bytes | None, *, key: bytes | None, headers: Iterable[tuple[str, bytes | None]]
    ) -> asyncio.Future[None]:
        carried = asyncio.get_running_loop().create_task(
            self._send(topic, value, key, tuple(headers)), context=self._root.copy()
        )
        carried.add_done_callback(_retrieve)
        return asyncio.shield(carried)

    async def _send(self, topic: str, value: bytes | None, key: bytes | None, headers: Headers) -> None:
        fate = self._network.fate("publish")
        await asyncio.sleep(fate.there)
        if fate.request_lost:
            raise KafkaTimeoutError
        self._broker.append(topic, value, key=key, headers=headers, partition=crc32(key or b"") % PARTITIONS)
        self._network.note(f"publish {topic}")
        await asyncio.sleep(fate.back)
        if fate.answer_lost:
            raise KafkaTimeoutError

    async def stop(self) -> None:
        pass


class SimulatedProducer(EventProducer):
    """The product's producer, connected to the simulated cluster."""

    def __init__(self, settings: KafkaSettings, broker: Broker, network: Network, root: Context) -> None:
        super().__init__(settings)
        self._cluster = (broker, network, root)

    async def _connect(self, *, singly: bool = False) -> Any:
        del singly
        fate = self._cluster[1].fate("connect")
        await asyncio.sleep(fate.there)
        if fate.request_lost:
            raise KafkaConnectionError
        return _ProducerClient(*self._cluster)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Take note of a failure nobody waits for any more."""
    if not task.cancelled():
        task.exception()
