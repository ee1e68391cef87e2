"""Charging back by time what the coupon service never answered. Off unless the operator asks for it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import structlog

from rewardpoints.domain.accounts import tenant_of
from rewardpoints.domain.chargebacks import chargeback_lot
from rewardpoints.domain.errors import LedgerUnavailable, RecordRejected
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.ports import Clock, Redemptions, SettingsReader
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.domain.site_settings import settings_at
from rewardpoints.events.waiting import pause
from rewardpoints.telemetry import Metrics

logger = structlog.get_logger(__name__)

BATCH: Final = 100
REASON: Final = "unanswered"


class UnansweredChargebacks:
    """Gives back the points of redemptions that stayed ``requested`` for ``after_seconds``. Several may run.

    Right only where the coupon service publishes results: otherwise its silence means success. ``hears_answers`` says
    whether those are being read now: while they are not, silence means nothing either, and nobody is charged back.
    """

    def __init__(
        self,
        redemptions: Redemptions,
        settings: SettingsReader,
        *,
        metrics: Metrics,
        clock: Clock,
        hears_answers: Callable[[], Awaitable[bool]],
        after_seconds: float,
        poll_seconds: float,
    ) -> None:
        self._redemptions = redemptions
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._hears_answers = hears_answers
        self._after_seconds = after_seconds
        self._poll_seconds = poll_seconds

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping`` is set; an unreachable ledger is waited for."""
        while not stopping.is_set():
            try:
                changed = await self.charge_back_overdue()
            except LedgerUnavailable as error:
                logger.warning("unanswered_chargebacks_wait", error=str(error))
                changed = 0
            if changed < BATCH:
                await pause(self._poll_seconds, stopping)

    async def charge_back_overdue(self) -> int:
        """Charge back one batch; returns how many were.

        Raises:
            LedgerUnavailable: some may be charged back; the others are found again.
        """
        if not await self._hears_answers():
            return 0
        now = to_milliseconds(self._clock())
        overdue = await self._redemptions.unanswered(now - timedelta(seconds=self._after_seconds), limit=BATCH)
        count = 0
        for redemption in overdue:
            site = (tenant_of(redemption.account), redemption.site_code)
            settings = settings_at((await self._settings.histories({site: now}))[site], now)
            lot = chargeback_lot(redemption, settings, at=now, recorded_at=now)
            try:
                changed = await self._redemptions.charge_back(redemption, lot, reason=REASON)
            except RecordRejected:  # it was answered meanwhile
                changed = False
            if changed:
                count += 1
                self._note(redemption)
        return count

    def _note(self, redemption: Redemption) -> None:
        self._metrics.chargebacks.labels(REASON).inc()
        logger.warning("unanswered_charged_back", redemption=redemption.id, points=redemption.points)
