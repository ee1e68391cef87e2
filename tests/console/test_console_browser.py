"""The console in a real browser: its script, its policy, its keyboard, its colours, its widths."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from playwright.async_api import Browser, ConsoleMessage, Dialog, Error, Page, Route, expect

from rewardpoints.domain.liability import Liability, PeriodLength
from rewardpoints.domain.replays import ReplayState
from tests.console.chromium import DESK, MISSING, PHONE, WAIT_MS, chromium, running_chromium, served, sign_in
from tests.console.fakes import TENANT, a_letter, a_replay, a_state
from tests.console.harness import ALL, HOSTILE, Desk
from tests.console.samples import CUSTOMER, fill

pytestmark = pytest.mark.skipif(chromium() is None, reason=MISSING)

PAGES = (
    "overview",
    f"customer?customer={CUSTOMER}",
    "customer?customer=nobody",
    "liability",
    "dead-letters",
    "dead-letters/letter?id=0-1040",
    "replays",
    "replays/replay?id=20261121-115312-9c04e1",
    "redeem-options",
    "redeem-options/edit?id=option-0",
    "site-settings",
)
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with running_chromium() as running:
        yield running


@dataclass
class Stage:
    """A page somebody has signed in on, and what it has complained about."""

    desk: Desk
    url: str
    page: Page
    complaints: list[str]

    async def open(self, address: str) -> None:
        await self.page.goto(f"{self.url}/console/{address}")
        await expect(self.page.locator("[aria-busy]")).to_have_count(0)


@pytest.fixture
async def stage(browser: Browser) -> AsyncIterator[Stage]:
    desk = Desk()
    fill(desk)
    async with served(desk) as url:
        context = await browser.new_context(viewport={"width": DESK["width"], "height": DESK["height"]})
        try:
            page = await sign_in(context, desk, url)
            complaints: list[str] = []

            def note(message: ConsoleMessage) -> None:
                if message.type == "error" and "Failed to load resource" not in message.text:
                    complaints.append(message.text)

            def note_error(error: Error) -> None:
                complaints.append(str(error))

            page.on("console", note)
            page.on("pageerror", note_error)
            yield Stage(desk, url, page, complaints)
        finally:
            await context.close()


async def test_every_page_keeps_the_policy_and_fits_a_phone(stage: Stage) -> None:
    await stage.page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
    for address in PAGES:
        await stage.open(address)
        await expect(stage.page.locator("h1")).to_have_count(1)
        width = await stage.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], f"{address} is {width} wide"
    assert stage.complaints == []


async def test_the_overview_is_refreshed_paused_and_survives_an_outage(stage: Stage) -> None:
    page = stage.page
    await stage.open("overview")
    await expect(page.get_by_text("1,234").first).to_be_visible()
    stage.desk.watch.now = a_state(waiting=777)
    await expect(page.get_by_text("777").first).to_be_visible()

    async def unreachable(route: Route) -> None:
        await route.abort()

    await page.route("**/console/overview?part=1", unreachable)
    await expect(page.get_by_text("The service does not answer. Trying again")).to_be_visible()
    await expect(page.get_by_text("777").first).to_be_visible()
    await page.unroute("**/console/overview?part=1")
    await expect(page.get_by_text("The service does not answer. Trying again")).to_have_count(0)
    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_text("Paused.")).to_be_visible()
    stage.desk.watch.now = a_state(waiting=888)
    await page.get_by_role("button", name="Go on").click()
    await expect(page.get_by_text("888").first).to_be_visible()
    assert stage.complaints == []


async def test_what_takes_long_says_so_until_it_is_there(stage: Stage) -> None:
    go_on = asyncio.Event()
    made = stage.desk.liability

    async def slowly(tenant: str, *, site_code: str | None, by: PeriodLength) -> Liability:
        await go_on.wait()
        return await made.report(tenant, site_code=site_code, by=by)

    stage.desk.faults.plant("liability.report", slowly)
    await stage.page.goto(f"{stage.url}/console/liability")
    await expect(stage.page.get_by_role("status")).to_contain_text("Adding up all accounts")
    await expect(stage.page.locator("[aria-busy=true]")).to_have_count(1)
    go_on.set()
    await expect(stage.page.get_by_role("img", name="Outstanding points")).to_be_visible()
    await expect(stage.page.locator("[aria-busy]")).to_have_count(0)


async def test_a_session_that_is_over_is_said_where_the_page_would_refresh(stage: Stage) -> None:
    await stage.open("overview")
    await stage.page.context.clear_cookies()
    await expect(stage.page.get_by_role("alert")).to_contain_text("Sign in")


async def test_by_keyboard_alone(stage: Stage) -> None:
    page = stage.page
    stage.desk.letters.letters[TENANT] = [a_letter(1), a_letter(2)]
    await stage.open("dead-letters")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await page.get_by_role("checkbox", name="Choose 0-2").focus()
    await page.keyboard.press("Space")
    outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    for _ in range(10):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.textContent") == "Retry the chosen":
            break
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Dead letters retried")).to_be_visible()
    assert stage.desk.letters.acts == [("retry", ["0-2"], False, None)]


async def test_discarding_asks_first(stage: Stage) -> None:
    page = stage.page
    stage.desk.letters.letters[TENANT] = [a_letter(1), a_letter(2)]
    asked: list[str] = []
    answers = iter([False, True])

    async def answer(dialog: Dialog) -> None:
        asked.append(dialog.message)
        await (dialog.accept() if next(answers) else dialog.dismiss())

    page.on("dialog", answer)
    await stage.open("dead-letters")
    await page.get_by_label("Choose all that are shown").check()
    await page.get_by_role("button", name="Discard the chosen").click()
    assert stage.desk.letters.acts == []
    await page.get_by_role("button", name="Discard the chosen").click()
    await expect(page.get_by_role("heading", name="Dead letters discarded")).to_be_visible()
    assert stage.desk.letters.acts == [("discard", ["0-1", "0-2"], False, None)]
    assert len(asked) == 2


async def test_a_replay_is_followed_to_its_end(stage: Stage) -> None:
    await stage.open("replays/replay?id=20261121-115312-9c04e1")
    await expect(stage.page.get_by_role("button", name="Cancel")).to_be_visible()
    ended = a_replay("20261121-115312-9c04e1", state=ReplayState.FINISHED)
    stage.desk.replays.views[ended.replay.id] = ended
    await expect(stage.page.get_by_text("finished")).to_be_visible()
    await expect(stage.page.get_by_role("button", name="Cancel")).to_have_count(0)
    await expect(stage.page.get_by_role("button", name="Pause")).to_be_hidden()


async def test_settings_are_changed_in_the_form(stage: Stage) -> None:
    page = stage.page
    await stage.open("site-settings")
    await page.get_by_label("Points for one unit of order value").fill("1.25")
    await page.get_by_role("button", name="Save as version 3").click()
    await expect(page.get_by_role("status")).to_contain_text("Saved as version 3")
    assert str(stage.desk.site_settings.versions[TENANT, "main"][-1].settings.factor) == "1.25"


async def test_hostile_names_stay_text(stage: Stage) -> None:
    opened: list[str] = []

    async def note(dialog: Dialog) -> None:
        opened.append(dialog.message)
        await dialog.dismiss()

    stage.page.on("dialog", note)
    stage.desk.watch.now = a_state(topic=HOSTILE)
    stage.desk.letters.letters[TENANT] = [a_letter(1, error=HOSTILE, value=HOSTILE)]
    for address in ("overview", "dead-letters", "dead-letters/letter?id=0-1"):
        await stage.open(address)
        await expect(stage.page.get_by_text("<script>alert('x')</script>").first).to_be_visible()
    assert opened == []
    assert stage.complaints == []


async def test_light_and_dark_follow_the_visitor(stage: Stage) -> None:
    await stage.open("overview")
    grounds = []
    for scheme in ("light", "dark"):
        await stage.page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
        grounds.append(await stage.page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert grounds == ["rgb(246, 247, 249)", "rgb(17, 22, 29)"]


async def test_pages_work_without_the_script(browser: Browser, stage: Stage) -> None:
    context = await browser.new_context(java_script_enabled=False)
    try:
        page = await context.new_page()
        page.set_default_timeout(WAIT_MS)
        await page.goto(f"{stage.url}/console/liability")
        await page.get_by_label("Access token").fill(stage.desk.tokens.issue(*ALL))
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("link", name="Show it without the console's script").click()
        await expect(page.get_by_role("img", name="Outstanding points")).to_be_visible()
    finally:
        await context.close()
