"""The console as the API process serves it, on real servers: what its pages show and do is what happened."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.site_settings import SettingsHistory
from rewardpoints.trial.tokens import MANAGEMENT_SCOPES
from tests.console.harness import elements_of, fields_of, form_token_of, scripts_of, text_of
from tests.e2e.stack import OTHER_TENANT, TENANT, Server, Stack, an_order, until

ON = {"CONSOLE_ENABLED": "true", "CONSOLE_SECURE_COOKIE": "false"}
OLD = "2026-01-31T10:00:00+00:00"


class Browser:
    """A session over a socket."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.token = ""

    async def get(self, path: str, *, status: int = 200, **query: str) -> str:
        answer = await self.client.get(f"/console{path}", params=query)
        assert answer.status_code == status, text_of(answer.text)
        assert not scripts_of(answer.text)
        return answer.text

    async def part(self, path: str, *, status: int = 200, **query: str) -> str:
        return text_of(await self.get(path, status=status, **query, part="1"))

    async def post(self, path: str, fields: dict[str, Any], *, status: int = 200) -> httpx.Response:
        headers = {"Origin": str(self.client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        answer = await self.client.post(f"/console{path}", data={**fields, "form_token": self.token}, headers=headers)
        assert answer.status_code == status, text_of(answer.text)
        return answer

    async def says(self, words: str, path: str, **query: str) -> None:
        last = ""

        async def said() -> bool:
            nonlocal last
            last = text_of((await self.client.get(f"/console{path}", params={**query, "part": "1"})).text)
            return words in last

        try:
            await until(said, seconds=60, what=f"{words!r} on {path}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {last[:1000]}") from None


@asynccontextmanager
async def signed_in(stack: Stack, api: Server, *, tenant: str = TENANT) -> AsyncIterator[Browser]:
    async with httpx.AsyncClient(base_url=api.url, timeout=60) as client:
        browser = Browser(client)
        token = stack.tokens.issue(tenant=tenant, scopes=MANAGEMENT_SCOPES)
        await browser.post("/sign-in", {"token": token, "asked": "/console/overview"}, status=303)
        browser.token = form_token_of(await browser.get("/overview"))
        yield browser


async def test_every_page_over_the_service_at_work(stack: Stack) -> None:
    await stack.settings_version("main", {"orderValueToRewardPointsFactor": 1}, tenant=OTHER_TENANT)
    await stack.publish_orders(*(an_order(f"o{n}", "c<1>", 10, completed=OLD) for n in range(5)))
    await stack.publish_orders(*(an_order(f"bad{n}", "c2", -7) for n in range(3)))
    await stack.publish_orders(an_order("theirs", "c1", -7), tenant=OTHER_TENANT)
    worker, api = await stack.worker(), await stack.api(**ON)
    await worker.ready()
    await api.ready()
    await until(lambda: lot_count_is(stack, 5), seconds=120, what="the worker's lots")
    async with signed_in(stack, api) as browser, signed_in(stack, api, tenant=OTHER_TENANT) as theirs:
        await browser.says("Dead letters in the last hour 4 of", "/overview")
        await browser.says("Waiting records 0 nothing waits", "/overview")
        await customers(browser, theirs)
        await dead_letters(stack, browser, theirs)
        await replays(stack, browser, theirs)
        await settings(stack, browser)
    assert await api.stop() == 0
    assert "c<1>" not in api.log
    assert "%3C1%3E" not in api.log


async def customers(browser: Browser, theirs: Browser) -> None:
    said = text_of(await browser.get("/customer", customer="c<1>"))
    assert "Balance 50" in said
    assert "order o0: totalPrice 10" in said
    assert "has no account" in text_of(await theirs.get("/customer", customer="c<1>", status=404))
    said = await browser.part("/liability")
    assert "Outstanding points 50" in said
    assert "Accounts with points 1" in said
    assert "No points are outstanding" in await theirs.part("/liability")


async def dead_letters(stack: Stack, browser: Browser, theirs: Browser) -> None:
    page = await browser.get("/dead-letters", part="1")
    assert "3 match: 3 invalid amount" in text_of(page)
    ids = [str(one["value"]) for one in elements_of(page, "input") if one.get("name") == "id"]
    assert len(ids) == 3
    said = text_of(await browser.get("/dead-letters/letter", id=ids[0]))
    assert '"totalPrice": -7' in said
    assert stack.kafka.topic_order_completed in said
    await theirs.get("/dead-letters/letter", id=ids[0], status=404)
    for action in ("retry", "discard"):
        await theirs.post("/dead-letters/act", {"action": action, "id": ids}, status=404)
    assert "3 match" in await browser.part("/dead-letters")

    answer = await browser.post("/dead-letters/act", {"action": "discard", "id": ids[0], "note": "a <test>"})
    assert "discarded 1" in text_of(answer.text)
    assert "a <test>" in text_of(await browser.get("/dead-letters/letter", id=ids[0]))
    asked = await browser.post("/dead-letters/act", {"action": "retry", "all": "1", "reason": "invalid_amount"})
    assert "Retry 2 dead letters?" in text_of(asked.text)
    sure = fields_of(asked.text, "/console/dead-letters/act")
    answer = await browser.post("/dead-letters/act", {**sure, "action": "retry"})
    assert "retried 2" in text_of(answer.text)
    await browser.says("2 match: 2 invalid amount", "/dead-letters")  # wrong as ever, they come back
    assert "2 match" in await browser.part("/dead-letters", state="retried")
    assert "1 match" in await theirs.part("/dead-letters")


async def replays(stack: Stack, browser: Browser, theirs: Browser) -> None:
    await stack.ledger.database.lots.delete_one({"account": account_of(TENANT, "c<1>")})
    wanted = {"from": "beginning", "to": "end", "customer": "c<1>"}
    answer = await browser.post("/replays/start", {**wanted, "dry_run": "1"}, status=303)
    dry = re.sub(".*id=", "", answer.headers["location"])
    await browser.says("finished", "/replays/replay", id=dry)
    assert "Lots that would be added 1" in await browser.part("/replays/replay", id=dry)
    assert await stack.lot_count() == 4

    answer = await browser.post("/replays/start", wanted, status=303)
    real = re.sub(".*id=", "", answer.headers["location"])
    await browser.says("finished", "/replays/replay", id=real)
    said = await browser.part("/replays/replay", id=real)
    assert "Lots added 1" in said
    assert "Already there 4" in said
    assert await stack.lot_count() == 5
    listed = text_of(await browser.get("/replays"))
    assert real in listed
    assert f"{dry} dry run" in listed
    for replay_id in (dry, real):
        assert replay_id not in await theirs.get("/replays")
        await theirs.part("/replays/replay", id=replay_id, status=404)
        await theirs.post("/replays/stop", {"id": replay_id}, status=404)
    await browser.post("/replays/resume", {"id": real}, status=409)
    await browser.post("/replays/start", {**wanted, "topic": "no-such-topic"}, status=503)
    await browser.post("/replays/start", {**wanted, "topic": stack.kafka.topic_chargebacks}, status=400)

    slow = {"from": "beginning", "rate": "1"}
    ids = [
        re.sub(".*id=", "", (await browser.post("/replays/start", slow, status=303)).headers["location"])
        for _ in range(2)
    ]
    refused = await browser.post("/replays/start", slow, status=503)
    assert "2 replays are running" in text_of(refused.text)
    for replay_id in ids:
        await browser.post("/replays/stop", {"id": replay_id}, status=303)
        await browser.says("stopped", "/replays/replay", id=replay_id)
    answer = await browser.post("/replays/resume", {"id": ids[0]}, status=303)
    await browser.says("finished", "/replays/replay", id=ids[0])


async def settings(stack: Stack, browser: Browser) -> None:
    fields = fields_of(await browser.get("/site-settings"), "/console/site-settings/save")
    await browser.post("/site-settings/save", {**fields, "factor": "2.5"}, status=303)
    history: SettingsHistory = await stack.ledger.site_settings.history(TENANT, "main")
    assert [str(version.settings.factor) for version in history.versions] == ["1", "2.5"]
    await browser.post("/site-settings/save", {**fields, "factor": "3"}, status=409)
    fields = fields_of(await browser.get("/redeem-options/edit"), "/console/redeem-options/save")
    fields |= {"name": "Five", "points": "50", "coupon_name": "Five euros", "amount": "5.50", "currency": "EUR"}
    await browser.post("/redeem-options/save", fields, status=303)
    (option,) = await stack.ledger.redeem_options.all(TENANT)
    await browser.post("/redeem-options/save", {**fields, "id": option.id, "version": "1", "points": "60"}, status=303)
    assert [one.points for one in await stack.ledger.redeem_options.all(TENANT)] == [60]
    assert "Five" in text_of(await browser.get("/redeem-options"))


async def lot_count_is(stack: Stack, count: int) -> bool:
    return await stack.lot_count() == count


async def test_without_the_setting_there_is_no_console(stack: Stack) -> None:
    api = await (await stack.api()).ready()
    async with httpx.AsyncClient(base_url=api.url) as client:
        for path in ("/console", "/console/sign-in", "/console/static/console.css"):
            assert (await client.get(path)).status_code == 404


async def test_a_replay_that_runs_is_stopped_with_the_process_and_can_be_resumed(stack: Stack) -> None:
    await stack.publish_orders(*(an_order(f"o{n}", "c1", 10, completed=OLD) for n in range(50)))
    first = await (await stack.api(**ON)).ready()
    async with signed_in(stack, first) as browser:
        answer = await browser.post("/replays/start", {"from": "beginning", "rate": "5"}, status=303)
        replay_id = re.sub(".*id=", "", answer.headers["location"])
    assert await first.stop() == 0
    stopped = await stack.ledger.replays.find(replay_id)
    assert stopped is not None
    assert stopped.state == "stopped"
    assert stopped.done < stopped.total
    second = await (await stack.api(**ON)).ready()
    async with signed_in(stack, second) as browser:
        await browser.post("/replays/resume", {"id": replay_id}, status=303)
        await browser.says("finished", "/replays/replay", id=replay_id)
    assert await stack.lot_count() == 50
