"""Replays: each run with its progress, one document each, written whole at every step."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from rewardpoints.domain.differences import Difference, LotFacts
from rewardpoints.domain.errors import NotFound, ReplayFinished
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.lots import Origin
from rewardpoints.domain.replays import PartitionProgress, Replay, ReplayCounts, ReplayScope, ReplayState, Told
from rewardpoints.ledger.driver import Collection, Database, Document, driver_errors


class Replays:
    """Implements the port of the same name. Whoever holds a stale ``attempt`` can no longer write."""

    def __init__(self, database: Database) -> None:
        self._replays: Collection = database.replays

    async def create(self, replay: Replay) -> None:
        """Store a new replay.

        Raises:
            LedgerUnavailable: it may be stored; create one with another id.
        """
        with driver_errors(writing=True):
            await self._replays.insert_one({"_id": replay.id, **_document(replay)})

    async def find(self, replay_id: str) -> Replay | None:
        """One replay.

        Raises:
            LedgerUnavailable
        """
        with driver_errors():
            found = await self._replays.find_one({"_id": replay_id})
        return _replay(found) if found else None

    async def recent(self, limit: int, *, tenant: str | None = None) -> Sequence[Replay]:
        """The replays that moved last, newest first; where a tenant is named, those of its orders only.

        Raises:
            LedgerUnavailable
        """
        with driver_errors():
            found = (
                await self._replays.find({} if tenant is None else {"tenant": tenant})
                .sort("updatedAt", -1)
                .limit(limit)
                .to_list(None)
            )
        return [_replay(document) for document in found]

    async def take_over(self, replay_id: str, at: datetime) -> Replay:
        """Run it from here, under the next attempt's number.

        Raises:
            NotFound: there is none of this id.
            ReplayFinished: there is nothing left to do.
            LedgerUnavailable: take it over again.
        """
        while True:
            replay = await self.find(replay_id)
            if replay is None:
                raise NotFound(f"there is no replay {replay_id}")
            if replay.state is ReplayState.FINISHED:
                raise ReplayFinished(f"replay {replay_id} is finished")
            change = {
                "$set": {
                    "state": ReplayState.RUNNING.value,
                    "attempt": replay.attempt + 1,
                    "updatedAt": to_milliseconds(at),
                    "stopRequested": False,
                    "problem": None,
                }
            }
            with driver_errors(writing=True):
                taken = await self._replays.update_one({"_id": replay_id, "attempt": replay.attempt}, change)
            if taken.matched_count:
                continued = await self.find(replay_id)
                if continued is not None:
                    return continued

    async def save(self, replay: Replay) -> Told:
        """Store progress, counts and state in one write; writing the same again changes nothing.

        Raises:
            LedgerUnavailable: save again.
        """
        key = {"_id": replay.id, "attempt": replay.attempt}
        with driver_errors(writing=True):
            saved = await self._replays.update_one(key, {"$set": _document(replay)})
            if not saved.matched_count:
                return Told.TAKEN_OVER
            asked = await self._replays.find_one(key, {"stopRequested": 1})
        return Told.STOP if asked and asked.get("stopRequested") else Told.GO_ON

    async def ask_to_stop(self, replay_id: str) -> bool:
        """Have a running replay stop after its next batch; False where none of this id is running.

        Raises:
            LedgerUnavailable: ask again.
        """
        running = {"_id": replay_id, "state": ReplayState.RUNNING.value}
        with driver_errors(writing=True):
            asked = await self._replays.update_one(running, {"$set": {"stopRequested": True}})
        return bool(asked.matched_count)


def _document(replay: Replay) -> Document:
    scope, counts = replay.scope, replay.counts
    return {
        "topic": scope.topic,
        "since": scope.since,
        "before": scope.before,
        "tenant": scope.tenant,
        "accountDigest": scope.account,
        "rate": replay.rate,
        "state": replay.state.value,
        "attempt": replay.attempt,
        "startedAt": to_milliseconds(replay.started_at),
        "updatedAt": to_milliseconds(replay.updated_at),
        "activeSeconds": replay.active_seconds,
        "problem": replay.problem,
        "partitions": [
            {"partition": one.partition, "first": one.first, "end": one.end, "position": one.position}
            for one in replay.partitions
        ],
        "counts": {
            "read": counts.read,
            "notSelected": counts.not_selected,
            "added": counts.added,
            "alreadyThere": counts.already_there,
            "differing": counts.differing,
            "skipped": dict(counts.skipped),
            "rejected": dict(counts.rejected),
            "gone": counts.gone,
        },
        "differences": [
            {
                "lot": one.lot,
                "stored": _facts_document(one.stored),
                "derived": _facts_document(one.derived),
                "reasons": list(one.reasons),
            }
            for one in replay.differences
        ],
    }


def _replay(document: Mapping[str, Any]) -> Replay:
    counts = document["counts"]
    return Replay(
        id=document["_id"],
        scope=ReplayScope(
            topic=document["topic"],
            since=document["since"],
            before=document["before"],
            tenant=document["tenant"],
            account=document["accountDigest"],
        ),
        partitions=tuple(PartitionProgress(**one) for one in document["partitions"]),
        started_at=document["startedAt"],
        updated_at=document["updatedAt"],
        rate=document["rate"],
        state=ReplayState(document["state"]),
        attempt=document["attempt"],
        active_seconds=document["activeSeconds"],
        counts=ReplayCounts(
            read=counts["read"],
            not_selected=counts["notSelected"],
            added=counts["added"],
            already_there=counts["alreadyThere"],
            differing=counts["differing"],
            skipped=Counter(counts["skipped"]),
            rejected=Counter(counts["rejected"]),
            gone=counts["gone"],
        ),
        differences=tuple(
            Difference(
                lot=one["lot"],
                stored=_facts(one["stored"]),
                derived=_facts(one["derived"]),
                reasons=tuple(one["reasons"]),
            )
            for one in document["differences"]
        ),
        problem=document["problem"],
    )


def _facts_document(facts: LotFacts) -> Document:
    origin = facts.origin
    return {
        "points": facts.points,
        "createdAt": facts.created_at,
        "validUntil": facts.valid_until,
        "rule": facts.rule,
        "settingsVersion": facts.settings_version,
        "base": facts.base,
        "factor": None if facts.factor is None else str(facts.factor),
        "value": None if facts.value is None else str(facts.value),
        "currency": facts.currency,
        "origin": origin and [origin.topic, origin.partition, origin.offset, origin.replay],
    }


def _facts(document: Mapping[str, Any]) -> LotFacts:
    origin, factor, value = document["origin"], document["factor"], document["value"]
    return LotFacts(
        points=document["points"],
        created_at=document["createdAt"],
        valid_until=document["validUntil"],
        rule=document["rule"],
        settings_version=document["settingsVersion"],
        base=document["base"],
        factor=None if factor is None else Decimal(factor),
        value=None if value is None else Decimal(value),
        currency=document["currency"],
        origin=Origin(topic=origin[0], partition=origin[1], offset=origin[2], replay=origin[3]) if origin else None,
    )
