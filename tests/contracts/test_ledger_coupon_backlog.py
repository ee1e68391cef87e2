from datetime import timedelta

from rewardpoints.ledger.coupon_backlog import coupon_backlog
from rewardpoints.ledger.ledger import Ledger
from tests.contracts.ledgers import an_intent, lot_back, now, order_lot


async def test_what_coupon_requests_wait_for(ledger: Ledger) -> None:
    nothing = await coupon_backlog(ledger.database, now(), overdue_after_seconds=60)
    assert (nothing.unpublished, nothing.waiting, nothing.overdue, nothing.issued, nothing.charged_back) == (0,) * 5
    assert (nothing.oldest_unpublished, nothing.oldest_waiting, nothing.oldest_overdue) == (None,) * 3

    await ledger.lots.add_batch([order_lot("o1", 1000)])
    made = [await ledger.redemptions.redeem(an_intent(1, coupon=True)) for _ in range(6)]
    await ledger.redemptions.redeem(an_intent(1))
    await ledger.redemptions.mark_published(made[0].id)
    await ledger.redemptions.mark_published(made[1].id)
    await ledger.redemptions.mark_issued(made[1], at=now())
    await ledger.redemptions.charge_back(made[2], lot_back(made[2]), reason="")
    long_ago = now() - timedelta(days=3)
    await ledger.database.redemptions.update_one({"_id": made[3].id}, {"$set": {"createdAt": long_ago}})
    await ledger.redemptions.charge_back(made[4], lot_back(made[4]), reason="")
    await ledger.database.redemptions.update_one({"_id": made[4].id}, {"$set": {"createdAt": long_ago}})

    backlog = await coupon_backlog(ledger.database, now(), overdue_after_seconds=60)
    assert (backlog.unpublished, backlog.oldest_unpublished) == (2, long_ago)
    assert (backlog.waiting, backlog.oldest_waiting) == (3, long_ago)
    assert (backlog.overdue, backlog.oldest_overdue) == (1, long_ago)
    assert (backlog.issued, backlog.charged_back) == (1, 1)
    later = await coupon_backlog(ledger.database, now() + timedelta(hours=2), overdue_after_seconds=60)
    assert later.overdue == 3
