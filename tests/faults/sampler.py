"""Samples while a scenario runs: memory and CPU of each process, lag, due coupon requests, what faults did when."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, linear_regression, median
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.events.connection import consumer_group
from tests.e2e.stack import Stack
from tests.faults.environment import pause

READ_SECONDS = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Pid = Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class Fit:
    """A straight line through samples: how much a figure grows in an hour, beside what it usually is."""

    per_hour: float
    median: float
    mean: float
    largest: float
    samples: int

    def as_dict(self) -> dict[str, float]:
        return {name: round(getattr(self, name), 2) for name in ("per_hour", "median", "mean", "largest", "samples")}


def fit(points: Sequence[tuple[float, float]]) -> Fit | None:
    """The line through (seconds, value) points; None where there are too few."""
    if len(points) < 3:
        return None
    values = [value for _, value in points]
    slope = linear_regression([seconds for seconds, _ in points], values).slope
    return Fit(slope * 3600, median(values), fmean(values), max(values), len(values))


@dataclass(slots=True)
class Sampler:
    """Writes a JSON line every few seconds and keeps the samples. ``processes`` names each by how to get its pid."""

    stack: Stack
    processes: Mapping[str, Pid]
    counts: Callable[[], Mapping[str, int]]
    file: Path
    every_seconds: float
    samples: list[dict[str, Any]] = field(default_factory=list)
    faults: list[tuple[float, str]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    _cpu: dict[str, tuple[int, float, float]] = field(default_factory=dict)

    def note(self, fault: str) -> None:
        """A fault happens now."""
        at = round(time.monotonic() - self.began, 1)
        self.faults.append((at, fault))
        self._write({"seconds": at, "fault": fault})

    async def run(self, enough: asyncio.Event) -> None:
        """Sample until it is enough."""
        while not enough.is_set():
            sample = await self._sample()
            self.samples.append(sample)
            self._write(sample)
            await pause(self.every_seconds, enough)

    def series(self, read: Callable[[dict[str, Any]], float | None], *, after: float = 0) -> list[tuple[float, float]]:
        """(seconds, value) of each sample that has one, from ``after`` seconds on."""
        values = [(sample["seconds"], read(sample)) for sample in self.samples if sample["seconds"] >= after]
        return [(seconds, value) for seconds, value in values if value is not None]

    def _write(self, line: Mapping[str, Any]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")

    async def _sample(self) -> dict[str, Any]:
        rss, cpu = {}, {}
        for name, pid in self.processes.items():
            used = self._process(name, pid())
            if used is not None:
                rss[name] = round(used[0] / 1e6, 2)
                cpu[name] = None if used[1] is None else round(used[1], 1)
        sample: dict[str, Any] = {"rssMegabytes": rss, "cpuPercent": cpu, **self.counts()}
        sample |= await self._lags()
        sample["due"] = await self._due()
        return {"seconds": round(time.monotonic() - self.began, 1), **sample}

    def _process(self, name: str, pid: int | None) -> tuple[int, float | None] | None:
        """Resident bytes, and CPU since the last sample in percent of a core; None where there is no such process."""
        if pid is None:
            return None
        try:
            spent = _cpu_seconds(pid)
            resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
        except OSError:
            return None
        now = time.monotonic()
        before = self._cpu.get(name)
        self._cpu[name] = (pid, spent, now)
        if before is None or before[0] != pid:
            return resident, None
        return resident, 100 * (spent - before[1]) / max(now - before[2], 0.001)

    async def _lags(self) -> dict[str, int | None]:
        return {
            "lag": await self._lag("orders", self.stack.kafka.topic_order_completed),
            "chargebackLag": await self._lag("chargebacks", self.stack.kafka.topic_chargebacks),
        }

    async def _lag(self, subscriber: str, topic: str) -> int | None:
        return await lag(self.stack, subscriber, topic)

    async def _due(self) -> int | None:
        with contextlib.suppress(LedgerUnavailable):
            counts = await self.stack.ledger.redemptions.counts(datetime.now(UTC), unanswered_after_seconds=1e6)
            return counts.due
        return None


async def lag(stack: Stack, subscriber: str, topic: str) -> int | None:
    """Records of a topic that a group has not committed yet; None while Kafka does not say."""
    found = await progress(stack, subscriber, topic)
    return None if found is None else found[1] - found[0]


async def progress(stack: Stack, subscriber: str, topic: str) -> tuple[int, int] | None:
    """Records of a topic that a group has committed, and all there are; None while Kafka does not say."""
    kafka = stack.kafka
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=consumer_group(kafka, subscriber),
        enable_auto_commit=False,
    )
    try:
        async with asyncio.timeout(READ_SECONDS):
            await consumer.start()
            partitions = [TopicPartition(topic, number) for number in range(kafka.topic_partitions)]
            consumer.assign(partitions)
            done = [await consumer.committed(partition) for partition in partitions]
            ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    except (KafkaError, OSError, TimeoutError):
        return None
    finally:
        await consumer.stop()
    # a restarted broker that still loads a partition's offsets says none, which aiokafka does not tell from an error
    if any(ends[partition] and one is None for partition, one in zip(partitions, done, strict=True)):
        return None
    return sum(one or 0 for one in done), sum(ends.values())


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
