"""``rewardpoints lag`` beside a service that reads, and one that does not."""

import asyncio
import json
import os
import signal
import sys
from typing import Any

import httpx

from tests.contracts.ledgers import an_intent, manual_lot
from tests.e2e.stack import TENANT, Stack, an_order, until
from tests.typed import typed


async def lag(stack: Stack) -> dict[str, Any]:
    answer = await typed(stack.environment(), "lag", "--json", "--interval", "0.2")
    assert answer.status == 0, answer.err
    state: dict[str, Any] = json.loads(answer.out)
    return state


def named(state: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in state["subscriptions"] if one["name"] == name]
    return dict(found)


async def test_it_shows_what_waits_who_reads_and_what_was_rejected(stack: Stack) -> None:
    orders = [an_order(f"o{number}", f"c{number}") for number in range(37)]
    await stack.publish_orders(*orders, b"no json", {**orders[0], "id": "", "status": "COMPLETED"})
    state = await lag(stack)
    waiting = named(state, "orders")
    assert (waiting["lagRecords"], waiting["members"], waiting["state"]) == (39, [], "Empty")
    assert sum(one["lagRecords"] for one in waiting["partitions"]) == 39
    assert len(waiting["partitions"]) == 4
    assert 0 < waiting["lagSeconds"] < 600
    assert [named(state, name)["lagRecords"] for name in ("chargebacks", "coupon-results")] == [0, 0]
    assert state["lastHour"] == {"written": 39, "deadLetters": 0, "rejectedShare": 0}
    text = await typed(stack.environment(), "lag", "--interval", "0.1")
    assert text.status == 0
    assert "is Empty with 0 members; 39 records behind" in text.out
    assert "nobody" in text.out

    worker = await (await stack.worker()).ready()
    state = {}

    async def caught_up() -> bool:
        state.update(await lag(stack))
        return bool(named(state, "orders")["lagRecords"] == 0 and state["lastHour"]["deadLetters"] == 2)

    await until(caught_up, seconds=60, what="the worker caught up")
    reading = named(state, "orders")
    assert (reading["state"], reading["lagSeconds"]) == ("Stable", 0)
    (member,) = reading["members"]
    assert member["partitions"] == [0, 1, 2, 3]
    assert state["lastHour"]["rejectedShare"] == round(2 / 39, 6)
    async with httpx.AsyncClient() as http:
        shown = (await http.get(f"{worker.url}/metrics")).text
    topic = stack.kafka.topic_order_completed
    for partition in range(4):
        assert f'rewardpoints_lag_records{{partition="{partition}",topic="{topic}"}}' in shown
    assert f'rewardpoints_topic_partitions{{topic="{topic}"}} 4.0' in shown
    assert "rewardpoints_erasures_due 0.0" in shown
    assert "rewardpoints_build_info{version=" in shown
    await worker.stop()


async def test_coupons_on_their_way(stack: Stack) -> None:
    await stack.ledger.accounts.add(manual_lot("m", 100))
    await stack.ledger.redemptions.redeem(an_intent(10, coupon=True))
    published = await stack.ledger.redemptions.redeem(an_intent(10, coupon=True))
    await stack.ledger.redemptions.mark_published(published.id)
    coupons = (await lag(stack))["coupons"]
    assert (coupons["unpublished"], coupons["waiting"], coupons["overdue"]) == (1, 2, 0)
    assert coupons["oldestWaitingSeconds"] >= coupons["oldestUnpublishedSeconds"] >= 0
    assert coupons["lastDay"] == {"issued": 0, "chargedBack": 0}


async def test_a_topic_that_is_not_there_and_kafka_that_is_not(stack: Stack) -> None:
    environment = {**stack.environment(), "REWARDPOINTS_KAFKA_TOPIC_CHARGEBACKS": "no-such-topic"}
    answer = await typed(environment, "lag", "--interval", "0.1")
    assert (answer.status, "there is no topic no-such-topic" in answer.err) == (1, True)
    environment = {**stack.environment(), "REWARDPOINTS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    answer = await typed(environment, "lag")
    assert (answer.status, answer.err.startswith("rewardpoints: Kafka: ")) == (1, True)


async def test_watching_goes_on_until_it_is_interrupted(stack: Stack) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REWARDPOINTS")}
    watching = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rewardpoints.cli", "lag", "--watch", "--json", "--interval", "0.1",
        env=environment | stack.environment(),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert watching.stdout is not None
    try:
        async with asyncio.timeout(60):
            first = json.loads(await watching.stdout.readline())
            await stack.publish_orders(an_order("o1", "c1"), tenant=TENANT)
            while named(json.loads(await watching.stdout.readline()), "orders")["lagRecords"] == 0:
                pass
            watching.send_signal(signal.SIGINT)
            await watching.stdout.read()
            assert await watching.wait() == 0
    finally:
        if watching.returncode is None:
            watching.kill()
            await watching.wait()
    assert named(first, "orders")["lagRecords"] == 0
