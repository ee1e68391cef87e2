"""Readiness of the servers a process depends on."""

from collections.abc import Mapping
from typing import Any

from rewardpoints.domain.errors import RewardPointsError
from rewardpoints.events.process import EventsProcess
from rewardpoints.ledger.ledger import Ledger


class LedgerCheck:
    """Readiness of MongoDB."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def check(self) -> Mapping[str, Any]:
        """Nothing to show beyond that it answers; raises LedgerUnavailable where it does not."""
        await self._ledger.ping()
        return {}


class KafkaCheck:
    """Readiness of Kafka: the groups are joined and the cluster answers."""

    def __init__(self, events: EventsProcess) -> None:
        self._events = events

    async def check(self) -> Mapping[str, Any]:
        """What is read, and what of it is paused (which is no fault of Kafka); raises KafkaNotReady where it is not."""
        if not await self._events.kafka_ready():
            raise KafkaNotReady
        return {"reading": sorted(self._events.reading), "paused": sorted(self._events.paused)}


class KafkaNotReady(RewardPointsError):
    """Kafka does not answer, or a consumer has not joined its group."""
