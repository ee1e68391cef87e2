"""Chargebacks and coupon results: what they do to a redemption, repeated, misdirected and out of order."""

import json
from datetime import UTC, datetime

import pytest
from aiokafka.errors import KafkaError

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.domain.redemptions import RedemptionState
from rewardpoints.domain.site_settings import SiteSettings
from rewardpoints.events import dead_letters as dead
from rewardpoints.events.chargeback_consumer import ChargebackConsumer
from rewardpoints.events.coupon_result_consumer import CouponResultConsumer
from rewardpoints.events.dead_letters import DeadLetters
from rewardpoints.events.flood_guard import FloodGuard
from rewardpoints.settings import ServiceSettings
from rewardpoints.telemetry import Metrics
from tests.events.fakes import NOW, FakeProducer, FakeRedemptions, FakeSettings, redemption
from tests.events.wire import FakeRecord, metric


class House:
    """Both consumers over the same redemptions: ``r1`` asks for a coupon, ``plain`` asks for none."""

    def __init__(self) -> None:
        self.redemptions = FakeRedemptions(redemption("r1"), redemption("plain", coupon=False))
        self.producer = FakeProducer()
        self.metrics = Metrics()
        letters = DeadLetters(self.producer, "dead", self.metrics, lambda: NOW)
        self.chargebacks = ChargebackConsumer(
            self.redemptions,
            FakeSettings(SiteSettings(validity_months=1)),
            dead_letters=letters,
            flood_guard=FloodGuard(ServiceSettings()),
            metrics=self.metrics,
            clock=lambda: NOW,
        )
        self.results = CouponResultConsumer(
            self.redemptions, dead_letters=letters, flood_guard=FloodGuard(ServiceSettings()), metrics=self.metrics
        )

    @property
    def reasons(self) -> list[str]:
        return [(dict(message.headers)[dead.REASON] or b"").decode() for message in self.producer.published]

    @property
    def state(self) -> RedemptionState:
        return self.redemptions.stored["r1"].state

    def count(self, name: str, **labels: str) -> float:
        return metric(self.metrics.registry, f"{name}_total", **labels)


@pytest.fixture
def house() -> House:
    return House()


def message(identity: str = "r1", tenant: str = "acme", **fields: object) -> FakeRecord:
    body = {"redemptionId": identity, "tenant": tenant, "reason": "no stock", "status": "CREATED", **fields}
    return FakeRecord(json.dumps(body).encode(), ())


async def test_a_chargeback_delivered_three_times_gives_one_lot(house: House) -> None:
    await house.chargebacks.handle([message(points=999_999, customerId="C1"), message()])
    await house.chargebacks.handle([message()])
    (lot,) = house.redemptions.lots.values()
    assert house.state is RedemptionState.CHARGED_BACK
    assert (lot.points, lot.remaining, lot.account, lot.source_id) == (100, 100, "acme/C1", "r1")
    assert lot.description == "Chargeback - redeemed voucher could not be created."
    assert lot.reference_id is None
    assert lot.created_at == NOW
    assert lot.valid_until == datetime(2026, 6, 1, 12, tzinfo=UTC)
    assert house.redemptions.reasons == {"r1": "no stock"}
    assert house.reasons == []
    assert house.count("chargebacks", outcome="charged_back") == 1
    assert house.count("chargebacks", outcome="repeated") == 2


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (message("unknown"), "unknown_redemption"),
        (message(tenant="other"), "wrong_tenant"),
        (message(customerId="C2"), "wrong_customer"),
        (message("plain"), "no_coupon"),
        (FakeRecord(b"{"), "malformed"),
    ],
)
async def test_a_misdirected_message_is_a_dead_letter_and_the_next_is_applied(
    house: House, record: FakeRecord, reason: str
) -> None:
    await house.chargebacks.handle([record, message()])
    assert house.reasons == [reason]
    assert house.state is RedemptionState.CHARGED_BACK
    assert house.count("chargebacks", outcome=reason) == 1
    await house.results.handle([record])
    assert house.reasons == [reason, reason]


async def test_a_created_coupon_is_issued_once(house: House) -> None:
    await house.results.handle([message(), message()])
    assert house.state is RedemptionState.ISSUED
    assert house.redemptions.issued_at == {"r1": NOW}
    assert house.count("coupon_results", outcome="issued") == 1
    assert house.count("coupon_results", outcome="repeated") == 1


async def test_another_result_is_counted_and_skipped(house: House) -> None:
    await house.results.handle([message(status="PENDING")])
    assert house.state is RedemptionState.REQUESTED
    assert house.count("coupon_results", outcome="other_status") == 1
    assert house.reasons == []


async def test_a_chargeback_after_the_coupon_was_issued_is_a_dead_letter(house: House) -> None:
    await house.results.handle([message()])
    await house.chargebacks.handle([message()])
    assert house.state is RedemptionState.ISSUED
    assert house.redemptions.lots == {}
    assert house.reasons == ["already_issued"]


async def test_a_coupon_issued_after_the_chargeback_raises_an_alarm(house: House) -> None:
    await house.chargebacks.handle([message()])
    await house.results.handle([message()])
    assert house.state is RedemptionState.CHARGED_BACK
    assert house.reasons == ["issued_after_chargeback"]
    assert house.count("issued_after_chargeback") == 1


async def test_outages_raise_and_nothing_is_lost(house: House) -> None:
    house.redemptions.outage.fail_next = 1
    with pytest.raises(LedgerUnavailable):
        await house.chargebacks.handle([message()])
    house.producer.outage.fail_next = 1
    with pytest.raises(KafkaError):
        await house.chargebacks.handle([message("unknown")])
    await house.chargebacks.handle([message()])
    assert house.state is RedemptionState.CHARGED_BACK
