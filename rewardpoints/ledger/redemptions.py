"""Redemptions: what was spent, and the way of the coupon request that follows (D5, D6)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import DuplicateKeyError

from rewardpoints.domain.errors import LedgerUnavailable, RecordRejected, RejectReason
from rewardpoints.domain.instants import EARLIEST, to_milliseconds
from rewardpoints.domain.lag import MOST_COUNTED
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.ports import RedemptionCounts
from rewardpoints.domain.redemptions import Redemption, RedemptionIntent, RedemptionState
from rewardpoints.ledger.documents import lot_document, redemption_from
from rewardpoints.ledger.driver import Collection, Database, Document, Session, driver_errors
from rewardpoints.ledger.spending import Spending
from rewardpoints.ledger.transactions import run


class Redemptions:
    """Implements the port of the same name."""

    def __init__(self, database: Database, spending: Spending) -> None:
        self._database = database
        self._redemptions: Collection = database.redemptions
        self._spending = spending

    async def redeem(self, intent: RedemptionIntent, *, within_seconds: float | None = None) -> Redemption:
        """See ``Spending.redeem``."""
        return await self._spending.redeem(intent, within_seconds=within_seconds)

    async def find(self, redemption_id: str) -> Redemption | None:
        """The redemption of this id, read at majority.

        Raises:
            LedgerUnavailable
        """
        with driver_errors():
            found = await self._redemptions.find_one({"_id": redemption_id})
        return redemption_from(found) if found else None

    async def charge_back(self, redemption: Redemption, lot: Lot, *, reason: str) -> bool:
        """Set the state to charged back and add the lot, both or neither. False when it was charged back before.

        A request still due is withdrawn: the chargeback proves that it was published.

        Raises:
            RecordRejected: issued, without a coupon, or unknown by now; nothing was changed.
            ValueError: the lot does not give back exactly the redemption's points to its account.
            LedgerUnavailable: charge back again.
        """
        if (lot.account, lot.points, lot.remaining) != (redemption.account, redemption.points, redemption.points):
            raise ValueError(f"lot {lot.id} does not give back redemption {redemption.id}")

        async def both(session: Session) -> bool:
            update = {
                "$set": {
                    "state": RedemptionState.CHARGED_BACK.value,
                    "chargedBackAt": lot.created_at,
                    "chargebackReason": reason,
                },
                "$unset": {"publishAt": ""},
            }
            changed = await self._redemptions.update_one(_requested(redemption), update, session=session)
            if not changed.matched_count:
                stored = await self._redemptions.find_one(_key(redemption), session=session)
                return _already(stored, RedemptionState.CHARGED_BACK)
            await self._database.lots.insert_one(lot_document(lot), session=session)
            return True

        try:
            return await run(self._database, both)
        except DuplicateKeyError as error:
            raise RecordRejected(
                RejectReason.LEDGER_REJECTED, "the chargeback's lot exists, but its redemption is not charged back"
            ) from error

    async def mark_issued(self, redemption: Redemption, *, at: datetime) -> bool:
        """Set the state to issued. False when it was issued before. A request still due is withdrawn: it was answered.

        Raises:
            RecordRejected: charged back, without a coupon, or unknown by now; nothing was changed.
            LedgerUnavailable: mark it again.
        """
        update = {
            "$set": {"state": RedemptionState.ISSUED.value, "issuedAt": at},
            "$unset": {"publishAt": ""},
        }
        with driver_errors(writing=True):
            changed = await self._redemptions.update_one(_requested(redemption), update)
            if changed.matched_count:
                return True
            stored = await self._redemptions.find_one(_key(redemption))
        return _already(stored, RedemptionState.ISSUED)

    async def take_due(self, now: datetime, *, lease_seconds: float, limit: int) -> Sequence[Redemption]:
        """Claim up to ``limit`` redemptions whose request is due, pushing ``publish_at`` ``lease_seconds`` ahead.

        Each is claimed under the condition that nobody else did; of several callers one gets it.

        Raises:
            LedgerUnavailable: what was claimed comes due again after the lease.
        """
        until = to_milliseconds(now + timedelta(seconds=lease_seconds))
        claimed: list[Redemption] = []
        with driver_errors(writing=True):
            due = (
                await self._redemptions.find({"publishAt": {"$lte": now}})
                .sort("publishAt", 1)
                .limit(limit)
                .to_list(None)
            )
            for document in due:
                change = await self._redemptions.update_one(
                    {"_id": document["_id"], "account": document["account"], "publishAt": document["publishAt"]},
                    {"$set": {"publishAt": until}},
                )
                if change.modified_count:
                    claimed.append(replace(redemption_from(document), publish_at=until))
        return claimed

    async def mark_published(self, redemption_id: str) -> None:
        """Record that the broker acknowledged the request. Idempotent.

        Raises:
            LedgerUnavailable: mark it again, or let it be published once more after its lease.
        """
        with driver_errors(writing=True):
            await self._redemptions.update_one(
                {"_id": redemption_id}, {"$unset": {"publishAt": ""}, "$currentDate": {"publishedAt": True}}
            )

    async def unanswered(self, before: datetime, *, limit: int) -> Sequence[Redemption]:
        """Up to ``limit`` redemptions published before ``before`` and neither issued nor charged back, oldest first.

        One that was asked for but not published has no answer to wait for yet.

        Raises:
            LedgerUnavailable
        """
        with driver_errors():
            found = (
                await self._redemptions.find({**_unanswered(before), "publishedAt": {"$lt": before}})
                .sort("createdAt", 1)
                .limit(limit)
                .to_list(None)
            )
        return [redemption_from(document) for document in found]

    async def counts(self, now: datetime, *, unanswered_after_seconds: float) -> RedemptionCounts:
        """Requests not yet acknowledged by the broker (claimed ones too), and redemptions unanswered for too long.

        Each is counted up to ``MOST_COUNTED``.

        Raises:
            LedgerUnavailable
        """
        before = now - timedelta(seconds=unanswered_after_seconds)
        due, oldest_due = await self._count({"publishAt": {"$gte": EARLIEST}}, "publishAt")
        unanswered, oldest_unanswered = await self._count(_unanswered(before), "createdAt")
        return RedemptionCounts(
            due=due, oldest_due=oldest_due, unanswered=unanswered, oldest_unanswered=oldest_unanswered
        )

    async def _count(self, wanted: Mapping[str, Any], order: str) -> tuple[int, datetime | None]:
        pipeline: list[Mapping[str, Any]] = [
            {"$match": wanted},
            {"$sort": {order: 1}},
            {"$limit": MOST_COUNTED},
            {"$group": {"_id": None, "count": {"$sum": 1}, "oldest": {"$min": "$createdAt"}}},
        ]
        with driver_errors():
            counted = await self._database.aggregate(self._redemptions, pipeline)
        return (int(counted[0]["count"]), counted[0]["oldest"]) if counted else (0, None)


def _key(redemption: Redemption) -> Document:
    return {"_id": redemption.id, "account": redemption.account}


def _requested(redemption: Redemption) -> Document:
    return {**_key(redemption), "state": RedemptionState.REQUESTED.value}


def _unanswered(before: datetime) -> Document:
    return {"state": RedemptionState.REQUESTED.value, "createdAt": {"$lt": before}}


def _already(stored: Document | None, wanted: RedemptionState) -> bool:
    """False where a redemption is in the wanted state before; raises why it can never come there."""
    if stored is None:
        raise RecordRejected(RejectReason.UNKNOWN_REDEMPTION, "there is no such redemption")
    state = RedemptionState(stored["state"])
    if state is wanted:
        return False
    if state is RedemptionState.DONE:
        raise RecordRejected(RejectReason.NO_COUPON, "the redemption asked for no coupon")
    if state is RedemptionState.CHARGED_BACK:
        raise RecordRejected(RejectReason.ISSUED_AFTER_CHARGEBACK, "the points were given back before the coupon came")
    if state is RedemptionState.ISSUED:
        raise RecordRejected(RejectReason.ALREADY_ISSUED, "the coupon was created before the chargeback came")
    raise LedgerUnavailable("the redemption is being changed")
