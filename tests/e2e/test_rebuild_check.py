"""Rebuild and compare: a clean ledger gives nothing, and what was planted in it is named, with the reason."""

import asyncio
from datetime import timedelta
from typing import Any

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.replays import ReplayRequest
from rewardpoints.events.inspection import last_records
from rewardpoints.operate.rebuild_check import Check, Checker, CheckRequest, Finding, FindingKind
from rewardpoints.operate.replay import start_replay
from tests.contracts.ledgers import contents, order_lot
from tests.e2e.stack import TENANT, Stack, an_order, until
from tests.operate_tools import Ear, answered, live, settings_of

OLD = "2026-01-31T10:00:00+00:00"


async def checked(stack: Stack, **wanted: Any) -> tuple[Check, list[Finding]]:
    checker = Checker(
        settings_of(stack, max_batch_records=50),
        stack.ledger,
        CheckRequest(**wanted),
        stopping=asyncio.Event(),
        on_progress=lambda _: None,
    )
    found = [finding async for finding in checker.findings()]
    assert checker.check.finished
    return checker.check, found


async def applied(stack: Stack) -> None:
    topic = stack.kafka.topic_order_completed
    await start_replay(settings_of(stack), stack.ledger, ReplayRequest(topic=topic, begin="beginning"), Ear().hearing)


async def test_planted_lots_are_named_and_a_clean_ledger_gives_none(stack: Stack) -> None:
    topic, lots = stack.kafka.topic_order_completed, stack.ledger.database.lots
    await stack.publish_orders(*(an_order(f"o{n}", f"c{n % 20}", 1 + n, completed=OLD) for n in range(300)))
    # one order twice, in two records that disagree: whichever was applied first is right
    await stack.publish_orders(an_order("twice", "c1", 5, completed=OLD), an_order("twice", "c1", 6, completed=OLD))
    await stack.publish_orders(b"{", an_order("skipped", "c1", status="NEW"), an_order("erased", "gone", completed=OLD))
    await applied(stack)
    await stack.ledger.accounts.erase(account_of(TENANT, "gone"))
    before = await contents(stack.ledger)

    check, found = await checked(stack)
    assert found == []
    assert check.clean
    assert (check.read, check.compared, check.equal, check.erased) == (305, 302, 301, 1)
    assert (check.rejected, check.skipped) == ({"malformed": 1}, {"status": 1})

    planted: dict[str, tuple[FindingKind, str]] = {
        "o1": (FindingKind.DIFFERING, "999 points stand"),
        "o2": (FindingKind.DIFFERING, "valid until"),
        "o3": (FindingKind.MISSING, "`rewardpoints replay` adds it"),
        "o4": (FindingKind.DIFFERING, "settings version 7"),
        "twice": (FindingKind.DIFFERING, "none of the order's 2 records"),
        "never": (FindingKind.EXTRA, "there is no record at"),
        "skipped": (FindingKind.EXTRA, "earns nothing: status"),
        "other": (FindingKind.EXTRA, "is order o"),
    }
    by_order = {lot["sourceId"]: lot for lot in before["lots"]}
    await lots.update_one({"_id": by_order["o1"]["_id"]}, {"$set": {"points": 999, "remaining": 999}})
    later = by_order["o2"]["validUntil"] + timedelta(days=1)
    await lots.update_one({"_id": by_order["o2"]["_id"]}, {"$set": {"validUntil": later}})
    await lots.delete_one({"_id": by_order["o3"]["_id"]})
    await lots.update_one({"_id": by_order["o4"]["_id"]}, {"$set": {"earned.settingsVersion": 7}})
    await lots.update_one({"_id": by_order["twice"]["_id"]}, {"$set": {"points": 7, "remaining": 7}})
    place = by_order["o5"]["origin"]
    (skipped,) = [record for record in await everything(stack) if b'"skipped"' in (record.value or b"")]
    origins = {
        "never": {"topic": topic, "partition": place["partition"], "offset": -1},
        "skipped": {"topic": topic, "partition": skipped.partition, "offset": skipped.offset},
        "other": place,
    }
    for name, origin in origins.items():
        await stack.ledger.lots.add_batch([order_lot(name)])
        await lots.update_one({"sourceId": name}, {"$set": {"origin": origin}})
    # what these topics cannot speak for
    await stack.ledger.lots.add_batch([order_lot("archived")])
    await lots.update_one({"sourceId": "archived"}, {"$set": {"origin.topic": "archive"}})
    await stack.ledger.lots.add_batch([order_lot("newer")])
    newer = {"topic": topic, "partition": 0, "offset": 10_000}
    await lots.update_one({"sourceId": "newer"}, {"$set": {"origin": newer}})
    standing = await contents(stack.ledger)

    check, found = await checked(stack)
    named = {finding.order_id: finding for finding in found}
    del planted["never"]  # an offset below the oldest there is: cannot be told from one that retention took
    assert named.keys() == planted.keys()
    for order_id, (kind, why) in planted.items():
        assert named[order_id].kind is kind
        assert why in " / ".join(named[order_id].reasons)
    assert check.unchecked == {
        "from topic archive, which was not read": 1,
        "newer than this check": 1,
        "its record has left the topic": 1,
    }
    assert await contents(stack.ledger) == standing

    report = await answered(stack, ["rebuild", "--check"], status=1)
    assert {one["order"] for one in report["findings"]} == planted.keys()
    assert (report["missing"], report["extra"], report["differing"]) == (1, 2, 4)
    check, found = await checked(stack, tenant="rival")
    assert (check.compared, found) == (0, [])


async def everything(stack: Stack) -> Any:
    return await last_records(stack.kafka, stack.kafka.topic_order_completed, 10_000)


async def test_only_what_the_workers_have_committed_is_judged(stack: Stack) -> None:
    async with live(stack):
        await stack.publish_orders(*(an_order(f"o{n}", "c1", 5, completed=OLD) for n in range(50)))

        async def all_there() -> bool:
            return await stack.lot_count() == 50

        await until(all_there, seconds=180, what="the lots")
    await stack.publish_orders(*(an_order(f"p{n}", "c1", 5, completed=OLD) for n in range(50)))
    check, found = await checked(stack)
    assert (check.read, check.equal, found) == (50, 50, [])
