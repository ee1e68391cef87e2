"""Coupon backlog: what coupon requests wait for, counted on their indexes."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from rewardpoints.domain.instants import EARLIEST
from rewardpoints.domain.lag import MOST_COUNTED, CouponBacklog
from rewardpoints.domain.redemptions import RedemptionState
from rewardpoints.ledger.driver import Database, driver_errors

RECENT: Final = timedelta(days=1)
"""How far back issued and charged-back redemptions are counted."""


async def coupon_backlog(database: Database, now: datetime, *, overdue_after_seconds: float) -> CouponBacklog:
    """The redemptions whose coupon is on its way. Each count reads one index, and stops at ``MOST_COUNTED``.

    Raises:
        LedgerUnavailable
    """
    overdue = {"$lt": now - timedelta(seconds=overdue_after_seconds)}
    since = now - RECENT
    unpublished = await _count(database, {"publishAt": {"$gte": EARLIEST}}, "publishAt")
    waiting = await _count(database, _in(RedemptionState.REQUESTED, {"$gte": EARLIEST}), "createdAt")
    late = await _count(database, _in(RedemptionState.REQUESTED, overdue), "createdAt")
    issued = await _count(database, _in(RedemptionState.ISSUED, {"$gte": since}), "createdAt")
    charged_back = await _count(database, _in(RedemptionState.CHARGED_BACK, {"$gte": since}), "createdAt")
    return CouponBacklog(
        unpublished=unpublished[0],
        oldest_unpublished=unpublished[1],
        waiting=waiting[0],
        oldest_waiting=waiting[1],
        overdue=late[0],
        oldest_overdue=late[1],
        since=since,
        issued=issued[0],
        charged_back=charged_back[0],
    )


def _in(state: RedemptionState, created_at: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"state": state.value, "createdAt": created_at}


async def _count(database: Database, wanted: Mapping[str, Any], order: str) -> tuple[int, datetime | None]:
    pipeline: list[Mapping[str, Any]] = [
        {"$match": wanted},
        {"$sort": {order: 1}},
        {"$limit": MOST_COUNTED},
        {"$group": {"_id": None, "count": {"$sum": 1}, "oldest": {"$min": "$createdAt"}}},
    ]
    with driver_errors():
        counted = await database.aggregate(database.redemptions, pipeline)
    return (int(counted[0]["count"]), counted[0]["oldest"]) if counted else (0, None)
