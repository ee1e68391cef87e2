"""The coupon service of the tests: reads requests, creates most coupons, cannot create some, is silent on the rest."""

import asyncio
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tests.e2e.stack import TENANT, Stack
from tests.faults.load import publish_surely

POLL_MS = 500


class Decision(StrEnum):
    """What the coupon service answers."""

    CREATED = "issued"
    CHARGED_BACK = "charged_back"
    SILENT = "requested"


def decision(redemption_id: str) -> Decision:
    """Fixed by the id, so that a request that comes twice is answered twice with the same."""
    share = int(redemption_id[-4:], 16) % 10
    if share < 2:
        return Decision.CHARGED_BACK
    return Decision.CREATED if share < 8 else Decision.SILENT


class CouponService:
    """Answers every request at least once. ``requests`` are those it has seen, code by redemption id."""

    def __init__(self, stack: Stack) -> None:
        self.requests: dict[str, str] = {}
        self.deliveries = 0
        self.problems: list[str] = []
        self._stack = stack

    async def run(self, enough: asyncio.Event) -> None:
        """Until it is enough; what was published before that is answered."""
        kafka = self._stack.kafka
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest")
        topic = kafka.topic_coupon_creation_requests
        async with consumer:
            consumer.assign([TopicPartition(topic, number) for number in range(kafka.topic_partitions)])
            while not enough.is_set():
                try:
                    found = await consumer.getmany(timeout_ms=POLL_MS)
                except KafkaError:
                    continue
                for records in found.values():
                    await self._answer([json.loads(record.value) for record in records])

    async def _answer(self, requests: Sequence[dict[str, Any]]) -> None:
        chargebacks, results = [], []
        for request in requests:
            redemption, code = request["id"], request["code"]
            self.deliveries += 1
            if self.requests.setdefault(redemption, code) != code:
                self.problems.append(f"request {redemption}: code {self.requests[redemption]}, then {code}")
            said = decision(redemption)
            message = {"redemptionId": redemption, "tenant": TENANT}
            if said is Decision.CHARGED_BACK:
                chargebacks.append(json.dumps({**message, "reason": "no codes left"}).encode())
            elif said is Decision.CREATED:
                results.append(json.dumps({**message, "status": "CREATED"}).encode())
        kafka = self._stack.kafka
        if chargebacks:
            await publish_surely(self._stack, chargebacks, kafka.topic_chargebacks)
        if results:
            assert kafka.topic_coupon_creation_results is not None
            await publish_surely(self._stack, results, kafka.topic_coupon_creation_results)
