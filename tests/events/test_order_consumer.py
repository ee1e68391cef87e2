"""The order consumer over ports kept in memory: what becomes of each record, and of a batch that comes again."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import pytest
from aiokafka.errors import KafkaError, KafkaTimeoutError

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.ports import AddedLots, SiteKey
from rewardpoints.domain.site_settings import OrderValueBase, SettingsHistory, SiteSettings
from rewardpoints.events import dead_letters as dead
from rewardpoints.events.dead_letters import DeadLetters
from rewardpoints.events.flood_guard import FloodGuard
from rewardpoints.events.order_batches import RECORDS_AT_A_TIME
from rewardpoints.events.order_consumer import OrderConsumer
from rewardpoints.events.records import Record
from rewardpoints.settings import ServiceSettings
from rewardpoints.telemetry import Metrics
from tests.events.fakes import NOW, FakeLots, FakeProducer, FakeSettings, FakeTombstones
from tests.events.wire import FakeRecord, metric, order_bytes


class House:
    """An order consumer with everything around it."""

    def __init__(self, settings: SiteSettings | None = None, service: ServiceSettings | None = None) -> None:
        self.lots = FakeLots()
        self.tombstones = FakeTombstones()
        self.settings = FakeSettings(settings)
        self.producer = FakeProducer()
        self.metrics = Metrics()
        self.consumer = OrderConsumer(
            self.lots,
            self.tombstones,
            self.settings,
            dead_letters=DeadLetters(self.producer, "dead", self.metrics, lambda: NOW),
            flood_guard=FloodGuard(service or ServiceSettings()),
            metrics=self.metrics,
            clock=lambda: NOW,
            part_records=250,
        )

    def count(self, name: str, **labels: str) -> float:
        return metric(self.metrics.registry, f"{name}_total", **labels)

    @property
    def reasons(self) -> list[bytes | None]:
        return [dict(message.headers)[dead.REASON] for message in self.producer.published]


@pytest.fixture
def house() -> House:
    return House()


def records(*values: bytes) -> Sequence[Record]:
    return [FakeRecord(value, offset=offset) for offset, value in enumerate(values)]


async def test_a_batch_is_one_write_with_everything_in_its_place(house: House) -> None:
    batch = records(
        order_bytes("O1"),
        order_bytes("O2", status="CREATED"),
        b"{",
        order_bytes("O3", totalPrice=-1),
        order_bytes("O4", totalPrice=0.5),
        order_bytes("O5", customer=None),
        order_bytes("O6", totalPrice=12.99),
    )
    await house.consumer.handle(batch)
    assert house.lots.batches == [2]
    assert {lot.source_id: lot.points for lot in house.lots.stored.values()} == {"O1": 100, "O6": 12}
    assert house.reasons == [b"malformed", b"invalid_amount"]
    assert house.count("lots_added") == 2
    for reason in ("status", "zero_points", "anonymous_customer"):
        assert house.count("orders_skipped", reason=reason) == 1
    assert house.count("dead_letters", topic="orders", reason="malformed") == 1


async def test_a_lot_says_where_it_came_from_and_why(house: House) -> None:
    await house.consumer.handle([FakeRecord(order_bytes("O1"), topic="t", partition=2, offset=7)])
    (lot,) = house.lots.stored.values()
    assert lot.account == "acme/C1"
    assert lot.reference_id == "O1"
    assert lot.created_at == NOW - timedelta(minutes=1)
    assert lot.recorded_at == NOW
    assert lot.origin is not None
    assert (lot.origin.topic, lot.origin.partition, lot.origin.offset) == ("t", 2, 7)
    assert lot.earned is not None
    assert (lot.earned.settings_version, lot.earned.currency) == (1, "EUR")


async def test_a_batch_that_comes_again_changes_nothing(house: House) -> None:
    batch = records(order_bytes("O1"), order_bytes("O2"))
    await house.consumer.handle(batch)
    before = dict(house.lots.stored)
    await house.consumer.handle(batch)
    assert house.lots.stored == before
    assert (house.count("lots_added"), house.count("lots_already_there"), house.count("lots_differing")) == (2, 2, 0)


async def test_an_order_twice_in_one_batch_is_one_lot_and_a_difference_is_counted(house: House) -> None:
    await house.consumer.handle(records(order_bytes("O1"), order_bytes("O1"), order_bytes("O1", totalPrice=7)))
    assert [lot.points for lot in house.lots.stored.values()] == [100]
    assert (house.count("lots_added"), house.count("lots_already_there"), house.count("lots_differing")) == (1, 2, 1)


async def test_settings_are_asked_once_a_batch_for_the_latest_order_of_each_site(house: House) -> None:
    await house.consumer.handle(
        records(
            order_bytes("O1", completed="2026-05-01T10:00:00Z"),
            order_bytes("O2", completed="2026-05-01T11:00:00Z"),
            order_bytes("O3", completed="2026-05-01T09:00:00Z"),
            order_bytes("O4", siteCode="other"),
        )
    )
    assert house.settings.asked == [
        {("acme", "main"): NOW - timedelta(hours=1), ("acme", "other"): NOW - timedelta(minutes=1)}
    ]


async def test_a_site_without_settings_is_counted(house: House) -> None:
    await house.consumer.handle([FakeRecord(order_bytes(), (("tenant", b"unknown"),))])
    assert house.lots.stored == {}
    assert house.count("orders_skipped", reason="no_settings") == 1


async def test_what_the_ledger_can_never_take_is_a_dead_letter_and_the_rest_is_taken(house: House) -> None:
    house.lots.never_taken = {"O1"}
    await house.consumer.handle(records(order_bytes("O1"), order_bytes("O2")))
    assert house.lots.orders == {"O2"}
    assert house.reasons == [b"ledger_rejected"]
    headers = dict(house.producer.published[0].headers)
    assert headers[dead.SOURCE_OFFSET] == b"0"
    assert headers[dead.ERROR] == b"the ledger can never take this lot: document is too large"


async def test_an_outage_raises_before_any_dead_letter(house: House) -> None:
    house.lots.outage.down = True
    with pytest.raises(LedgerUnavailable):
        await house.consumer.handle(records(b"{", order_bytes("O1")))
    assert house.producer.published == []
    assert house.count("orders_skipped", reason="status") == 0


async def test_a_dead_letter_that_cannot_be_published_stops_the_batch(house: House) -> None:
    house.producer.refuses = lambda _: KafkaTimeoutError("no answer")
    with pytest.raises(KafkaError):
        await house.consumer.handle(records(b"{"))
    assert house.count("dead_letters", topic="orders", reason="malformed") == 0


ACCOUNT = Account("acme/C1")


async def test_a_large_batch_goes_in_parts_and_counts_as_one(house: House) -> None:
    house.lots.never_taken = {"O300", "O600"}
    values = [order_bytes(f"O{number}") for number in range(700)]
    values[10] = b"{"
    values[20] = order_bytes("O20", status="CREATED")
    values[650] = order_bytes("O7", totalPrice=7)  # another part has it already
    applied = await house.consumer.apply(records(*values))

    assert house.lots.batches == [248, 250, 200]
    lots, added = applied.lots, applied.added
    assert [lots[position].source_id for position in added.already_there] == ["O7"]
    assert list(added.differing) == list(added.already_there)
    assert {lots[position].source_id for position in added.rejected} == {"O300", "O600"}
    assert sorted(one.record.offset for one in applied.rejections) == [10, 300, 600]
    assert {lots[position].source_id for position in added.added} == house.lots.orders
    assert len(house.lots.orders) == len(added.added) == 695
    assert house.lots.stored[lots[added.already_there[0]].id].points == 100


async def test_nothing_of_a_batch_is_on_its_way_when_it_has_failed(house: House) -> None:
    add_batch, released = house.lots.add_batch, asyncio.Event()
    under_way = 0

    async def slow(lots: Sequence[Lot], *, compare: bool = True) -> AddedLots:
        nonlocal under_way
        under_way += 1
        await released.wait()
        under_way -= 1
        return await add_batch(lots, compare=compare)

    async def no_settings(*_: object) -> object:
        assert under_way == 1  # the ledger has the first part in hand while the second is derived
        asyncio.get_running_loop().call_later(0.05, released.set)
        raise LedgerUnavailable("gone")

    histories, calls = house.settings.histories, 0

    async def of_the_first_part(needed: Mapping[SiteKey, datetime]) -> Mapping[SiteKey, SettingsHistory]:
        nonlocal calls
        calls += 1
        if calls == 250 // RECORDS_AT_A_TIME:
            house.settings.histories = no_settings  # type: ignore[assignment,method-assign]  # the fault is planted
        return await histories(needed)

    house.lots.add_batch = slow  # type: ignore[method-assign]  # only slower
    house.settings.histories = of_the_first_part  # type: ignore[method-assign]  # the fault comes with the second part
    with pytest.raises(LedgerUnavailable, match="gone"):
        await house.consumer.apply(records(*(order_bytes(f"O{number}") for number in range(300))))
    assert released.is_set()
    assert under_way == 0
    assert len(house.lots.orders) == 250


async def test_nothing_of_a_batch_is_on_its_way_when_it_was_cancelled(house: House) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(lots: Sequence[Lot], *, compare: bool = True) -> AddedLots:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError(f"{len(lots)} lots, compare={compare}")

    house.lots.add_batch = endless  # type: ignore[method-assign]  # it only ends when it is cancelled
    applying = asyncio.create_task(house.consumer.apply(records(*(order_bytes(f"O{number}") for number in range(300)))))
    await begun.wait()
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying
    assert ended.is_set()


async def test_a_part_that_the_ledger_refuses_fails_the_batch(house: House) -> None:
    house.lots.outage.fail_next = 1
    batch = records(*(order_bytes(f"O{number}") for number in range(600)))
    with pytest.raises(LedgerUnavailable):
        await house.consumer.handle(batch)
    await house.consumer.handle(batch)
    assert len(house.lots.orders) == 600


async def test_orders_of_an_erased_customer_are_skipped_later_ones_are_not(house: House) -> None:
    house.tombstones.written[ACCOUNT] = NOW - timedelta(hours=1)
    await house.tombstones.refresh()
    old, exact, new = "2026-05-01T10:59:59Z", "2026-05-01T11:00:00Z", "2026-05-01T11:00:00.001Z"
    await house.consumer.handle(
        records(order_bytes("O1", completed=old), order_bytes("O2", completed=exact), order_bytes("O3", completed=new))
    )
    assert house.lots.orders == {"O3"}
    assert house.count("orders_skipped", reason="erased") == 2


async def test_an_erasure_overtaken_by_the_insert_is_made_good(house: House) -> None:
    add_batch = house.lots.add_batch

    async def erased_meanwhile(*args: object, **options: object) -> object:
        house.tombstones.written[ACCOUNT] = NOW
        return await add_batch(*args, **options)  # type: ignore[arg-type]  # passed on as it came

    house.lots.add_batch = erased_meanwhile  # type: ignore[assignment,method-assign]  # the fault is planted
    await house.consumer.handle(records(order_bytes("O1"), order_bytes("O2", customer={"id": "C2"})))
    assert house.lots.orders == {"O2"}
    assert house.count("erased_lots_removed") == 1


async def test_old_orders_of_a_customer_erased_long_ago_are_not_even_tried(house: House) -> None:
    """Who tries may be killed before its look, and an erasure of ten minutes ago is looked at by nobody any more."""
    house.tombstones.written[ACCOUNT] = NOW
    house.tombstones.stale = True
    await house.consumer.handle(records(order_bytes("O1"), order_bytes("O2", customer={"id": "C2"})))
    assert house.lots.orders == {"O2"}
    assert house.count("orders_skipped", reason="erased") == 1
    assert house.count("erased_lots_removed") == 0


async def test_a_retry_after_a_failed_removal_removes(house: House) -> None:
    await house.consumer.handle(records(order_bytes("O1")))
    house.tombstones.written[ACCOUNT] = NOW
    house.lots.delete_outage.fail_next = 1
    batch = records(order_bytes("O1"))
    with pytest.raises(LedgerUnavailable):
        await house.consumer.handle(batch)
    assert house.lots.orders == {"O1"}
    await house.consumer.handle(batch)  # skipped as erased by now, and removed all the same
    assert house.lots.orders == set()


@pytest.mark.parametrize(
    ("base", "points"), [(OrderValueBase.TOTAL_PRICE, [333, 812]), (OrderValueBase.SUB_TOTAL_PRICE, [300, 820])]
)
async def test_whole_orders_of_a_shop(base: OrderValueBase, points: list[int]) -> None:
    """Sums as two real orders have them, among everything else such an order holds."""
    house = House(SiteSettings(base=base))
    filler = {"entries": [{"id": "e", "price": 1.1, "totalPrice": 700, "nested": [{}]}] * 40, "payments": [None, 1e5]}
    first = order_bytes("A", totalPrice=333.92, subTotalPrice=300, completed=None, **filler)
    second = order_bytes("B", totalPrice=812.79, subTotalPrice=820, customer={"id": "C2"}, **filler)
    await house.consumer.handle(records(first, second))
    assert [lot.points for lot in house.lots.stored.values()] == points
