"""Replays beside live workers: what they add, find and tell, and that their totals are exact whatever happens."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from pymongo import DeleteOne

from rewardpoints.app.commands import read_topic
from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.errors import InvalidInput, NotFound, ReplayFinished
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.replays import Replay, ReplayRequest, ReplayState
from rewardpoints.events.inspection import last_records
from rewardpoints.events.replay import ReplayTakenOver
from rewardpoints.ledger.replays import Replays
from rewardpoints.operate.ledgers import open_ledger
from rewardpoints.operate.replay import dry_run_replay, resume_replay, start_replay
from tests.contracts.ledgers import contents
from tests.e2e.stack import OTHER_TENANT, TENANT, Stack, an_order, until
from tests.events.test_undecodable_wire import batch, produce_raw
from tests.events.wire import order_bytes
from tests.operate_tools import Ear, answered, command, live, settings_of

OLD = "2026-01-31T10:00:00+00:00"


def request(stack: Stack, **changes: Any) -> ReplayRequest:
    return ReplayRequest(**{"topic": stack.kafka.topic_order_completed, "begin": "beginning", **changes})


async def replayed(stack: Stack, ear: Ear | None = None, **changes: Any) -> Replay:
    """A whole replay; its parts add up."""
    replay = await start_replay(settings_of(stack), stack.ledger, request(stack, **changes), (ear or Ear()).hearing)
    assert replay.state is ReplayState.FINISHED
    assert await stack.ledger.replays.find(replay.id) is not None
    assert_adds_up(replay)
    return replay


def assert_adds_up(replay: Replay) -> None:
    counts = replay.counts
    parts = (counts.not_selected, counts.added, counts.already_there, counts.skipped.total(), counts.rejected.total())
    assert counts.read == sum(parts)


def orders(count: int, *, customers: int = 50) -> list[dict[str, Any]]:
    return [an_order(f"o{number}", f"c{number % customers}", 1 + number % 50, completed=OLD) for number in range(count)]


async def test_a_replay_beside_a_live_worker_adds_nothing_and_then_exactly_what_is_missing(stack: Stack) -> None:
    async with live(stack):
        await stack.publish_orders(*orders(1500))
        await until(lambda: lot_count_is(stack, 1500), seconds=180, what="the worker's lots")
        before = await contents(stack.ledger)

        full = await replayed(stack)
        assert (full.counts.read, full.counts.added, full.counts.already_there) == (1500, 0, 1500)
        assert full.counts.differing == 0
        assert await contents(stack.ledger) == before

        gone = random.Random(5).sample(before["lots"], 1000)
        await stack.ledger.database.lots.bulk_write([DeleteOne({"_id": lot["_id"]}) for lot in gone], ordered=False)
        meanwhile = [an_order(f"live{number}", "live", 3) for number in range(200)]
        publishing = asyncio.create_task(stack.publish_orders(*meanwhile))
        again = await replayed(stack, end=datetime.now(UTC))
        await publishing
        assert (again.counts.added, again.counts.differing) == (1000, 0)
        await until(lambda: lot_count_is(stack, 1700), seconds=180, what="the live orders beside it")

    after = {lot["_id"]: lot for lot in await stack.lots(account={"$ne": "shop/live"})}
    assert after.keys() == {lot["_id"] for lot in before["lots"]}
    compared = ("points", "createdAt", "validUntil", "earned")
    assert all(
        {name: after[lot["_id"]][name] for name in compared} == {name: lot[name] for name in compared} for lot in gone
    )
    assert {after[lot["_id"]]["origin"]["replay"] for lot in gone} == {again.id}
    assert await read_topic(stack.kafka, stack.kafka.topic_dead_letter, 10) == []


async def lot_count_is(stack: Stack, count: int) -> bool:
    return await stack.lot_count() == count


async def publish_at(stack: Stack, moments: Sequence[datetime]) -> None:
    """One order for each of the record timestamps, in that order."""
    async with AIOKafkaProducer(bootstrap_servers=stack.kafka.bootstrap_servers, acks="all") as producer:
        acknowledgements = [
            await producer.send(
                stack.kafka.topic_order_completed,
                order_bytes(f"t{number}", completed=None, lastStatusChange=None),
                headers=[("tenant", TENANT.encode())],
                timestamp_ms=int(moment.timestamp() * 1000),
            )
            for number, moment in enumerate(moments)
        ]
        await asyncio.gather(*acknowledgements)


async def test_a_time_window_replays_exactly_the_records_in_it(stack: Stack) -> None:
    noon = to_milliseconds(datetime.now(UTC) - timedelta(days=1))
    moments = [noon + timedelta(seconds=offset) for offset in range(-300, 300)]
    random.Random(3).shuffle(moments)  # clocks of producers differ: timestamps do not rise with offsets
    await publish_at(stack, moments)
    window = (noon - timedelta(seconds=60), noon + timedelta(seconds=60))
    replay = await replayed(stack, begin=window[0], end=window[1])
    assert (replay.counts.read, replay.counts.added) == (120, 120)
    assert {lot["createdAt"] for lot in await stack.lots()} == {
        moment for moment in moments if window[0] <= moment < window[1]
    }
    assert (await replayed(stack, begin=noon + timedelta(days=1))).counts.read == 0


async def test_offsets_of_one_partition(stack: Stack) -> None:
    await stack.publish_orders(*orders(200))
    records = await last_records(stack.kafka, stack.kafka.topic_order_completed, 200)
    partition = records[0].partition
    mine = sorted(record.offset for record in records if record.partition == partition)
    replay = await replayed(stack, begin=2, end=7, partition=partition)
    assert replay.counts.added == len([offset for offset in mine if 2 <= offset < 7])
    for wrong in ({"begin": 2}, {"begin": 5, "end": 5, "partition": 0}, {"partition": 99}, {"customer_id": "c1"}):
        with pytest.raises(InvalidInput):
            await replayed(stack, **wrong)
    for topic in (stack.kafka.topic_chargebacks, stack.kafka.topic_dead_letter):
        with pytest.raises(InvalidInput, match="holds no orders"):
            await replayed(stack, topic=topic)
    assert len(await stack.ledger.replays.recent(10)) == 1


async def test_differing_orders_are_shown_with_both_sides_and_the_reason(stack: Stack) -> None:
    await stack.publish_orders(
        an_order("same", "c1", 10, completed=OLD), an_order("other-sum", "c2", 10, completed=OLD)
    )
    await stack.publish_orders(an_order("planted", "c3", 10, completed=OLD))
    assert (await replayed(stack)).counts.added == 3
    planted = (await stack.lots(sourceId="planted"))[0]["_id"]
    await stack.ledger.database.lots.update_one({"_id": planted}, {"$set": {"points": 900, "remaining": 900}})
    await stack.publish_orders(
        an_order("other-sum", "c2", 25, completed=OLD), an_order("same", "c1", 10, completed=OLD)
    )

    ear = Ear()
    replay = await replayed(stack, ear)
    assert (replay.counts.already_there, replay.counts.differing) == (5, 2)
    found = {one.order_id: one for one in ear.differences}
    assert (found["other-sum"].stored.points, found["other-sum"].derived.points) == (10, 25)
    assert "says totalPrice 10" in found["other-sum"].reasons[0]
    assert "says totalPrice 25" in found["other-sum"].reasons[0]
    assert "900 points stand" in found["planted"].reasons[0]
    stored = await stack.ledger.replays.find(replay.id)
    assert stored is not None
    assert {one.lot for one in stored.differences} == {one.lot for one in ear.differences}
    assert all(one.account is None and one.order_id is None for one in stored.differences)  # names no customer

    # settings that are changed behind the service's back: the version is the reason
    await stack.ledger.database.site_settings.delete_many({})
    await stack.settings_version("main", {"orderValueToRewardPointsFactor": 3})
    await stack.ledger.database.site_settings.update_many({}, {"$set": {"version": 2}})
    ear = Ear()
    async with open_ledger(settings_of(stack)) as fresh:  # a list that was read once is kept: versions never change
        again = await start_replay(settings_of(stack), fresh, request(stack), ear.hearing)
    assert again.counts.differing == 5
    assert all("settings version 1 (factor 1)" in one.reasons[0] for one in ear.differences)
    assert all("version 2 (factor 3)" in one.reasons[0] for one in ear.differences)


async def test_filters_reasons_and_what_nobody_can_read(stack: Stack) -> None:
    await stack.settings_version("main", {"orderValueToRewardPointsFactor": 1}, tenant=OTHER_TENANT)
    await stack.publish_orders(
        *orders(20, customers=4), b"{", an_order("x", "c1", -1), an_order("s", "c1", status="NEW")
    )
    await stack.publish_orders(*orders(10), tenant=OTHER_TENANT)
    topic = stack.kafka.topic_order_completed
    raw = batch(order_bytes("B"), order_bytes("C"), order_bytes("D"), bad=[1])
    await produce_raw(stack.kafka, topic, raw, partition=0)  # of a third tenant, which has no settings

    one = await replayed(stack, tenant=TENANT, customer_id="c1")
    assert (one.counts.added, one.counts.not_selected) == (5, 29)
    assert one.counts.rejected == {"invalid_amount": 1}
    assert one.counts.skipped == {"status": 1}
    assert {lot["account"] for lot in await stack.lots()} == {"shop/c1"}
    tenant = await replayed(stack, tenant=OTHER_TENANT)
    assert (tenant.counts.added, tenant.counts.not_selected) == (10, 26)
    every = await replayed(stack)
    assert (every.counts.added, every.counts.already_there) == (15, 15)
    assert every.counts.rejected == {"malformed": 1, "invalid_amount": 1, "undecodable": 1}
    assert every.counts.skipped == {"status": 1, "no_settings": 2}
    assert await read_topic(stack.kafka, stack.kafka.topic_dead_letter, 10) == []


async def test_erased_customers_never_come_back(stack: Stack) -> None:
    await stack.publish_orders(*orders(40, customers=2))
    await replayed(stack)
    await stack.ledger.accounts.erase(account_of(TENANT, "c0"))
    replay = await replayed(stack)
    assert replay.counts.skipped == {"erased": 20}
    assert (replay.counts.added, replay.counts.already_there) == (0, 20)
    assert await stack.lots(account="shop/c0") == []


async def test_a_dry_run_writes_nothing_and_tells_what_would_change(stack: Stack) -> None:
    await stack.publish_orders(*orders(60), *orders(5), b"{", an_order("s", "c1", status="NEW"))
    before = await contents(stack.ledger)
    ear = Ear()
    dry = await dry_run_replay(settings_of(stack, max_batch_records=7), stack.ledger, request(stack), ear.hearing)
    assert await contents(stack.ledger) == before
    assert await stack.ledger.replays.recent(10) == []
    assert_adds_up(dry)
    assert (dry.counts.added, dry.counts.already_there) == (60, 5)
    assert (await replayed(stack)).counts == dry.counts


class KilledReplays(Replays):
    """A process that is killed when it has applied a batch and not yet saved what it came to."""

    def __init__(self, stack: Stack, saves: int) -> None:
        super().__init__(stack.ledger.database)
        self._saves = saves

    async def save(self, replay: Replay) -> Any:
        self._saves -= 1
        if self._saves < 0:
            raise KeyboardInterrupt
        return await super().save(replay)


async def test_killed_between_a_batch_and_its_progress_the_totals_stay_exact(stack: Stack) -> None:
    """Duplicates within and across batches, and lots that a worker added meanwhile, do not blur who added what."""
    published = [*orders(300), *orders(100), *orders(300)]
    random.Random(1).shuffle(published)
    await stack.publish_orders(*published, b"{", an_order("s", "c1", status="NEW"))
    settings, ear = settings_of(stack, max_batch_records=37), Ear()
    replay_id: str | None = None
    for round_number in range(40):
        ledger = type(stack.ledger)(
            **{
                **{name: getattr(stack.ledger, name) for name in stack.ledger.__slots__},
                "replays": KilledReplays(stack, saves=round_number % 3),
            }
        )
        try:
            if replay_id is None:
                ended = await start_replay(settings, ledger, request(stack), ear.hearing)
            else:
                ended = await resume_replay(settings, ledger, replay_id, ear.hearing)
        except KeyboardInterrupt:
            replay_id = ear.progress[0].id
        else:
            break
    assert ended.state is ReplayState.FINISHED
    assert_adds_up(ended)
    assert (ended.counts.added, ended.counts.already_there, ended.counts.read) == (300, 400, 702)
    assert (ended.counts.rejected.total(), ended.counts.skipped.total()) == (1, 1)
    assert await stack.lot_count() == 300
    with pytest.raises(ReplayFinished):
        await resume_replay(settings, stack.ledger, ended.id, ear.hearing)
    with pytest.raises(NotFound):
        await resume_replay(settings, stack.ledger, "none", ear.hearing)


async def test_who_resumes_a_replay_takes_it_from_whoever_runs_it(stack: Stack) -> None:
    await stack.publish_orders(*orders(400))
    settings, first, second = settings_of(stack, max_batch_records=20), Ear(), Ear()
    slow = asyncio.create_task(start_replay(settings, stack.ledger, request(stack, rate=100.0), first.hearing))
    await until(lambda: heard(first, 3), seconds=180, what="some batches")
    ended = await resume_replay(settings, stack.ledger, first.progress[0].id, second.hearing, rate=100_000.0)
    with pytest.raises(ReplayTakenOver):
        await slow
    assert (ended.counts.added, ended.counts.read) == (400, 400)
    stored = await stack.ledger.replays.find(ended.id)
    assert stored is not None
    assert (stored.state, stored.attempt, stored.counts) == (ReplayState.FINISHED, 2, ended.counts)


async def heard(ear: Ear, times: int) -> bool:
    return len(ear.progress) >= times


async def test_the_command_killed_resumed_stopped_and_listed(stack: Stack) -> None:
    """As a process: kill -9 in the middle, resume, Ctrl-C, resume; the totals are those of one run."""
    await stack.publish_orders(*orders(900), *orders(300))
    options = ["replay", "--from", "beginning", "--rate", "500"]
    killed = await command(stack, *options, KAFKA_MAX_BATCH_RECORDS="100")
    await until(lambda: some_added(stack, 200), seconds=180, what="the first batches")
    await killed.kill()
    (listed,) = await answered(stack, ["replay", "list"])
    assert listed["state"] == "running"
    assert 0 < listed["read"] < 1200

    resumed = await command(stack, "replay", "--resume", listed["id"], KAFKA_MAX_BATCH_RECORDS="100")
    before = await stack.lot_count()
    await until(lambda: some_added(stack, before + 200), seconds=180, what="further batches")
    status, out, _ = await resumed.interrupt()
    assert status == 1
    assert f"--resume {listed['id']}" in out
    stopped = await stack.ledger.replays.find(listed["id"])
    assert stopped is not None
    assert stopped.state is ReplayState.STOPPED

    ended = await answered(stack, ["replay", "--resume", listed["id"], "--rate", "100000"])
    assert ended["state"] == "finished"
    assert (ended["read"], ended["added"], ended["alreadyThere"], ended["differing"]) == (1200, 900, 300, 0)
    assert await stack.lot_count() == 900


async def some_added(stack: Stack, count: int) -> bool:
    return await stack.lot_count() >= count


async def test_what_the_command_refuses_is_one_line(stack: Stack) -> None:
    refused = await command(stack, "replay", "--from", "beginning", "--topic", "nowhere")
    status, out, err = await refused.output()
    assert (status, out) == (1, "")
    assert err.strip().endswith("there is no topic nowhere")
    assert "Traceback" not in err
