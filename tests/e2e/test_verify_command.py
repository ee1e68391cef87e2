"""``rewardpoints verify`` and ``adjust`` as an operator types them, on a ledger the service made."""

import json
import shlex
from dataclasses import replace
from datetime import timedelta
from typing import Any

from rewardpoints.app.commands import read_topic
from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.events.dead_letters import REASON
from rewardpoints.events.messages import encode_coupon_request
from rewardpoints.events.records import Headers
from tests.contracts.ledgers import an_intent, lot_back, manual_lot, now
from tests.e2e.stack import TENANT, Stack, an_order, until
from tests.typed import typed


async def rewardpoints(stack: Stack, *arguments: str) -> tuple[int, str]:
    """Exit status, and what was printed on either output."""
    answer = await typed(stack.environment(), *arguments)
    return answer.status, answer.out + answer.err


async def verified(stack: Stack, *arguments: str) -> tuple[int, dict[str, Any]]:
    status, printed = await rewardpoints(stack, "verify", "--json", *arguments)
    document: dict[str, Any] = json.loads(printed)
    return status, document


async def a_ledger(stack: Stack) -> None:
    """Earned by the worker from published orders."""
    worker = await (await stack.worker()).ready()
    await stack.publish_orders(*(an_order(f"o{number}", f"c{number % 3}", 100) for number in range(9)))

    async def all_there() -> bool:
        return await stack.lot_count() == 9

    await until(all_there, seconds=30, what="nine lots")
    await worker.stop()


async def test_a_wrong_lot_is_named_and_the_printed_command_corrects_it(stack: Stack) -> None:
    await a_ledger(stack)
    status, clean = await verified(stack)
    assert (status, clean["clean"], clean["violations"], clean["found"]) == (0, True, [], {})
    assert (clean["accounts"], clean["entries"]) == (3, 9)

    (wrong,) = await stack.lots(sourceId="o4")
    await stack.ledger.database.lots.update_one({"_id": wrong["_id"]}, {"$set": {"points": 160, "remaining": 160}})
    status, found = await verified(stack)
    assert status == 1
    (violation,) = found["violations"]
    assert (violation["account"], violation["invariant"], violation["entry"]) == ("shop/c1", "earning", wrong["_id"])
    assert violation["correctionPoints"] == -60
    assert (await verified(stack, "--tenant", TENANT, "--customer", "c2"))[0] == 0
    assert (await verified(stack, "--since", "2100-01-01"))[1]["accounts"] == 0

    status, text = await rewardpoints(stack, "verify")
    assert status == 1
    assert f"shop/c1: lot {wrong['_id']}: points 160, but should be 100" in text
    assert "3 accounts with 9 entries: 1 violation (earning 1)" in text
    command = next(line for line in text.splitlines() if "rewardpoints adjust" in line).partition("with: ")[2]
    name, *arguments = shlex.split(command)
    assert name == "rewardpoints"
    for expected in ("-60 points; the balance was 360 and is 300", "there before (-60 points), nothing was added"):
        status, text = await rewardpoints(stack, *arguments)
        assert status == 0, text
        assert expected in text
    status, corrected = await verified(stack)
    assert (status, corrected["corrected"], corrected["violations"][0]["corrected"]) == (0, 1, True)


async def test_what_is_refused_says_why_and_exits_otherwise(stack: Stack) -> None:
    status, text = await rewardpoints(stack, "verify", "--customer", "c1")
    assert (status, "needs --tenant" in text) == (2, True)
    status, text = await rewardpoints(stack, "verify", "--since", "yesterday")
    assert (status, "2025-06-10T12:31:39Z" in text) == (2, True)
    adjust = ["adjust", "--tenant", TENANT, "--customer", "nobody", "--key", "k", "--reason", "r"]
    status, text = await rewardpoints(stack, *adjust, "--points", "5")
    assert (status, text) == (1, "rewardpoints: the customer has no account\n")
    status, text = await rewardpoints(stack, *adjust, "--points=0")
    assert (status, "rewardpoints: points: must be" in text) == (1, True)


async def test_a_request_nobody_published_comes_with_the_command_that_publishes_it(stack: Stack) -> None:
    await stack.ledger.accounts.add(manual_lot("m1", 100))
    redemption = await stack.ledger.redemptions.redeem(an_intent(30, coupon=True))
    await stack.ledger.database.redemptions.update_one({"_id": redemption.id}, {"$unset": {"publishAt": ""}})
    status, found = await verified(stack)
    (violation,) = found["violations"]
    assert (status, violation["invariant"], violation["entry"]) == (1, "coupon_request", redemption.id)
    status, text = await rewardpoints(stack, *shlex.split(violation["command"])[1:])
    assert status == 0, text
    topic = stack.kafka.topic_coupon_creation_requests
    (record,) = await read_topic(stack.kafka, topic, 10)
    expected = encode_coupon_request(redemption, topic)
    assert record["key"] == redemption.account
    assert record["value"] == json.loads(expected.value or b"")
    assert record["headers"] == {name: (value or b"").decode() for name, value in expected.headers}


async def published(stack: Stack, *redemptions: Redemption, mark: bool = True) -> None:
    """As the service does it, but for the time: an hour ago, so that nobody wonders whose clock was ahead."""
    topic = stack.kafka.topic_coupon_creation_requests
    for redemption in redemptions:
        message = encode_coupon_request(redemption, topic)
        await stack.writer.write(topic, [(message.key, message.value or b"")], headers=as_bytes(message.headers))
        if mark:
            await marked_published(stack, redemption)


def as_bytes(headers: Headers) -> list[tuple[str, bytes]]:
    return [(name, value or b"") for name, value in headers]


async def marked_published(stack: Stack, redemption: Redemption) -> None:
    told = {"$unset": {"publishAt": ""}, "$set": {"publishedAt": now() - timedelta(hours=1)}}
    await stack.ledger.database.redemptions.update_one({"_id": redemption.id}, told)


async def test_the_topics_tell_what_the_ledger_cannot(stack: Stack) -> None:
    async def redeemed(customer: str, count: int = 1) -> list[Redemption]:
        account = account_of(TENANT, customer)
        await stack.ledger.accounts.add(manual_lot("m", 1000, account=account))
        intents = [an_intent(1, account=account, coupon=True) for _ in range(count)]
        return [await stack.ledger.redemptions.redeem(intent) for intent in intents]

    sound, unmarked, other_code, lost, gone = await redeemed("c1", 5)
    (orphan,), (erased,), (due,) = await redeemed("c2"), await redeemed("c3"), await redeemed("c4")
    (late,) = await redeemed("c5")
    assert other_code.coupon is not None
    await published(stack, sound, sound, lost, orphan, erased, late)
    await published(stack, unmarked, mark=False)
    await published(stack, replace(other_code, coupon=replace(other_code.coupon, code="RP-ANOTHER")))
    await marked_published(stack, gone)
    await stack.writer.write(stack.kafka.topic_coupon_creation_requests, [(b"k", b"no request")])
    assert (await verified(stack, "--topics", "--customer", "c4", "--tenant", TENANT))[0] == 0, due

    database = stack.ledger.database
    await database.redemptions.update_one({"_id": unmarked.id}, {"$unset": {"publishAt": ""}})
    await database.redemptions.delete_one({"_id": lost.id})
    await database.lots.update_one({"account": lost.account}, {"$inc": {"remaining": 1}})
    for collection in (database.redemptions, database.lots):
        await collection.delete_many({"account": orphan.account})
    await stack.ledger.accounts.erase(erased.account)
    await stack.ledger.redemptions.charge_back(late, lot_back(late), reason="out of codes")
    headers = [(REASON, b"issued_after_chargeback")]
    value = json.dumps({"redemptionId": late.id, "tenant": TENANT, "status": "CREATED"}).encode()
    await stack.writer.write(stack.kafka.topic_dead_letter, [(b"k", value)], headers=headers)

    status, found = await verified(stack, "--topics")
    told = {(one["entry"], one["invariant"]): one["problem"] for one in found["violations"]}
    assert status == 1
    assert {entry: told[entry, kind].partition(": ")[2] for entry, kind in told} == {
        other_code.id: f"its coupon request was published with another code than {other_code.coupon.code}",
        lost.id: f"its coupon request of {format_instant(lost.created_at)} was published, "
        "but the ledger does not have it",
        gone.id: "says its coupon request was published, but it is not in the topic",
        orphan.id: f"its coupon request of {format_instant(orphan.created_at)} was published, "
        "but the ledger does not have it",
        late.id: told[late.id, "issued_after_chargeback"].partition(": ")[2],
    }
    commands = {one["entry"]: one["command"] for one in found["violations"]}
    assert [entry for entry, command in commands.items() if command] == [gone.id], "the others are not to be repeated"
    assert late.coupon is not None
    assert f"cancel coupon {late.coupon.code}" in told[late.id, "issued_after_chargeback"]

    _, without = await verified(stack)
    assert [(one["entry"], one["invariant"]) for one in without["violations"]] == [(unmarked.id, "coupon_request")]
    _, one = await verified(stack, "--topics", "--tenant", TENANT, "--customer", "c5")
    assert [violation["invariant"] for violation in one["violations"]] == ["issued_after_chargeback"]
