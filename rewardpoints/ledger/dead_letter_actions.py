"""What operators did about dead letters: one small document for each letter that is no longer open."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from pymongo import DeleteOne, UpdateOne
from pymongo.errors import BulkWriteError

from rewardpoints.domain.dead_letters import RETRY_GIVEN_UP_AFTER, LetterAction, LetterId, LetterState
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.ledger.driver import DUPLICATE_KEY, Collection, Database, Document, driver_errors

IDS_PER_READ = 100


class LetterActions:
    """Implements the port of the same name."""

    def __init__(self, database: Database) -> None:
        self._actions: Collection = database.dead_letter_actions

    async def find(self, topic: str, ids: Sequence[LetterId]) -> Mapping[LetterId, LetterAction]:
        """What was done about these letters.

        Raises:
            LedgerUnavailable
        """
        found: dict[LetterId, LetterAction] = {}
        keys = [_key(topic, one) for one in ids]
        for start in range(0, len(keys), IDS_PER_READ):
            with driver_errors():
                documents = await self._actions.find({"_id": {"$in": keys[start : start + IDS_PER_READ]}}).to_list(None)
            found.update((action.id, action) for action in map(_action, documents))
        return found

    async def claim(self, topic: str, actions: Sequence[LetterAction]) -> set[LetterId]:
        """Record that this is being done; answers for which letters nobody else was first.

        A retry that was left behind, and what was done about a letter of a topic since recreated, give way.

        Raises:
            LedgerUnavailable: some may be claimed; they come free again after ``RETRY_GIVEN_UP_AFTER``.
        """
        if not actions:
            return set()
        taken: list[int] = []
        with driver_errors(writing=True):
            try:
                await self._actions.insert_many([_document(topic, action) for action in actions], ordered=False)
            except BulkWriteError as error:
                refused = cast("Mapping[str, Any]", error.details)["writeErrors"]
                if any(one["code"] != DUPLICATE_KEY for one in refused):
                    raise
                taken = [one["index"] for one in refused]
            claimed = {action.id for position, action in enumerate(actions) if position not in set(taken)}
            for position in taken:
                action = actions[position]
                key = _key(topic, action.id)
                replaced = await self._actions.update_one(
                    {"_id": key, "timestamp": {"$ne": action.timestamp}}, {"$set": _document(topic, action)}
                )
                if not replaced.matched_count:
                    left_behind = {
                        "_id": key,
                        "state": LetterState.RETRYING.value,
                        "at": {"$lt": to_milliseconds(action.at - RETRY_GIVEN_UP_AFTER)},
                    }
                    replaced = await self._actions.update_one(left_behind, {"$set": _document(topic, action)})
                if replaced.matched_count:
                    claimed.add(action.id)
        return claimed

    async def settle(self, topic: str, ids: Sequence[LetterId], state: LetterState, at: datetime) -> None:
        """Record how it ended; ``open`` forgets that anything was done.

        Raises:
            LedgerUnavailable: settle again.
        """
        if not ids:
            return
        keys = [{"_id": _key(topic, one)} for one in ids]
        change = {"$set": {"state": state.value, "at": to_milliseconds(at)}}
        writes: list[DeleteOne | UpdateOne] = [
            DeleteOne(key) if state is LetterState.OPEN else UpdateOne(key, change) for key in keys
        ]
        with driver_errors(writing=True):
            await self._actions.bulk_write(writes, ordered=False)

    async def prune(self, topic: str, oldest: Mapping[int, int]) -> int:
        """Forget letters below the oldest offset of each partition; returns how many.

        Raises:
            LedgerUnavailable: prune again.
        """
        gone = 0
        for partition, offset in oldest.items():
            with driver_errors(writing=True):
                deleted = await self._actions.delete_many(
                    {"topic": topic, "partition": partition, "offset": {"$lt": offset}}
                )
            gone += deleted.deleted_count
        return gone


def _key(topic: str, letter: LetterId) -> str:
    return f"{topic}/{letter.partition}/{letter.offset}"


def _document(topic: str, action: LetterAction) -> Document:
    return {
        "_id": _key(topic, action.id),
        "topic": topic,
        "partition": action.id.partition,
        "offset": action.id.offset,
        "timestamp": action.timestamp,
        "state": action.state.value,
        "at": to_milliseconds(action.at),
        "note": action.note,
    }


def _action(document: Mapping[str, Any]) -> LetterAction:
    return LetterAction(
        id=LetterId(document["partition"], document["offset"]),
        timestamp=document["timestamp"],
        state=LetterState(document["state"]),
        at=document["at"],
        note=document["note"],
    )
