"""Chargeback consumer: a coupon could not be created, so the points come back as a new lot."""

from collections.abc import Sequence

import structlog

from rewardpoints.domain.accounts import tenant_of
from rewardpoints.domain.chargebacks import chargeback_lot
from rewardpoints.domain.errors import RecordRejected
from rewardpoints.domain.ports import Clock, Redemptions, SettingsReader
from rewardpoints.domain.site_settings import settings_at
from rewardpoints.events.dead_letters import DeadLetters, Rejection
from rewardpoints.events.flood_guard import FloodGuard
from rewardpoints.events.messages import Chargeback, decode_chargeback
from rewardpoints.events.records import Record
from rewardpoints.events.redemption_lookup import named_redemption
from rewardpoints.telemetry import Metrics

logger = structlog.get_logger(__name__)


class ChargebackConsumer:
    """Applies chargebacks, one after another. A repeated one changes nothing."""

    def __init__(
        self,
        redemptions: Redemptions,
        settings: SettingsReader,
        *,
        dead_letters: DeadLetters,
        flood_guard: FloodGuard,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._redemptions = redemptions
        self._settings = settings
        self._dead_letters = dead_letters
        self._flood_guard = flood_guard
        self._metrics = metrics
        self._clock = clock

    async def handle(self, records: Sequence[Record]) -> None:
        """Apply each record in order. When this returns, each is in the ledger or a dead letter.

        Raises:
            LedgerUnavailable, KafkaError: handle the same records again.
            FloodOfBadRecords: the same; the first bad record that was too many is no dead letter.
        """
        for record in records:
            rejections = []
            try:
                outcome = await self._apply(decode_chargeback(record))
            except RecordRejected as error:
                rejections = [Rejection(record, error)]
                self._flood_guard.judge(rejections, judged=1)
                await self._dead_letters.publish_all(rejections)
                outcome = error.reason.value
            self._flood_guard.passed(rejections, judged=1)
            self._metrics.chargebacks.labels(outcome).inc()

    async def _apply(self, chargeback: Chargeback) -> str:
        applied = await charge_back(chargeback, self._redemptions, self._settings, self._clock)
        return "charged_back" if applied else "repeated"


async def charge_back(chargeback: Chargeback, redemptions: Redemptions, settings: SettingsReader, clock: Clock) -> bool:
    """Give a redemption's points back. False when they were given back before.

    Raises:
        RecordRejected: the redemption is unknown, another's, without a coupon, or issued.
        LedgerUnavailable: call it again.
    """
    redemption = await named_redemption(redemptions, chargeback)
    site = (tenant_of(redemption.account), redemption.site_code)
    histories = await settings.histories({site: chargeback.at})
    in_force = settings_at(histories[site], chargeback.at)
    lot = chargeback_lot(redemption, in_force, at=chargeback.at, recorded_at=clock())
    if not await redemptions.charge_back(redemption, lot, reason=chargeback.reason):
        return False
    logger.info("charged_back", redemption=redemption.id, points=redemption.points)
    return True
