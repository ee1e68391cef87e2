"""Dead letters mended: their cause is fixed, they are published again, and the ledger is what it would have been."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from rewardpoints.app.commands import read_topic
from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.dead_letters import Chosen, Handled, LetterAction, LetterFilter, LetterId, LetterState
from rewardpoints.domain.errors import NotFound
from rewardpoints.domain.instants import parse_instant
from rewardpoints.domain.redemptions import RedemptionState
from rewardpoints.events import dead_letters as headers
from rewardpoints.events.producer import EventProducer
from rewardpoints.events.records import Message
from rewardpoints.operate.dead_letters import (
    discard_letters,
    list_letters,
    retry_letters,
    show_letter,
)
from tests.contracts.ledgers import an_intent, order_lot
from tests.e2e.stack import TENANT, Stack, an_order, until
from tests.faults.forms import how_many
from tests.operate_tools import answered, live, settings_of

EACH = how_many("DEAD_LETTERS", 150) // 6
"""Dead letters of each of six kinds."""

PATIENCE_SECONDS = 180 + EACH
SIX_KINDS = (
    "unreadable_settings",
    "missing_tenant",
    "invalid_amount",
    "malformed",
    "future_time",
    "unknown_redemption",
)
DONE = {LetterState.RETRIED, LetterState.DISCARDED}


RIGHT = {2: "who", 3: "neg", 4: "soon", 5: "broken"}
"""Whose orders were wrong in themselves, and how their ids begin."""


async def letters(stack: Stack, **wanted: Any) -> Sequence[Any]:
    return (await list_letters(settings_of(stack), stack.ledger, LetterFilter(**wanted), last=10_000)).letters


async def reasons(stack: Stack, **wanted: Any) -> Counter[str]:
    return (await list_letters(settings_of(stack), stack.ledger, LetterFilter(**wanted), last=1)).by_reason


async def retry(stack: Stack, *, dry_run: bool = False, ids: Sequence[LetterId] = (), **wanted: Any) -> Handled:
    return await retry_letters(
        settings_of(stack),
        stack.ledger,
        Chosen(ids=ids, matching=LetterFilter(**wanted)),
        dry_run=dry_run,
        stopping=asyncio.Event(),
        on_progress=lambda _: None,
    )


async def discard(stack: Stack, note: str | None = None, **wanted: Any) -> Handled:
    return await discard_letters(
        settings_of(stack),
        stack.ledger,
        Chosen(matching=LetterFilter(**wanted)),
        note=note,
        stopping=asyncio.Event(),
        on_progress=lambda _: None,
    )


async def there_are(stack: Stack, expected: dict[str, int], **wanted: Any) -> None:
    async def so_many() -> bool:
        return await reasons(stack, **wanted) == expected

    await until(so_many, seconds=PATIENCE_SECONDS, what=f"dead letters {expected}")


async def publish_six_kinds(stack: Stack, redeemed: str, each: int) -> None:
    """So many records of each kind; one chargeback is of a redemption that is yet to be made."""
    await stack.publish_orders(*(an_order(f"set{n}", "c1", 7, siteCode="broken") for n in range(each)))
    await stack.publish_orders(*(an_order(f"who{n}", "c2", 7) for n in range(each)), tenant=None)
    await stack.publish_orders(*(an_order(f"neg{n}", "c3", -7) for n in range(each)))
    await stack.publish_orders(*(b"{broken" for _ in range(each)))
    await stack.publish_orders(
        *(an_order(f"soon{n}", "c4", 7, completed=datetime.now(UTC) + timedelta(minutes=11)) for n in range(each))
    )
    later = [{"redemptionId": f"{n:064x}", "reason": "no codes"} for n in range(each - 1)]
    await stack.publish(stack.kafka.topic_chargebacks, *later, {"redemptionId": redeemed, "reason": "no codes"})


async def test_six_kinds_of_dead_letters_mended_in_bulk(stack: Stack) -> None:
    """A cause outside the record is mended and they are retried; what is wrong in itself comes back once.

    Its publisher then sends it right, and it is discarded. In the end the ledger is what all orders should come to.
    """
    each = EACH
    redeemed = await a_redemption(stack, "spender")
    await a_site(stack, "broken")
    async with live(stack):
        await publish_six_kinds(stack, redeemed, each)
        expected = dict.fromkeys(SIX_KINDS, each)
        await there_are(stack, expected)
        assert await stack.lot_count() == 1

    dry = await retry(stack, dry_run=True)
    assert (dry.matched, dry.done, dict(dry.by_reason)) == (6 * each, 6 * each, expected)
    await there_are(stack, expected)

    # the causes: settings are saved again; the redemption is there by now. Orders that are wrong stay wrong
    await settings_become(stack, "broken", '{"orderValueToRewardPointsFactor": 2}')
    await a_redemption(stack, "spender")
    # afresh: what a process has read of the settings it keeps, versions never change but by a test
    async with live(stack):
        first = await retry(stack, reasons=frozenset({"unreadable_settings", "unknown_redemption"}))
        assert (first.done, first.taken, first.impossible) == (2 * each, 0, 0)
        await until(
            lambda: points_are(stack, "c1", 14 * each), seconds=PATIENCE_SECONDS, what="the orders of the mended site"
        )
        left = {**expected, "unknown_redemption": each - 1}
        del left["unreadable_settings"]
        await there_are(stack, left)
        redemption = await stack.ledger.redemptions.find(redeemed)
        assert redemption is not None
        assert redemption.state is RedemptionState.CHARGED_BACK

        # each comes back once, with one attempt more and its first place kept
        again = await retry(stack, reasons=frozenset({"invalid_amount"}), tenant=TENANT)
        assert again.done == each
        await there_are(stack, left)

        await stack.publish_orders(
            *(an_order(f"{kind}{n}", f"c{number}", 7) for number, kind in RIGHT.items() for n in range(each))
        )
        for number in RIGHT:
            await until(partial(points_are, stack, f"c{number}", 7 * each), seconds=PATIENCE_SECONDS, what=f"c{number}")
    back = [letter for letter in await letters(stack) if letter.reason == "invalid_amount"]
    assert {letter.attempts for letter in back} == {2}
    assert len({letter.origin for letter in back}) == each
    assert {letter.source.topic for letter in back} == {stack.kafka.topic_order_completed}
    before = [
        letter
        for letter in await letters(stack, states=frozenset({LetterState.RETRIED}))
        if letter.reason == "invalid_amount"
    ]
    assert {letter.origin for letter in back} == {f"{one.source}/{one.source.timestamp}" for one in before}
    assert {letter.first_seen for letter in back} == {letter.first_seen for letter in before}

    discarded = await discard(stack, note="test data")
    assert discarded.done == sum(left.values())
    assert await reasons(stack) == {}
    assert (await reasons(stack, states=frozenset(DONE))).total() == 6 * each + 2 * each - 1
    model = {"c1": 14 * each, **{f"c{number}": 7 * each for number in RIGHT}}
    assert {customer: await points_of(stack, customer) for customer in model} == model
    assert await stack.lot_count() == 1 + (1 + len(RIGHT)) * each + 1
    await stack.assert_true()


async def a_site(stack: Stack, site: str) -> None:
    """A site whose settings were written past the checks."""
    await stack.settings_version(site, {"orderValueToRewardPointsFactor": 1})
    await settings_become(stack, site, '{"orderValueToRewardPointsFactor": "many"}')


async def settings_become(stack: Stack, site: str, content: str) -> None:
    await stack.ledger.database.site_settings.update_one({"siteCode": site}, {"$set": {"content": content}})


async def a_redemption(stack: Stack, customer: str) -> str:
    """A redemption of the customer under one key; unknown to the ledger the first time it is asked for."""
    account = account_of(TENANT, customer)
    intent = an_intent(30, "key", coupon=True, account=account)
    lot = order_lot("spent", 30, account=account)
    if await stack.ledger.redemptions.find(intent.id) is None and not await stack.lots(account=account):
        await stack.ledger.lots.add_batch([lot])
        return intent.id
    redemption = await stack.ledger.redemptions.redeem(intent)
    await stack.ledger.redemptions.mark_published(redemption.id)
    return redemption.id


async def points_of(stack: Stack, customer: str) -> int | None:
    return await stack.ledger.accounts.balance(account_of(TENANT, customer), datetime.now(UTC))


async def points_are(stack: Stack, customer: str, points: int) -> bool:
    return await points_of(stack, customer) == points


async def test_a_retried_record_keeps_its_instant(stack: Stack) -> None:
    """An order without a time of its own is as old as its record, also when it is published again."""
    await a_site(stack, "late")
    order = {"id": "old", "status": "COMPLETED", "customer": {"id": "c1"}, "totalPrice": 9, "siteCode": "late"}
    value, header = json.dumps(order).encode(), [("tenant", TENANT.encode()), ("trace", b"7")]
    await stack.writer.write(stack.kafka.topic_order_completed, [(b"key", value)], headers=header)
    async with live(stack):
        await there_are(stack, {"unreadable_settings": 1})
    await settings_become(stack, "late", '{"orderValueToRewardPointsFactor": 1}')
    (letter,) = await letters(stack)
    assert letter.attempts == 1
    assert (await retry(stack, ids=[letter.id])).done == 1
    async with live(stack):  # afresh: what a process has read of the settings it keeps
        await until(lambda: points_are(stack, "c1", 9), seconds=180, what="the order")
    (first, published) = await read_topic(stack.kafka, stack.kafka.topic_order_completed, 2)
    assert (published["key"], published["headers"]["trace"]) == ("key", "7")

    assert [lot["createdAt"] for lot in await stack.lots()] == [parse_instant(first["timestamp"])]
    assert published["timestamp"] > first["timestamp"]

    repeated = await retry(stack, ids=[letter.id])
    assert (repeated.done, repeated.impossible) == (0, 1)
    assert "retried" in repeated.problems[letter.id]
    assert len(await read_topic(stack.kafka, stack.kafka.topic_order_completed, 10)) == 2


def dead_letter(stack: Stack, value: bytes | None = b"{", **said: str) -> Message:
    given = {
        "reason": "malformed",
        "source-topic": stack.kafka.topic_order_completed,
        "source-partition": "0",
        "source-offset": "0",
        **{name.replace("_", "-"): text for name, text in said.items()},
    }
    return Message(
        stack.kafka.topic_dead_letter,
        None,
        value,
        tuple((f"{headers.PREFIX}{name}", text.encode()) for name, text in given.items()),
    )


async def test_what_cannot_be_retried_says_why_and_stays_open(stack: Stack) -> None:
    producer = EventProducer(stack.kafka)
    for message in (
        dead_letter(stack, source_topic="elsewhere"),
        dead_letter(stack, None, reason="undecodable"),
        dead_letter(stack, None, omitted="value", value_sha256="00", source_offset="99999"),
        Message(stack.kafka.topic_dead_letter, None, b"not a dead letter", ()),
    ):
        await producer.publish(message)
    await producer.stop()
    handled = await retry(stack)
    assert (handled.matched, handled.done, handled.impossible) == (4, 0, 4)
    whys = " / ".join(handled.problems.values())
    for why in ("does not read topic elsewhere", "cannot read the original", "no longer at", "does not say where"):
        assert why in whys
    assert (await reasons(stack)).total() == 4
    assert await read_topic(stack.kafka, stack.kafka.topic_order_completed, 10) == []
    with pytest.raises(NotFound):
        await show_letter(settings_of(stack), stack.ledger, LetterId(0, 4711))


async def test_a_letter_left_without_its_value_is_fetched_from_its_source(stack: Stack) -> None:
    """One so large that its dead letter has no value."""
    size = stack.kafka.max_message_bytes
    large = json.dumps(an_order("big", "c1", -1, note="x" * (size - 560))).encode()
    async with live(stack):
        await stack.publish_orders(large)
        await there_are(stack, {"invalid_amount": 1})
        (letter,) = await letters(stack)
        assert letter.omitted
        handled = await retry(stack)
        assert (handled.done, handled.problems) == (1, {})

        async def twice() -> bool:
            return [letter.attempts for letter in await letters(stack)] == [2]

        await until(twice, seconds=180, what="the second dead letter")


async def test_what_was_done_about_letters_that_have_left_the_topic_is_forgotten(stack: Stack) -> None:
    actions = stack.ledger.letter_actions
    at = datetime.now(UTC)
    await actions.claim(
        "t", [LetterAction(id=LetterId(0, n), timestamp=7, state=LetterState.DISCARDED, at=at) for n in range(4)]
    )
    assert await actions.prune("t", {0: 3, 1: 100}) == 3
    assert set(await actions.find("t", [LetterId(0, n) for n in range(4)])) == {LetterId(0, 3)}


async def test_the_commands(stack: Stack) -> None:
    await stack.publish(stack.kafka.topic_order_completed, an_order("a", "c1", 5))
    producer = EventProducer(stack.kafka)
    await producer.publish(dead_letter(stack, json.dumps(an_order("b", "c1", 5)).encode(), error="why"))
    await producer.stop()
    listed = await answered(stack, ["dead-letters", "list", "--reason", "malformed"])
    (letter,) = listed["letters"]
    assert (listed["total"], letter["state"], letter["error"], letter["value"]["id"]) == (1, "open", "why", "b")
    assert (await answered(stack, ["dead-letters", "retry", letter["id"]]))["retried"] == 1
    assert await reasons(stack) == {}
