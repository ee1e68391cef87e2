"""What operators leave in the ledger: replays with their progress, and what was done about dead letters."""

from collections import Counter
from datetime import timedelta

import pytest

from rewardpoints.domain.dead_letters import LetterAction, LetterId, LetterState
from rewardpoints.domain.differences import difference
from rewardpoints.domain.errors import NotFound, ReplayFinished
from rewardpoints.domain.replays import PartitionProgress, Replay, ReplayCounts, ReplayScope, ReplayState, Told
from rewardpoints.ledger.ledger import Ledger
from tests.altered import altered
from tests.contracts.ledgers import ACCOUNT, now, order_lot


def a_replay(replay_id: str = "r1") -> Replay:
    at = now()
    return Replay(
        id=replay_id,
        scope=ReplayScope(topic="orders", since=at - timedelta(days=1), tenant="shop", account="digest"),
        partitions=(PartitionProgress(partition=3, first=5, end=50, position=17),),
        started_at=at,
        updated_at=at,
        rate=12.5,
        counts=ReplayCounts(
            read=12, added=3, already_there=7, differing=1, skipped=Counter(status=1), rejected=Counter(malformed=1)
        ),
    )


async def test_a_replay_is_kept_whole(ledger: Ledger) -> None:
    stored, derived = order_lot("o1", 5), order_lot("o1", 7)
    found = altered(difference(stored, derived), account=None, order_id=None)
    replay = altered(a_replay(), differences=(found,), problem="none", active_seconds=1.5)
    await ledger.replays.create(replay)
    assert await ledger.replays.find("r1") == replay
    assert await ledger.replays.find("r2") is None
    moved = altered(replay, counts=ReplayCounts(read=50, added=50), updated_at=now())
    assert await ledger.replays.save(moved) is Told.GO_ON
    assert await ledger.replays.save(moved) is Told.GO_ON
    assert await ledger.replays.find("r1") == moved


async def test_only_the_latest_attempt_writes(ledger: Ledger) -> None:
    replay = a_replay()
    await ledger.replays.create(replay)
    taken = await ledger.replays.take_over("r1", now())
    assert (taken.attempt, taken.counts) == (2, replay.counts)
    assert await ledger.replays.save(altered(replay, counts=ReplayCounts(read=99))) is Told.TAKEN_OVER
    assert await ledger.replays.find("r1") == taken

    assert await ledger.replays.ask_to_stop("r1")
    assert await ledger.replays.save(taken) is Told.STOP
    assert await ledger.replays.save(altered(taken, state=ReplayState.STOPPED)) is Told.STOP
    assert not await ledger.replays.ask_to_stop("r1")
    again = await ledger.replays.take_over("r1", now())
    assert await ledger.replays.save(altered(again, state=ReplayState.FINISHED)) is Told.GO_ON
    with pytest.raises(ReplayFinished):
        await ledger.replays.take_over("r1", now())
    with pytest.raises(NotFound):
        await ledger.replays.take_over("r2", now())


async def test_the_latest_replays_come_first(ledger: Ledger) -> None:
    for number in range(5):
        at = now() + timedelta(seconds=number)
        await ledger.replays.create(altered(a_replay(f"r{number}"), updated_at=at))
    assert [replay.id for replay in await ledger.replays.recent(3)] == ["r4", "r3", "r2"]


async def test_the_latest_replays_of_a_tenant_are_its_own(ledger: Ledger) -> None:
    for number, tenant in enumerate(("shop", "rival", None, "shop")):
        replay = a_replay(f"r{number}")
        scope = altered(replay.scope, tenant=tenant)
        await ledger.replays.create(altered(replay, scope=scope, updated_at=now() + timedelta(seconds=number)))
    assert [replay.id for replay in await ledger.replays.recent(9, tenant="shop")] == ["r3", "r0"]
    assert await ledger.replays.recent(9, tenant="nobody") == []


async def test_a_lot_says_which_replay_added_it(ledger: Ledger) -> None:
    lot = order_lot("o1")
    assert lot.origin is not None
    replayed = altered(lot, origin=altered(lot.origin, replay="r1"))
    await ledger.lots.add_batch([replayed])
    found = await ledger.lots.find_all([lot.id, "none"])
    assert found.keys() == {lot.id}
    assert found[lot.id].origin == replayed.origin
    assert found[lot.id].account == ACCOUNT


async def test_of_two_operators_one_has_a_letter_and_what_was_left_behind_comes_free(ledger: Ledger) -> None:
    actions = ledger.letter_actions
    at = now()

    def action(offset: int, *, timestamp: int = 7, ago: int = 0) -> LetterAction:
        return LetterAction(
            id=LetterId(0, offset), timestamp=timestamp, state=LetterState.RETRYING, at=at - timedelta(minutes=ago)
        )

    mine = await actions.claim("t", [action(1), action(2, ago=11), action(3)])
    assert mine == {LetterId(0, 1), LetterId(0, 2), LetterId(0, 3)}
    await actions.settle("t", [LetterId(0, 3)], LetterState.RETRIED, at)
    theirs = await actions.claim("t", [action(1), action(2), action(3), action(4)])
    assert theirs == {LetterId(0, 2), LetterId(0, 4)}
    # a topic made anew has other letters at the same places
    assert await actions.claim("t", [action(3, timestamp=8)]) == {LetterId(0, 3)}
    await actions.settle("t", [LetterId(0, 4)], LetterState.OPEN, at)
    assert set(await actions.find("t", [LetterId(0, n) for n in range(9)])) == {LetterId(0, n) for n in (1, 2, 3)}
    assert await actions.find("other", [LetterId(0, 1)]) == {}
