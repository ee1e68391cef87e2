from dataclasses import replace
from datetime import timedelta

import pytest

from rewardpoints.domain.errors import IdempotencyConflict, NoAccount, TooFewPoints, TooManyLots
from rewardpoints.domain.lots import Draw
from rewardpoints.domain.redemptions import RedemptionState
from rewardpoints.ledger.ledger import Ledger
from tests.contracts.ledgers import ACCOUNT, OTHER, YEAR, LedgerOpener, an_intent, broken, contents, now, order_lot


async def test_points_that_expire_first_are_spent_first(ledger: Ledger) -> None:
    at = now()
    soon = at + timedelta(days=1)
    lots = [
        order_lot("later", 10, valid_until=at + timedelta(days=9)),
        order_lot("soon, younger", 10, valid_until=soon, created_at=at - timedelta(days=1)),
        order_lot("soon, older", 10, valid_until=soon, created_at=at - timedelta(days=2)),
        order_lot("expired", 10, valid_until=at),
        order_lot("last", 10, valid_until=at + YEAR),
    ]
    await ledger.lots.add_batch(lots)
    redemption = await ledger.redemptions.redeem(an_intent(25))
    assert redemption.draws == (Draw(lots[2].id, 10), Draw(lots[1].id, 10), Draw(lots[0].id, 5))
    assert await ledger.accounts.balance(ACCOUNT, now()) == 15
    assert await broken(ledger) == []


async def test_a_redemption_is_stored_as_it_is_answered(ledger: Ledger) -> None:
    await ledger.lots.add_batch([order_lot("o1")])
    intent = an_intent(10, coupon=True, public_id="shown")
    before = now()
    redemption = await ledger.redemptions.redeem(intent)
    assert before <= redemption.created_at <= now()
    assert redemption.publish_at is not None
    assert redemption.publish_at >= redemption.created_at
    assert redemption.state is RedemptionState.REQUESTED
    assert redemption.coupon == intent.coupon
    assert await ledger.redemptions.find(intent.id) == redemption


async def test_without_a_coupon_a_redemption_is_done_and_nothing_is_due(ledger: Ledger) -> None:
    await ledger.lots.add_batch([order_lot("o1")])
    redemption = await ledger.redemptions.redeem(an_intent(10))
    assert redemption.state is RedemptionState.DONE
    assert redemption.publish_at is None
    assert await ledger.redemptions.take_due(now() + YEAR, lease_seconds=1, limit=10) == []


async def test_all_points_can_be_spent_and_no_more(ledger: Ledger) -> None:
    await ledger.lots.add_batch([order_lot("o1", 60), order_lot("o2", 40)])
    await ledger.redemptions.redeem(an_intent(100))
    before = await contents(ledger)
    with pytest.raises(TooFewPoints) as refused:
        await ledger.redemptions.redeem(an_intent(1))
    assert (refused.value.wanted, refused.value.available) == (1, 0)
    assert await contents(ledger) == before


async def test_too_few_points_change_nothing(ledger: Ledger) -> None:
    await ledger.lots.add_batch([order_lot("o1", 60), order_lot("old", 500, valid_until=now() - YEAR)])
    before = await contents(ledger)
    with pytest.raises(TooFewPoints) as refused:
        await ledger.redemptions.redeem(an_intent(61))
    assert (refused.value.wanted, refused.value.available) == (61, 60)
    assert await contents(ledger) == before


async def test_without_an_account_nothing_is_redeemed(ledger: Ledger) -> None:
    await ledger.lots.add_batch([order_lot("o1", account=OTHER)])
    before = await contents(ledger)
    with pytest.raises(NoAccount):
        await ledger.redemptions.redeem(an_intent(1))
    assert await contents(ledger) == before


async def test_the_same_redemption_again_is_answered_from_the_ledger(ledger: Ledger, another: LedgerOpener) -> None:
    await ledger.lots.add_batch([order_lot("o1", 10)])
    intent = an_intent(10, "key", coupon=True)
    first = await ledger.redemptions.redeem(intent)
    before = await contents(ledger)
    # The points are spent by now: an answer from the balance would be "too few"
    assert await ledger.redemptions.redeem(an_intent(10, "key", coupon=True)) == first
    async with another() as restarted:
        assert await restarted.redemptions.redeem(intent) == first
    assert await contents(ledger) == before


async def test_a_key_used_for_something_else_is_refused(ledger: Ledger) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    await ledger.redemptions.redeem(an_intent(10, "key"))
    before = await contents(ledger)
    with pytest.raises(IdempotencyConflict):
        await ledger.redemptions.redeem(an_intent(11, "key", fingerprint="f2"))
    assert await contents(ledger) == before


async def test_an_answer_from_the_ledger_shows_what_became_of_the_redemption(ledger: Ledger) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    intent = an_intent(10, "key", coupon=True)
    redemption = await ledger.redemptions.redeem(intent)
    await ledger.redemptions.mark_issued(redemption, at=now())
    again = await ledger.redemptions.redeem(intent)
    assert again == replace(redemption, state=RedemptionState.ISSUED, publish_at=None)


async def test_a_redemption_draws_on_a_thousand_lots_and_not_on_more(ledger: Ledger) -> None:
    await ledger.lots.add_batch([order_lot(f"o{number}", 1) for number in range(1003)])
    before = await contents(ledger)
    with pytest.raises(TooManyLots):
        await ledger.redemptions.redeem(an_intent(1001))
    with pytest.raises(TooManyLots):
        await ledger.redemptions.redeem(an_intent(1003))
    with pytest.raises(TooFewPoints) as refused:
        await ledger.redemptions.redeem(an_intent(1004))
    assert refused.value.available == 1003
    assert await contents(ledger) == before
    redemption = await ledger.redemptions.redeem(an_intent(1000))
    assert len(redemption.draws) == 1000
    assert await ledger.accounts.balance(ACCOUNT, now()) == 3
    assert await broken(ledger) == []


async def test_an_unknown_redemption_is_not_found(ledger: Ledger) -> None:
    assert await ledger.redemptions.find("0" * 64) is None
