"""Chargeback consumer: a coupon could not be created, so the points come back as a new lot."""

from collections.abc import Sequence

import structlog

from rewardpoints.domain.accounts import tenant_of
from rewardpoints.domain.chargebacks import chargeback_lot
from rewardpoints.domain.errors import RecordRejected
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.ports import Clock, Redemptions, SettingsReader
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.domain.site_settings import settings_at
from rewardpoints.events.dead_letters import DeadLetters
from rewardpoints.events.messages import Chargeback, Record, decode_chargeback
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
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._redemptions = redemptions
        self._settings = settings
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._clock = clock

    async def handle(self, records: Sequence[Record]) -> None:
        """Apply each record in order. When this returns, each is in the ledger or a dead letter.

        Raises:
            LedgerUnavailable, KafkaError: handle the same records again.
        """
        for record in records:
            try:
                outcome = await self._apply(decode_chargeback(record))
            except RecordRejected as rejection:
                await self._dead_letters.publish(record, rejection)
                outcome = rejection.reason.value
            self._metrics.chargebacks.labels(outcome).inc()

    async def _apply(self, chargeback: Chargeback) -> str:
        redemption = await named_redemption(self._redemptions, chargeback)
        lot = await self._lot(redemption, chargeback)
        if await self._redemptions.charge_back(redemption, lot, reason=chargeback.reason):
            logger.info("charged_back", redemption=redemption.id, points=redemption.points)
            return "charged_back"
        return "repeated"

    async def _lot(self, redemption: Redemption, chargeback: Chargeback) -> Lot:
        site = (tenant_of(redemption.account), redemption.site_code)
        histories = await self._settings.histories({site: chargeback.at})
        settings = settings_at(histories[site], chargeback.at)
        return chargeback_lot(redemption, settings, at=chargeback.at, recorded_at=self._clock())
