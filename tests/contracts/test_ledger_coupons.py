import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from rewardpoints.domain.chargebacks import DESCRIPTION
from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.lots import LotKind
from rewardpoints.domain.ports import RedemptionCounts
from rewardpoints.domain.redemptions import Redemption, RedemptionState
from rewardpoints.ledger.ledger import Ledger
from tests.altered import altered
from tests.contracts.ledgers import (
    ACCOUNT,
    LedgerOpener,
    an_intent,
    broken,
    contents,
    lot_back,
    now,
    order_lot,
)


@pytest.fixture
async def redemption(ledger: Ledger) -> Redemption:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    return await ledger.redemptions.redeem(an_intent(30, coupon=True))


async def redeemed(ledger: Ledger, count: int) -> Sequence[Redemption]:
    await ledger.lots.add_batch([order_lot("o1", 1000)])
    return [await ledger.redemptions.redeem(an_intent(1, coupon=True)) for _ in range(count)]


async def test_a_chargeback_gives_the_points_back_as_a_new_lot(ledger: Ledger, redemption: Redemption) -> None:
    lot = lot_back(redemption)
    assert await ledger.redemptions.charge_back(redemption, lot, reason="no such coupon type") is True
    stored = await ledger.redemptions.find(redemption.id)
    assert stored == altered(redemption, state=RedemptionState.CHARGED_BACK, publish_at=None)
    history = await ledger.accounts.history(ACCOUNT)
    assert history is not None
    drawn, returned = sorted(history.lots, key=lambda lot: lot.kind is LotKind.CHARGEBACK)
    assert (drawn.points, drawn.remaining) == (100, 70)
    assert returned == lot
    assert (returned.points, returned.description, returned.reference_id) == (30, DESCRIPTION, None)
    assert await ledger.accounts.balance(ACCOUNT, now()) == 100
    assert await ledger.redemptions.take_due(now(), lease_seconds=1, limit=10) == []
    document = await ledger.database.redemptions.find_one({})
    assert document is not None
    assert document["chargebackReason"] == "no such coupon type"
    assert document["chargedBackAt"] == lot.created_at
    assert await broken(ledger) == []


async def test_a_chargeback_delivered_three_times_is_one(ledger: Ledger, redemption: Redemption) -> None:
    results = [await ledger.redemptions.charge_back(redemption, lot_back(redemption), reason="first") for _ in range(3)]
    assert results == [True, False, False]
    assert await ledger.accounts.balance(ACCOUNT, now()) == 100
    assert await broken(ledger) == []


async def test_chargebacks_at_once_are_one(ledger: Ledger, another: LedgerOpener, redemption: Redemption) -> None:
    async with another() as second:
        results = await asyncio.gather(
            *(
                one.redemptions.charge_back(redemption, lot_back(redemption), reason="raced")
                for one in (ledger, second) * 4
            )
        )
    assert sorted(results) == [False] * 7 + [True]
    assert await ledger.accounts.balance(ACCOUNT, now()) == 100
    assert await broken(ledger) == []


async def test_an_issued_coupon_is_not_charged_back(ledger: Ledger, redemption: Redemption) -> None:
    assert await ledger.redemptions.mark_issued(redemption, at=now()) is True
    before = await contents(ledger)
    with pytest.raises(RecordRejected) as refused:
        await ledger.redemptions.charge_back(redemption, lot_back(redemption), reason="late")
    assert refused.value.reason is RejectReason.ALREADY_ISSUED
    assert await contents(ledger) == before


async def test_an_issued_coupon_is_issued_once(ledger: Ledger, redemption: Redemption) -> None:
    assert await ledger.redemptions.mark_issued(redemption, at=now()) is True
    before = await contents(ledger)
    assert await ledger.redemptions.mark_issued(redemption, at=now()) is False
    assert await contents(ledger) == before
    stored = await ledger.redemptions.find(redemption.id)
    assert stored == altered(redemption, state=RedemptionState.ISSUED, publish_at=None)
    assert await broken(ledger) == []


async def test_a_coupon_created_after_its_chargeback_is_told(ledger: Ledger, redemption: Redemption) -> None:
    await ledger.redemptions.charge_back(redemption, lot_back(redemption), reason="first")
    before = await contents(ledger)
    with pytest.raises(RecordRejected) as refused:
        await ledger.redemptions.mark_issued(redemption, at=now())
    assert refused.value.reason is RejectReason.ISSUED_AFTER_CHARGEBACK
    assert await contents(ledger) == before


@pytest.mark.parametrize("operation", ["charge_back", "mark_issued"])
@pytest.mark.parametrize("case", [RejectReason.NO_COUPON, RejectReason.UNKNOWN_REDEMPTION], ids=str)
async def test_answers_to_what_asked_for_no_coupon_are_refused(
    ledger: Ledger, operation: str, case: RejectReason
) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    redemption = await ledger.redemptions.redeem(an_intent(30))
    if case is RejectReason.UNKNOWN_REDEMPTION:
        redemption = altered(redemption, id="0" * 64)
    before = await contents(ledger)
    answers = {
        "charge_back": lambda: ledger.redemptions.charge_back(redemption, lot_back(redemption), reason=""),
        "mark_issued": lambda: ledger.redemptions.mark_issued(redemption, at=now()),
    }
    with pytest.raises(RecordRejected) as refused:
        await answers[operation]()
    assert refused.value.reason is case
    assert await contents(ledger) == before


async def test_a_chargeback_of_another_amount_is_a_mistake(ledger: Ledger, redemption: Redemption) -> None:
    before = await contents(ledger)
    with pytest.raises(ValueError, match="does not give back"):
        await ledger.redemptions.charge_back(redemption, altered(lot_back(redemption), points=31), reason="")
    assert await contents(ledger) == before


async def test_issued_and_charged_back_at_once_is_one_of_them(ledger: Ledger, another: LedgerOpener) -> None:
    redemptions = await redeemed(ledger, 12)
    async with another() as second:
        results = await asyncio.gather(
            *(second.redemptions.mark_issued(one, at=now()) for one in redemptions),
            *(ledger.redemptions.charge_back(one, lot_back(one), reason="raced") for one in redemptions),
            return_exceptions=True,
        )
    refused = {RejectReason.ISSUED_AFTER_CHARGEBACK, RejectReason.ALREADY_ISSUED}
    for issued, charged_back in zip(results[:12], results[12:], strict=True):
        won, lost = (issued, charged_back) if issued is True else (charged_back, issued)
        assert won is True
        assert isinstance(lost, RecordRejected)
        assert lost.reason in refused
    assert await broken(ledger) == []
    returned = sum(result is True for result in results[12:])
    assert await ledger.accounts.balance(ACCOUNT, now()) == 1000 - 12 + returned


async def test_a_due_request_is_claimed_and_comes_due_again_after_the_lease(
    ledger: Ledger, redemption: Redemption
) -> None:
    at = redemption.publish_at
    assert at is not None
    assert await ledger.redemptions.take_due(at - timedelta(milliseconds=1), lease_seconds=30, limit=5) == []
    claimed = await ledger.redemptions.take_due(at, lease_seconds=30, limit=5)
    lease_ends = at + timedelta(seconds=30)
    assert claimed == [altered(redemption, publish_at=lease_ends)]
    assert await ledger.redemptions.find(redemption.id) == claimed[0]
    assert await ledger.redemptions.take_due(lease_ends - timedelta(milliseconds=1), lease_seconds=30, limit=5) == []
    again = await ledger.redemptions.take_due(lease_ends, lease_seconds=30, limit=5)
    assert [(one.id, one.coupon) for one in again] == [(redemption.id, redemption.coupon)]


async def test_a_published_request_is_due_no_more(ledger: Ledger, redemption: Redemption) -> None:
    for _ in range(2):
        await ledger.redemptions.mark_published(redemption.id)
    await ledger.redemptions.mark_published("0" * 64)
    assert await ledger.redemptions.take_due(now() + timedelta(days=1), lease_seconds=30, limit=5) == []
    assert await ledger.redemptions.find(redemption.id) == altered(redemption, publish_at=None)


async def test_the_longest_due_come_first(ledger: Ledger) -> None:
    redemptions = await redeemed(ledger, 7)
    late = now() + timedelta(minutes=1)
    taken = [await ledger.redemptions.take_due(late, lease_seconds=600, limit=3) for _ in range(4)]
    assert [len(part) for part in taken] == [3, 3, 1, 0]
    assert {one.id for part in taken for one in part} == {one.id for one in redemptions}
    latest_of_first = max(one.created_at for one in taken[0])
    assert all(one.created_at >= latest_of_first for part in taken[1:] for one in part)


async def test_several_relays_claim_each_request_once(ledger: Ledger, another: LedgerOpener) -> None:
    redemptions = await redeemed(ledger, 15)
    late = now() + timedelta(minutes=1)
    async with another() as second, another() as third:
        taken = await asyncio.gather(
            *(one.redemptions.take_due(late, lease_seconds=600, limit=10) for one in (ledger, second, third) * 3)
        )
        rest = await second.redemptions.take_due(late, lease_seconds=600, limit=100)
    claimed = [one.id for part in [*taken, rest] for one in part]
    assert sorted(claimed) == sorted(one.id for one in redemptions)


async def test_counts_tell_what_waits(ledger: Ledger) -> None:
    nothing = RedemptionCounts(due=0, oldest_due=None, unanswered=0, oldest_unanswered=None)
    assert await ledger.redemptions.counts(now(), unanswered_after_seconds=10) == nothing
    first, second, third, fourth = await redeemed(ledger, 4)
    await ledger.redemptions.mark_published(first.id)
    await ledger.redemptions.mark_issued(second, at=now())
    await ledger.redemptions.take_due(now() + timedelta(minutes=1), lease_seconds=60, limit=1)
    later = fourth.created_at + timedelta(seconds=10, milliseconds=1)
    counts = await ledger.redemptions.counts(later, unanswered_after_seconds=10)
    assert (counts.due, counts.oldest_due) == (2, third.created_at)
    assert (counts.unanswered, counts.oldest_unanswered) == (3, first.created_at)
    assert await ledger.redemptions.counts(later, unanswered_after_seconds=3600) == altered(
        counts, unanswered=0, oldest_unanswered=None
    )


async def test_unanswered_redemptions_are_listed_oldest_first(ledger: Ledger) -> None:
    first, second, third, fourth, unpublished = await redeemed(ledger, 5)
    for one in (fourth, third, second, first):
        await ledger.redemptions.mark_published(one.id)
    await ledger.redemptions.charge_back(second, lot_back(second), reason="")
    end = now() + timedelta(minutes=1)
    listed = await ledger.redemptions.unanswered(end, limit=10)
    assert [one.id for one in listed] == [first.id, third.id, fourth.id]
    assert unpublished.id not in {one.id for one in listed}  # nobody can have answered it
    assert [one.id for one in await ledger.redemptions.unanswered(end, limit=1)] == [first.id]
    assert await ledger.redemptions.unanswered(first.created_at, limit=10) == []
