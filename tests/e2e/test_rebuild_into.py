"""A database restored from a backup and rebuilt from the topics is what it was, but for what was done by hand."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import pytest

from rewardpoints.domain.accounts import Account, account_of
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.redemptions import Redemption, fingerprint
from rewardpoints.domain.replays import ReplayRequest
from rewardpoints.events.chargeback_consumer import charge_back
from rewardpoints.events.coupon_requests import decode_coupon_request
from rewardpoints.events.coupon_result_consumer import mark_issued
from rewardpoints.events.inspection import last_records
from rewardpoints.events.messages import decode_chargeback, decode_coupon_result, encode_coupon_request
from rewardpoints.events.producer import EventProducer
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.operate.ledgers import open_ledger
from rewardpoints.operate.rebuild_into import Rebuild, Rebuilt
from rewardpoints.operate.replay import start_replay
from rewardpoints.operate.tombstones import check_tombstones, read_tombstones
from tests.contracts.ledgers import an_intent, an_option, broken, contents, manual_lot, now
from tests.e2e.stack import TENANT, Stack, an_order
from tests.operate_tools import Ear, answered, command, settings_of

OLD = "2026-01-31T10:00:00+00:00"


def account(customer: str) -> Account:
    return account_of(TENANT, customer)


class History:
    """What happens to the serving ledger, as the service itself lets it happen."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.ledger = stack.ledger
        self.kafka = stack.kafka
        self._producer = EventProducer(stack.kafka)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._producer.stop()

    async def orders(self, *orders: dict[str, Any]) -> None:
        await self.stack.publish_orders(*orders)
        request = ReplayRequest(topic=self.kafka.topic_order_completed, begin="beginning")
        await start_replay(settings_of(self.stack), self.ledger, request, Ear().hearing)

    async def redeem(self, customer: str, points: int, key: str) -> Redemption:
        option = an_option()  # as the API makes it
        asked = {"description": option.description, "fingerprint": fingerprint("redeem", "main", {"id": option.id})}
        intent = an_intent(points, key, coupon=True, account=account(customer), **asked)
        redemption = await self.ledger.redemptions.redeem(intent)
        await self._producer.publish(encode_coupon_request(redemption, self.kafka.topic_coupon_creation_requests))
        await self.ledger.redemptions.mark_published(redemption.id)
        return redemption

    async def charge_back(self, redemption: Redemption) -> None:
        await self.stack.publish(self.kafka.topic_chargebacks, {"redemptionId": redemption.id, "reason": "none left"})
        (record,) = await last_records(self.kafka, self.kafka.topic_chargebacks, 1)
        reader = self.ledger.settings_reader
        assert await charge_back(decode_chargeback(record), self.ledger.redemptions, reader, now)

    async def issue(self, redemption: Redemption) -> None:
        topic = self.kafka.topic_coupon_creation_results
        assert topic is not None
        await self.stack.publish(topic, {"redemptionId": redemption.id, "status": "CREATED"})
        (record,) = await last_records(self.kafka, topic, 1)
        assert await mark_issued(decode_coupon_result(record), self.ledger.redemptions) == "issued"


@asynccontextmanager
async def opened(stack: Stack, database: str) -> AsyncIterator[Ledger]:
    settings = settings_of(stack)
    async with open_ledger(settings, settings.mongodb.model_copy(update={"database": database})) as ledger:
        yield ledger


async def backed_up(stack: Stack, target: Ledger) -> None:
    """Every document, as a backup that is restored under another name."""
    await target.ensure_indexes()
    for name in await stack.ledger.database.raw.list_collection_names():
        documents = await stack.ledger.database.raw[name].find({}).to_list(None)
        if documents:
            await target.database.raw[name].insert_many(documents)


async def rebuilt(stack: Stack, target: Ledger, tombstones: Path | None = None) -> Rebuilt:
    ended = await Rebuild(
        settings_of(stack),
        stack.ledger,
        target,
        tombstones=(lambda: read_tombstones(tombstones)) if tombstones else None,
        stopping=asyncio.Event(),
        on_progress=lambda _: None,
    ).run()
    assert ended.finished
    return ended


def standing(entries: Mapping[str, list[dict[str, Any]]], without: set[str]) -> dict[str, Any]:
    """What must be as it was: not when and from which copy of a record it was written."""
    found: dict[str, Any] = {}
    for name in ("lots", "redemptions"):
        for document in entries[name]:
            if document["_id"] not in without:
                left_out = {"recordedAt", "origin", "publishedAt"}
                kept = {field: value for field, value in document.items() if field not in left_out}
                if "option" in kept:  # JSON text, whose fields have no order
                    kept["option"] = json.loads(kept["option"], parse_float=Decimal)
                found[document["_id"]] = kept
    return found


async def test_a_restored_backup_becomes_what_was_lost(stack: Stack, database_name: str, tmp_path: Path) -> None:
    name = f"rebuild_{database_name}"[:50]
    async with History(stack) as history, opened(stack, name) as target:
        await history.orders(*(an_order(f"o{n}", f"c{n % 8}", 10 + n, completed=OLD) for n in range(40)))
        before = await history.redeem("c1", 15, "before the backup")
        await history.orders(an_order("gone1", "gone", 50, completed=OLD))
        await stack.ledger.restoring.mark_serving()
        await backed_up(stack, target)

        await history.charge_back(before)
        await history.orders(*(an_order(f"p{n}", f"c{n % 8}", 20 + n, completed=OLD) for n in range(16)))
        returned = await history.redeem("c2", 60, "given back")
        await history.charge_back(returned)
        total = await stack.ledger.accounts.balance(account("c2"), now())
        assert total is not None
        spent = await history.redeem("c2", total, "spends what was given back")
        await history.issue(spent)
        await history.redeem("c3", 25, "waits for its coupon")
        await stack.ledger.accounts.add(manual_lot("hand", 30, account=account("hand")))
        from_hand = await history.redeem("hand", 20, "draws on what was given by hand")
        by_hand = await stack.ledger.redemptions.redeem(an_intent(5, "by hand", account=account("c4")))
        await stack.ledger.accounts.erase(account("gone"))
        status, exported, _ = await (await command(stack, "tombstones", "export")).output()
        assert (status, [json.loads(line)["account"] for line in exported.splitlines()]) == (0, ["shop/gone"])
        file = tmp_path / "tombstones.jsonl"
        file.write_text(exported)
        assert check_tombstones(file) == 1

        published = [len(await last_records(stack.kafka, topic, 1000)) for topic in topics(stack)]
        serving = await contents(stack.ledger)
        ended = await rebuilt(stack, target, file)
        lost = {"hand": manual_lot("hand", 30, account=account("hand")).id}
        without = {lost["hand"], from_hand.id, by_hand.id}
        again = await contents(target)
        # what was spent by hand is lost, so its points are there again
        drawn_by_hand = {draw.lot for draw in by_hand.draws}
        assert standing(again, without | drawn_by_hand) == standing(serving, without | drawn_by_hand)
        assert {entry.entry.split()[-1] for entry in ended.lost} == without
        assert (ended.redemptions_added, ended.redemptions_there) == (3, 1)
        assert ended.answers == {"charged_back": 2, "issued": 1}
        assert (ended.orders.added, ended.buried) == (16, 1)
        assert ended.rejected == {}
        assert await broken(target) == []
        assert await contents(stack.ledger) == serving
        assert [len(await last_records(stack.kafka, topic, 1000)) for topic in topics(stack)] == published

        repeated = await rebuilt(stack, target, file)
        assert await contents(target) == again
        assert (repeated.redemptions_added, repeated.redemptions_there) == (0, 4)
        # a client that repeats its redemption with its key is answered as before
        kept = await target.redemptions.find(spent.id)
        assert kept is not None
        assert kept.coupon is not None
        assert spent.coupon is not None
        assert kept.coupon.code == spent.coupon.code


def topics(stack: Stack) -> tuple[str, ...]:
    kafka = stack.kafka
    return (kafka.topic_coupon_creation_requests, kafka.topic_dead_letter, kafka.topic_order_completed)


async def test_an_empty_database_is_rebuilt_and_one_that_serves_never(stack: Stack, database_name: str) -> None:
    name = f"rebuild_{database_name}"[:50]
    async with History(stack) as history:
        await history.orders(*(an_order(f"o{n}", f"c{n % 3}", 10 + n, completed=OLD) for n in range(30)))
    await stack.ledger.accounts.erase(account("c2"))
    report = await answered(stack, ["rebuild", "--into", name])
    assert (report["orders"]["added"], report["orders"]["skipped"], report["settingsCopied"]) == (20, {"erased": 10}, 1)
    async with opened(stack, name) as target:
        assert standing(await contents(target), set()) == standing(await contents(stack.ledger), set())
        await target.restoring.mark_serving()
        with pytest.raises(InvalidInput, match="uses"):
            await rebuilt(stack, target)
    for wrong in (stack.database, "other"):
        async with opened(stack, wrong) as target:
            with pytest.raises(InvalidInput, match="rebuild"):
                await rebuilt(stack, target)


async def test_a_coupon_request_read_back_is_the_same_request(stack: Stack) -> None:
    async with History(stack) as history:
        await history.orders(an_order("o", "c/ü 1", 100, completed=OLD))
        redemption = await history.redeem("c/ü 1", 40, "key")
    (record,) = await last_records(stack.kafka, stack.kafka.topic_coupon_creation_requests, 1)
    again = decode_coupon_request(record)
    assert encode_coupon_request(again, "t").value == record.value
    assert again.account == redemption.account
    assert again == replace(redemption, publish_at=None)


def test_a_damaged_export_is_refused_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "tombstones.jsonl"
    file.write_text('{"account": "shop/c1", "erasedAt": "2026-01-01T00:00:00.000+00:00"}\n{"account": "shop/c2"}\n')
    with pytest.raises(InvalidInput, match="line 2"):
        check_tombstones(file)
