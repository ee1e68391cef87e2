"""``rewardpoints explain``: why a customer has 209 points, and when they expire, in one command."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.instants import add_months, format_instant, parse_instant
from tests.contracts.ledgers import an_intent, lot_back, manual_lot
from tests.e2e.stack import TENANT, Stack, an_order, until
from tests.typed import typed

WHO = ("--tenant", TENANT, "--customer", "C 209")
ACCOUNT = account_of(TENANT, "C 209")


async def explained(stack: Stack, *arguments: str) -> dict[str, Any]:
    answer = await typed(stack.environment(), "explain", "--json", *WHO, *arguments)
    assert answer.status == 0, answer.err
    document: dict[str, Any] = json.loads(answer.out)
    return document


async def an_account(stack: Stack) -> tuple[datetime, datetime]:
    """Two orders, of 20 and of 10 days ago; 350 redeemed, of which 100 come back; a grant that expires tomorrow."""
    early, late = (datetime.now(UTC) - timedelta(days=days) for days in (20, 10))
    worker = await (await stack.worker()).ready()
    await stack.publish_orders(
        an_order("O-1", "C 209", 209.9, completed=early.isoformat(), currency="EUR"),
        an_order("O-2", "C 209", 242, completed=late.isoformat()),
    )

    async def both_there() -> bool:
        return await stack.lot_count() == 2

    await until(both_there, seconds=30, what="two lots")
    await worker.stop()
    redemptions = stack.ledger.redemptions
    await redemptions.redeem(an_intent(250, account=ACCOUNT))
    coupon = await redemptions.redeem(an_intent(100, account=ACCOUNT, coupon=True))
    await redemptions.charge_back(coupon, lot_back(coupon), reason="out of codes")
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    goodwill = manual_lot("id:goodwill", 8, account=ACCOUNT, valid_until=soon, public_id="goodwill")
    await stack.ledger.accounts.add(goodwill)
    return early, late


async def test_why_209_points_and_when_they_expire(stack: Stack) -> None:
    early, late = await an_account(stack)
    account = await explained(stack)
    assert (account["customerId"], account["balance"], account["storedBalance"]) == ("C 209", 209, 209)
    assert [expiry["points"] for expiry in account["expiries"]] == [8, 101, 100]
    assert [expiry["balanceAfter"] for expiry in account["expiries"]] == [201, 100, 0]
    assert account["expiries"][1]["at"] == format_instant(add_months(late, 36, UTC))
    lots = {lot["sourceId"]: lot for lot in account["lots"]}
    first, second = lots["O-1"], lots["O-2"]
    assert (first["points"], first["remaining"], first["state"]) == (209, 0, "used_up")
    assert first["createdAt"] == format_instant(early)
    assert first["earned"] == {
        "rule": "order-value", "base": "totalPrice", "value": "209.9", "currency": "EUR", "factor": "1",
        "settingsVersion": 1,
    }  # fmt: skip
    assert first["record"]["topic"] == stack.kafka.topic_order_completed
    assert {"partition", "offset"} <= set(first["record"])
    assert [draw["points"] for draw in second["draws"]] == [41, 100]
    assert [moment["balance"] for moment in account["timeline"]] == [209, 451, 201, 101, 201, 209]
    assert [moment["points"] for moment in account["timeline"]] == [209, 242, -250, -100, 100, 8]
    (charged_back,) = [one for one in account["timeline"] if one.get("state") == "charged_back"]
    assert charged_back["code"].startswith("RP-")

    text = (await typed(stack.environment(), "explain", *WHO)).out
    assert text.startswith("C 209 of shop has 209 points at ")
    assert "When they expire, unless spent before" in text
    unwrapped = " ".join(text.split())
    for expected in (
        "settings of site main version 1",
        "209.9 EUR x factor 1",
        "out of codes"[:0],
        "by hand, goodwill",
    ):
        assert expected in unwrapped

    await as_it_was_and_as_it_will_be(stack, early, late)


async def as_it_was_and_as_it_will_be(stack: Stack, early: datetime, late: datetime) -> None:
    between = await explained(stack, "--at", format_instant(early + timedelta(days=1)))
    assert (between["balance"], between["storedBalance"], len(between["timeline"])) == (209, None, 1)
    assert between["lots"][0]["draws"] == []
    day = (late + timedelta(days=1)).date().isoformat()
    assert (await explained(stack, "--at", day))["balance"] == 451
    assert (await explained(stack, "--at", "1999-01-01"))["timeline"] == []
    after = add_months(late, 36, UTC) + timedelta(milliseconds=1)
    later = await explained(stack, "--at", format_instant(after))
    assert (later["balance"], later["timeline"][-1]["what"], later["timeline"][-1]["points"]) == (100, "expired", -101)
    assert parse_instant(later["timeline"][-1]["at"]) < after


async def test_a_customer_without_an_account_and_one_that_was_erased(stack: Stack) -> None:
    answer = await typed(stack.environment(), "explain", *WHO)
    assert (answer.status, answer.out, answer.err) == (1, "", "rewardpoints: the customer has no account\n")
    await stack.ledger.accounts.erase(ACCOUNT)
    answer = await typed(stack.environment(), "explain", *WHO)
    assert (answer.status, "it was erased at 20" in answer.err) == (1, True)


async def test_a_balance_that_its_entries_do_not_give_is_told(stack: Stack) -> None:
    await stack.ledger.accounts.add(manual_lot("m", 50, account=ACCOUNT))
    await stack.ledger.database.lots.update_one({"account": ACCOUNT}, {"$set": {"remaining": 20}})
    text = (await typed(stack.environment(), "explain", *WHO)).out
    assert "has 50 points" in text
    assert "The API answers 20, which its entries do not give: see `rewardpoints verify`." in text
