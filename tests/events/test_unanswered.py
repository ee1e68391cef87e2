"""Redemptions the coupon service never answered, charged back by time."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from rewardpoints.domain.redemptions import Redemption, RedemptionState
from rewardpoints.domain.site_settings import SiteSettings
from rewardpoints.events.unanswered import REASON, UnansweredChargebacks
from rewardpoints.telemetry import Metrics
from tests.events.fakes import NOW, FakeRedemptions, FakeSettings, redemption
from tests.events.wire import metric, until


def chargebacks_over(redemptions: FakeRedemptions, metrics: Metrics, *, hears: bool = True) -> UnansweredChargebacks:
    async def hears_answers() -> bool:
        return hears

    return UnansweredChargebacks(
        redemptions,
        FakeSettings(SiteSettings(validity_months=1)),
        metrics=metrics,
        clock=lambda: NOW,
        hears_answers=hears_answers,
        after_seconds=3600,
        poll_seconds=0.01,
    )


async def test_only_what_waited_too_long_is_charged_back() -> None:
    old = redemption("old", created_at=NOW - timedelta(seconds=3601))
    new = redemption("new", created_at=NOW - timedelta(seconds=3599))
    redemptions, metrics = FakeRedemptions(old, new), Metrics()
    assert await chargebacks_over(redemptions, metrics).charge_back_overdue() == 1
    assert redemptions.stored["old"].state is RedemptionState.CHARGED_BACK
    assert redemptions.stored["new"].state is RedemptionState.REQUESTED
    (lot,) = redemptions.lots.values()
    assert (lot.points, lot.created_at, lot.source_id) == (100, NOW, "old")
    assert redemptions.reasons == {"old": REASON}
    assert metric(metrics.registry, "chargebacks_total", outcome=REASON) == 1


async def test_one_that_is_answered_meanwhile_is_left_alone() -> None:
    class AnsweredMeanwhile(FakeRedemptions):
        async def unanswered(self, before: datetime, *, limit: int) -> Sequence[Redemption]:
            found = await super().unanswered(before, limit=limit)
            await self.mark_issued(self.stored["r1"], at=NOW)
            return found

    redemptions = AnsweredMeanwhile(redemption("r1", created_at=NOW - timedelta(days=1)))
    assert await chargebacks_over(redemptions, Metrics()).charge_back_overdue() == 0
    assert redemptions.stored["r1"].state is RedemptionState.ISSUED
    assert redemptions.lots == {}


async def test_while_no_answers_are_read_silence_means_nothing() -> None:
    redemptions = FakeRedemptions(redemption("r1", created_at=NOW - timedelta(days=1)))
    assert await chargebacks_over(redemptions, Metrics(), hears=False).charge_back_overdue() == 0
    assert redemptions.stored["r1"].state is RedemptionState.REQUESTED


async def test_an_outage_is_waited_for() -> None:
    redemptions = FakeRedemptions(redemption("r1", created_at=NOW - timedelta(days=1)))
    redemptions.outage.fail_next = 3
    stopping = asyncio.Event()
    running = asyncio.create_task(chargebacks_over(redemptions, Metrics()).run(stopping))
    await until(lambda: redemptions.stored["r1"].state is RedemptionState.CHARGED_BACK)
    stopping.set()
    await running
