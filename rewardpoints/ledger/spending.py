"""Spending: one redemption as one transaction (D4)."""

import time
from typing import Final

import pymongo
from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.errors import (
    IdempotencyConflict,
    LedgerBusy,
    LedgerUnavailable,
    NoAccount,
    RewardPointsError,
    TooFewPoints,
    TooManyLots,
)
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.lots import MAX_LOTS_PER_REDEMPTION, Draw, LotSummary, plan_draws
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.redemptions import Redemption, RedemptionIntent, redemption_from
from rewardpoints.ledger import documents
from rewardpoints.ledger.account_queue import AccountQueue
from rewardpoints.ledger.driver import Database, Document, Session, driver_errors
from rewardpoints.ledger.transactions import AttemptFailed, CommitUnknown, attempt, attempts, deadline_in, seconds_left
from rewardpoints.telemetry import Metrics

COMMIT_GRACE_SECONDS: Final = 0.6
"""Time beyond the deadline for a commit, so that one which is sent at the last moment can be answered."""

LAST_LOOK_SECONDS: Final = 0.4
"""Time after that to learn what became of a commit nobody answered: 8 s + 1 s in all leaves the API 0.5 s."""

_OUTCOMES: Final[dict[type[RewardPointsError], str]] = {
    NoAccount: "no_account",
    TooFewPoints: "too_few_points",
    TooManyLots: "too_many_lots",
    IdempotencyConflict: "idempotency_conflict",
    LedgerBusy: "busy",
    LedgerUnavailable: "unavailable",
}


class Spending:
    """Carries out redemptions: one at a time for each account of this process, conflicts with others retried."""

    def __init__(
        self, database: Database, clock: Clock, metrics: Metrics, *, timeout_seconds: float, queue_per_account: int
    ) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        for outcome in (*_OUTCOMES.values(), "redeemed", "repeated", "refused", "failed"):
            metrics.redemptions.labels(outcome)  # at 0, so that the first one is an increase too
        self._timeout_seconds = timeout_seconds
        self._queue = AccountQueue(queue_per_account)

    async def redeem(self, intent: RedemptionIntent, *, within_seconds: float | None = None) -> Redemption:
        """See the port. Waiting for other redemptions of the account counts towards the time-out.

        A caller that gives up by itself cannot know whether the commit was sent: let it say how long it waits.

        Raises:
            NoAccount, TooFewPoints, TooManyLots, IdempotencyConflict: refused, nothing changed.
            LedgerBusy: conflicts until the time was over, nothing changed.
            LedgerUnavailable: with ``outcome_unknown`` where the commit was sent and never answered; the same intent
                again finds out.
        """
        began = time.perf_counter()
        try:
            redemption, outcome = await self._redeem(intent, self._deadline(within_seconds))
        except RewardPointsError as error:
            outcome = _OUTCOMES.get(type(error), "refused")
            raise
        except BaseException:
            outcome = "failed"
            raise
        finally:
            self._metrics.redemptions.labels(outcome).inc()
            self._metrics.redemption_seconds.observe(time.perf_counter() - began)
        return redemption

    def _deadline(self, within_seconds: float | None) -> float:
        if within_seconds is None:
            return deadline_in(self._timeout_seconds)
        return deadline_in(min(self._timeout_seconds, within_seconds - COMMIT_GRACE_SECONDS - LAST_LOOK_SECONDS))

    async def _redeem(self, intent: RedemptionIntent, deadline: float) -> tuple[Redemption, str]:
        async with self._queue.turn(intent.account, deadline):
            waited = seconds_left(deadline) < self._timeout_seconds / 2
            try:
                with driver_errors():
                    return await attempts(deadline)(self._attempt, intent, deadline)
            except CommitUnknown as error:
                return await self._find_out(intent, error)
            except AttemptFailed as error:
                # An attempt that others left no time for ends by time-out too, and that is not the server's trouble
                if error.server_trouble and not waited:
                    raise LedgerUnavailable(str(error)) from error
                raise LedgerBusy("too many redemptions of the account at once") from error

    async def _attempt(self, intent: RedemptionIntent, deadline: float) -> tuple[Redemption, str]:
        self._metrics.redemption_attempts.inc()

        async def spend(session: Session) -> tuple[Redemption, str]:
            return await self._spend(intent, session)

        try:
            return await attempt(self._database, spend, deadline=deadline, commit_grace_seconds=COMMIT_GRACE_SECONDS)
        except DuplicateKeyError as error:
            # Committed elsewhere after this attempt's snapshot: the next one answers from it
            raise AttemptFailed("the redemption was made meanwhile") from error

    async def _spend(self, intent: RedemptionIntent, session: Session) -> tuple[Redemption, str]:
        stored = await self._database.redemptions.find_one(
            {"_id": intent.id, "account": intent.account}, session=session
        )
        if stored is not None:
            return _same(documents.redemption_from(stored), intent), "repeated"
        # Afresh in every attempt: a tombstone may lie between two of them
        now = to_milliseconds(self._clock())
        wanted = {"account": intent.account, "open": True, "validUntil": {"$gt": now}}
        found = (
            await self._database.lots.find(wanted, documents.LOT_SUMMARY_FIELDS, session=session)
            .sort([("validUntil", 1), ("createdAt", 1), ("_id", 1)])
            .limit(MAX_LOTS_PER_REDEMPTION + 1)
            .to_list(None)
        )
        lots = [documents.lot_summary_from(document) for document in found]
        try:
            draws = plan_draws(lots, intent.points, now)
        except TooFewPoints as error:
            await self._explain(intent, wanted, lots, session)
            raise TooFewPoints(wanted=error.wanted, available=error.available) from None
        redemption = redemption_from(intent, draws, now)
        await self._draw(redemption, lots, session)
        await self._database.redemptions.insert_one(documents.redemption_document(redemption), session=session)
        return redemption, "redeemed"

    async def _draw(self, redemption: Redemption, lots: list[LotSummary], session: Session) -> None:
        by_id = {lot.id: lot for lot in lots}
        updates = [_update(redemption.account, by_id[draw.lot], draw) for draw in redemption.draws]
        if len(updates) == 1:  # as most are, and cheaper for the driver than a bulk write of one
            changed = (await self._database.lots.update_one(*updates[0], session=session)).matched_count
        else:
            bulk = [UpdateOne(*update) for update in updates]
            changed = (await self._database.lots.bulk_write(bulk, session=session)).matched_count
        if changed != len(updates):
            raise AttemptFailed("a lot changed meanwhile")

    async def _explain(
        self, intent: RedemptionIntent, wanted: dict[str, object], lots: list[LotSummary], session: Session
    ) -> None:
        """Raise what fits better than too few points: no account, or points in more lots than were read."""
        if not lots:
            for collection in (self._database.lots, self._database.redemptions):
                if await collection.find_one({"account": intent.account}, {"_id": 1}, session=session):
                    return
            raise NoAccount
        if len(lots) > MAX_LOTS_PER_REDEMPTION:
            total = await self._database.aggregate(
                self._database.lots,
                [{"$match": wanted}, {"$group": {"_id": None, "remaining": {"$sum": "$remaining"}}}],
                session=session,
            )
            available = int(total[0]["remaining"])
            if available >= intent.points:
                raise TooManyLots(f"more than {MAX_LOTS_PER_REDEMPTION} lots would be drawn")
            raise TooFewPoints(wanted=intent.points, available=available)

    async def _find_out(self, intent: RedemptionIntent, unknown: CommitUnknown) -> tuple[Redemption, str]:
        try:
            with pymongo.timeout(LAST_LOOK_SECONDS), driver_errors():
                stored = await self._database.redemptions.find_one({"_id": intent.id, "account": intent.account})
        except LedgerUnavailable:
            stored = None
        if stored is None:  # which does not prove that the commit will not be seen yet
            raise LedgerUnavailable("MongoDB did not say whether it committed", outcome_unknown=True) from unknown
        return _same(documents.redemption_from(stored), intent), "redeemed"


def _update(account: Account, lot: LotSummary, draw: Draw) -> tuple[Document, Document]:
    left = lot.remaining - draw.points
    return (
        {"_id": lot.id, "account": account, "remaining": lot.remaining},
        {"$set": {"remaining": left, "open": left > 0}},
    )


def _same(stored: Redemption, intent: RedemptionIntent) -> Redemption:
    if stored.fingerprint != intent.fingerprint:
        raise IdempotencyConflict
    return stored
