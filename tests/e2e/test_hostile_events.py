"""Events with ids that mean something to a database: literal or dead letters; and logs of it all that tell nobody."""

import secrets
import unicodedata
from collections import Counter
from typing import Any

import httpx

from rewardpoints.app.commands import read_topic
from rewardpoints.domain.accounts import account_of
from rewardpoints.events.dead_letters import REASON
from tests.e2e.stack import OTHER_TENANT, TENANT, Stack, an_order, until

SECRET = f"private{secrets.token_hex(8)}"
PERSON: dict[str, Any] = {"email": f"{SECRET}@example.org", "name": SECRET}
IDS = [
    *("$ne", "$where", '{"$gt": ""}', "a.b", "$a.0", "__proto__", "' OR 1=1 --", "../c1", "c1/summary", "%2F", "%00"),
    *("c1", "C1", "c1 ", "c1\u200b", "\u202ec1", "\u04411", "\uff43\uff11", "\U0001f600", "ANONYMOUS2", "null", "*"),
    *(unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")),
]
ODD_FIELDS: dict[str, Any] = {"$set": {"x": 1}, "a.b": 1, "__proto__": {}}
OPERATORS: list[Any] = [{"$ne": None}, {"$gt": ""}, ["c1"], {"$oid": "5f43a2e0c0ffee0000000000"}]


def customer_of(text: str) -> str:
    return f"{text}{SECRET}"


def good_orders() -> list[dict[str, Any]]:
    devious_customers = [
        an_order(
            f"o{points}", customer_of(text), points, customer={"id": customer_of(text), **PERSON}, **{"$set": {"x": 1}}
        )
        for points, text in enumerate(IDS, start=1)
    ]
    devious_orders = [
        an_order(text, "of-devious-orders", 1, customer={"id": "of-devious-orders", **PERSON}) for text in IDS
    ]
    return devious_customers + devious_orders


def bad_records() -> list[bytes | dict[str, Any]]:
    person: dict[str, Any] = {"customer": {"id": SECRET, **PERSON}}
    return [
        *(an_order("x", "c1", customer={"id": operator, **PERSON}) for operator in OPERATORS),
        *(an_order(operator, SECRET, **person) for operator in OPERATORS),
        an_order("x", SECRET, siteCode={"$ne": SECRET}, **person),
        an_order("x", SECRET, totalPrice={"$inc": SECRET}, **person),
        an_order("x", f"{SECRET}\0", customer={"id": f"{SECRET}\0"}),
        an_order(f"{SECRET}\n", SECRET, **person),
        an_order("x" * 300 + SECRET, SECRET, **person),
        an_order("x", SECRET, completed=SECRET, **person),
        f'{{"id": "{SECRET}", "status": '.encode(),
        SECRET.encode() + b"\xff",
    ]


async def test_hostile_events_are_literal_or_dead_letters_and_no_log_tells_of_a_customer(stack: Stack) -> None:
    await stack.settings_version("main", {"orderValueToRewardPointsFactor": 1}, tenant=OTHER_TENANT)
    worker, api = await (await stack.worker()).ready(), await (await stack.api()).ready()
    bad = bad_records()
    await stack.publish_orders(*good_orders())
    await stack.publish_orders(*good_orders()[: len(IDS)], tenant=OTHER_TENANT)
    await stack.publish_orders(*bad)
    await stack.publish(
        stack.kafka.topic_chargebacks, *({"redemptionId": one, "tenant": TENANT} for one in (SECRET, "$ne"))
    )
    await stack.publish(stack.kafka.topic_chargebacks, {"redemptionId": {"$ne": SECRET}, "tenant": TENANT})
    expected = {
        account_of(tenant, customer_of(text)): n for tenant in (TENANT, OTHER_TENANT) for n, text in enumerate(IDS, 1)
    }

    async def applied() -> bool:
        return await stack.lot_count() == 3 * len(IDS)

    async def refused() -> bool:
        return len(await dead_letters(stack)) == len(bad) + 3

    await until(applied, seconds=90, what="every good order applied")
    await until(refused, seconds=90, what="every bad record a dead letter")
    points = Counter[str]()
    for lot in await stack.lots():
        points[lot["account"]] += lot["points"]
    assert points == Counter({**expected, account_of(TENANT, "of-devious-orders"): len(IDS)})
    assert {reason for reason in await dead_letters(stack) if not reason} == set()

    async with httpx.AsyncClient(base_url=api.url, timeout=30) as client:
        for balance, text in list(enumerate(IDS, start=1))[:5]:
            answer = await client.get("/reward-points/public/customer", headers=stack.customer(customer_of(text)))
            assert (answer.status_code, answer.text) == (200, str(balance))
        for headers in ({"Authorization": f"Bearer {SECRET}"}, stack.customer(SECRET)):
            assert (await client.get("/reward-points/public/customer", headers=headers)).status_code in {401, 404}

    assert await worker.stop() == await api.stop() == 0
    logs = worker.log + api.log
    assert "dead_letter" in logs
    assert [line for line in logs.splitlines() if SECRET in line or "eyJ" in line or "example.org" in line] == []
    await stack.assert_true()


async def dead_letters(stack: Stack) -> list[str | None]:
    """The reasons in the dead-letter topic."""
    records = await read_topic(stack.kafka, stack.kafka.topic_dead_letter, 1000)
    return [record["headers"].get(REASON) for record in records]
