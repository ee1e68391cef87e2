"""The flood guard: bad records by the hundred are held back, a few never are, and what is good is taken meanwhile."""

import pytest

from rewardpoints.domain.errors import LedgerUnavailable, RecordRejected, RejectReason
from rewardpoints.domain.site_settings import SiteSettings
from rewardpoints.events.chargeback_consumer import ChargebackConsumer
from rewardpoints.events.coupon_result_consumer import CouponResultConsumer
from rewardpoints.events.dead_letters import DeadLetters, Rejection
from rewardpoints.events.flood_guard import FloodGuard, FloodOfBadRecords
from rewardpoints.events.order_consumer import OrderConsumer
from rewardpoints.events.records import Record
from rewardpoints.settings import ServiceSettings
from rewardpoints.telemetry import Metrics
from tests.events.fakes import NOW, FakeLots, FakeProducer, FakeRedemptions, FakeSettings, FakeTombstones, redemption
from tests.events.wire import FakeRecord, order_bytes

DEFAULT = ServiceSettings()
SMALL = ServiceSettings(flood_window_records=10)
"""Half of ten: five bad records are a flood, four never are."""


def rejections(count: int, reason: RejectReason = RejectReason.MALFORMED) -> list[Rejection]:
    return [Rejection(FakeRecord(b"{", offset=at), RecordRejected(reason, "broken")) for at in range(count)]


def passes(guard: FloodGuard, bad: int, *, judged: int) -> bool:
    try:
        guard.judge(rejections(bad), judged=judged)
    except FloodOfBadRecords:
        return False
    guard.passed(rejections(bad), judged=judged)
    return True


def test_as_many_bad_records_as_half_a_window_are_needed_however_quiet_the_topic_is() -> None:
    guard = FloodGuard(DEFAULT)
    assert all(passes(guard, 1, judged=1) for _ in range(249))
    assert not passes(guard, 1, judged=1)


def test_a_whole_batch_is_judged_at_once() -> None:
    assert passes(FloodGuard(DEFAULT), 249, judged=249)
    assert not passes(FloodGuard(DEFAULT), 250, judged=250)
    assert passes(FloodGuard(DEFAULT), 499, judged=1000)
    assert not passes(FloodGuard(DEFAULT), 500, judged=1000)


@pytest.mark.parametrize("batch", [1, 7, 100, 1000])
def test_a_tenth_of_bad_records_is_never_a_flood(batch: int) -> None:
    guard = FloodGuard(DEFAULT)
    for start in range(0, 11_000, batch):
        bad = sum(at % 11 == 0 for at in range(start, start + batch))
        assert passes(guard, bad, judged=batch)


@pytest.mark.parametrize("before", [0, 1, 499, 500, 1000, 5000])
def test_a_window_of_bad_records_in_a_row_is_a_flood_whatever_came_before(before: int) -> None:
    guard = FloodGuard(DEFAULT)
    assert passes(guard, 0, judged=before)
    through = next(count for count in range(1000) if not passes(guard, 1, judged=1))
    assert 249 <= through < 500


def test_good_records_end_what_was_nearly_a_flood() -> None:
    guard = FloodGuard(SMALL)
    assert passes(guard, 4, judged=4)
    assert all(passes(guard, 0, judged=1) for _ in range(10))
    assert passes(guard, 4, judged=4)


def test_records_without_a_bad_one_pass_whatever_came_before() -> None:
    guard = FloodGuard(SMALL)
    guard.passed(rejections(10), judged=10)
    assert passes(guard, 0, judged=1)
    assert not passes(guard, 1, judged=1)


def test_the_memory_of_a_guard_is_bounded() -> None:
    guard = FloodGuard(DEFAULT)
    for _ in range(2000):
        guard.passed([], judged=1)
    assert len(guard._passed) == 500


def test_a_flood_names_the_commonest_reason_and_the_first_record_at_hand() -> None:
    guard = FloodGuard(SMALL)
    assert passes(guard, 4, judged=4)
    at_hand = rejections(3, RejectReason.INVALID_ID)[2:] + rejections(1)
    with pytest.raises(FloodOfBadRecords, match="6 of the last 10 records") as raised:
        guard.judge(at_hand, judged=6)
    assert (raised.value.reason, raised.value.first.offset) == (RejectReason.MALFORMED, 2)


def test_it_can_be_switched_off() -> None:
    guard = FloodGuard(ServiceSettings(flood_pause=False, flood_window_records=10))
    assert all(passes(guard, 100, judged=100) for _ in range(10))


class House:
    """The three consumers, each with a guard of its own, over the same dead letters."""

    def __init__(self, service: ServiceSettings = SMALL) -> None:
        self.lots = FakeLots()
        self.redemptions = FakeRedemptions(redemption("r1"))
        self.producer = FakeProducer()
        metrics = Metrics()
        letters = DeadLetters(self.producer, "dead", metrics, lambda: NOW)
        settings = FakeSettings(SiteSettings(validity_months=1))
        self.orders = OrderConsumer(
            self.lots,
            FakeTombstones(),
            settings,
            dead_letters=letters,
            flood_guard=FloodGuard(service),
            metrics=metrics,
            clock=lambda: NOW,
        )
        self.chargebacks = ChargebackConsumer(
            self.redemptions,
            settings,
            dead_letters=letters,
            flood_guard=FloodGuard(service),
            metrics=metrics,
            clock=lambda: NOW,
        )
        self.results = CouponResultConsumer(
            self.redemptions, dead_letters=letters, flood_guard=FloodGuard(service), metrics=metrics
        )


def records(*values: bytes) -> list[Record]:
    return [FakeRecord(value, offset=offset) for offset, value in enumerate(values)]


async def test_of_a_flooded_batch_the_good_orders_are_lots_once_and_nothing_is_a_dead_letter() -> None:
    house = House()
    batch = records(order_bytes("A"), *[b"{"] * 9, order_bytes("B"))
    for _ in range(3):
        with pytest.raises(FloodOfBadRecords):
            await house.orders.handle(batch)
    assert house.lots.orders == {"A", "B"}
    assert house.producer.published == []


async def test_what_the_ledger_can_never_take_counts_too() -> None:
    house = House()
    house.lots.never_taken = {"A", "B", "C", "D", "E"}
    batch = records(*(order_bytes(name) for name in "ABCDEF"))
    with pytest.raises(FloodOfBadRecords):
        await house.orders.handle(batch)
    house.lots.never_taken = {"A"}  # somebody has mended the others
    await house.orders.handle(batch)
    assert house.lots.orders == set("BCDEF")
    assert len(house.producer.published) == 1


async def test_a_batch_that_is_tried_again_counts_once() -> None:
    house = House()
    house.producer.outage.fail_next = 20
    batch = records(order_bytes("A"), b"{")
    for _ in range(20):
        with pytest.raises(Exception, match="no broker"):
            await house.orders.handle(batch)
    await house.orders.handle(batch)
    await house.orders.handle(records(b"{", b"{", b"{"))
    assert len(house.producer.published) == 4


async def test_orders_of_another_status_hide_no_flood_and_other_skipped_ones_are_good() -> None:
    house = House()
    for number in range(20):
        await house.orders.handle(records(*[order_bytes(f"{number}-{at}", status="CREATED") for at in range(9)]))
    with pytest.raises(FloodOfBadRecords):
        await house.orders.handle(records(*[b"{"] * 5, *[order_bytes("X", status="CREATED")] * 90))
    await house.orders.handle(records(*[b"{"] * 5, *[order_bytes("X", customer=None)] * 6))
    assert len(house.producer.published) == 5


async def test_a_ledger_that_is_away_is_no_flood() -> None:
    house = House()
    house.lots.outage.down = True
    with pytest.raises(LedgerUnavailable):
        await house.orders.handle(records(*[b"{"] * 10))


@pytest.mark.parametrize("consumer", ["chargebacks", "results"])
async def test_answers_of_the_coupon_service_are_judged_one_by_one(consumer: str) -> None:
    house = House()
    handle = getattr(house, consumer).handle
    for _ in range(4):
        await handle(records(b"{"))
    with pytest.raises(FloodOfBadRecords):
        await handle(records(b"{"))
    assert len(house.producer.published) == 4
    known = b'{"redemptionId": "r1", "tenant": "acme", "status": "CREATED"}'
    for _ in range(10):
        await handle([FakeRecord(known, ())])
    await handle(records(b"{"))
    assert len(house.producer.published) == 5


async def test_results_of_another_status_are_not_judged() -> None:
    house = House()
    other = b'{"redemptionId": "r1", "tenant": "acme", "status": "PENDING"}'
    for _ in range(4):
        await house.results.handle(records(b"{"))
    for _ in range(20):
        await house.results.handle([FakeRecord(other, ())])
    with pytest.raises(FloodOfBadRecords):
        await house.results.handle(records(b"{"))
