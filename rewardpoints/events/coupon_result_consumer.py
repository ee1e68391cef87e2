"""Coupon result consumer: the coupon service's word on what became of a coupon request."""

from collections.abc import Sequence

import structlog

from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.ports import Redemptions
from rewardpoints.events.dead_letters import DeadLetters
from rewardpoints.events.messages import COUPON_CREATED, CouponResult, Record, decode_coupon_result
from rewardpoints.events.redemption_lookup import named_redemption
from rewardpoints.telemetry import Metrics

logger = structlog.get_logger(__name__)


class CouponResultConsumer:
    """Marks redemptions as issued, one after another. A repeated result changes nothing."""

    def __init__(self, redemptions: Redemptions, *, dead_letters: DeadLetters, metrics: Metrics) -> None:
        self._redemptions = redemptions
        self._dead_letters = dead_letters
        self._metrics = metrics

    async def handle(self, records: Sequence[Record]) -> None:
        """Apply each record in order. When this returns, each is in the ledger, skipped and counted, or a dead letter.

        Raises:
            LedgerUnavailable, KafkaError: handle the same records again.
        """
        for record in records:
            try:
                outcome = await self._apply(decode_coupon_result(record))
            except RecordRejected as rejection:
                await self._dead_letters.publish(record, rejection)
                outcome = rejection.reason.value
                if rejection.reason is RejectReason.ISSUED_AFTER_CHARGEBACK:
                    self._metrics.issued_after_chargeback.inc()
                    logger.error(  # noqa: TRY400 - the traceback says nothing; the alarm is the point
                        "issued_after_chargeback",
                        topic=record.topic,
                        partition=record.partition,
                        offset=record.offset,
                    )
            self._metrics.coupon_results.labels(outcome).inc()

    async def _apply(self, result: CouponResult) -> str:
        if result.status != COUPON_CREATED:
            return "other_status"
        redemption = await named_redemption(self._redemptions, result)
        return "issued" if await self._redemptions.mark_issued(redemption, at=result.at) else "repeated"
