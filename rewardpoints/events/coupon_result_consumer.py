"""Coupon result consumer: the coupon service's word on what became of a coupon request."""

from collections.abc import Sequence
from typing import Final

import structlog

from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.ports import Redemptions
from rewardpoints.events.dead_letters import DeadLetters, Rejection
from rewardpoints.events.flood_guard import FloodGuard
from rewardpoints.events.messages import COUPON_CREATED, CouponResult, decode_coupon_result
from rewardpoints.events.records import Record
from rewardpoints.events.redemption_lookup import named_redemption
from rewardpoints.telemetry import Metrics

logger = structlog.get_logger(__name__)

_OTHER_STATUS: Final = "other_status"


class CouponResultConsumer:
    """Marks redemptions as issued, one after another. A repeated result changes nothing."""

    def __init__(
        self, redemptions: Redemptions, *, dead_letters: DeadLetters, flood_guard: FloodGuard, metrics: Metrics
    ) -> None:
        self._redemptions = redemptions
        self._dead_letters = dead_letters
        self._flood_guard = flood_guard
        self._metrics = metrics
        for outcome in ("issued", "repeated", _OTHER_STATUS):  # at 0: shown wherever results are read at all
            metrics.coupon_results.labels(outcome)

    async def handle(self, records: Sequence[Record]) -> None:
        """Apply each record in order. When this returns, each is in the ledger, skipped and counted, or a dead letter.

        Raises:
            LedgerUnavailable, KafkaError: handle the same records again.
            FloodOfBadRecords: the same; the first bad record that was too many is no dead letter.
        """
        for record in records:
            rejections = []
            try:
                outcome = await self._apply(decode_coupon_result(record))
            except RecordRejected as error:
                rejections = [Rejection(record, error)]
                self._flood_guard.judge(rejections, judged=1)
                await self._dead_letters.publish_all(rejections)
                outcome = error.reason.value
                if error.reason is RejectReason.ISSUED_AFTER_CHARGEBACK:
                    self._metrics.issued_after_chargeback.inc()
                    logger.error(  # noqa: TRY400 - the traceback says nothing; the alarm is the point
                        "issued_after_chargeback",
                        topic=record.topic,
                        partition=record.partition,
                        offset=record.offset,
                    )
            if outcome != _OTHER_STATUS:
                self._flood_guard.passed(rejections, judged=1)
            self._metrics.coupon_results.labels(outcome).inc()

    async def _apply(self, result: CouponResult) -> str:
        return await mark_issued(result, self._redemptions)


async def mark_issued(result: CouponResult, redemptions: Redemptions) -> str:
    """Mark the result's redemption as issued, in one word: issued, repeated, or other_status.

    Raises:
        RecordRejected: the redemption is unknown, another's, without a coupon, or charged back.
        LedgerUnavailable: call it again.
    """
    if result.status != COUPON_CREATED:
        return _OTHER_STATUS
    redemption = await named_redemption(redemptions, result)
    return "issued" if await redemptions.mark_issued(redemption, at=result.at) else "repeated"
