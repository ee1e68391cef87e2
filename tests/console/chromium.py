"""A headless Chromium, where one is installed, on a console over fakes that listens on loopback."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from rewardpoints.api.server import HttpServer
from tests.console.harness import ALL, Desk

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "no Chromium is installed (Debian: apt install chromium; or name one in REWARDPOINTS_TEST_CHROMIUM)"
START_MS = 120_000
WAIT_MS = 60_000
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


def chromium() -> str | None:
    """Where Chromium is."""
    named = os.environ.get("REWARDPOINTS_TEST_CHROMIUM")
    return named or next((path for path in map(shutil.which, NAMES) if path), None)


@asynccontextmanager
async def running_chromium() -> AsyncIterator[Browser]:
    """A browser of the tests' own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(),
            timeout=START_MS,
            chromium_sandbox=os.geteuid() != 0,  # which Chromium refuses to root
            args=["--disable-gpu", "--disable-dev-shm-usage"],
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def served(desk: Desk) -> AsyncIterator[str]:
    """The console on a free port; its address."""
    http = HttpServer(desk.app, host="127.0.0.1", port=0, drain_seconds=1)
    await http.start()
    try:
        yield http.url
    finally:
        await http.stop()


async def sign_in(context: BrowserContext, desk: Desk, url: str) -> Page:
    """A page with a session that may do everything."""
    context.set_default_timeout(WAIT_MS)
    page = await context.new_page()
    await page.goto(f"{url}/console/")
    await page.get_by_label("Access token").fill(desk.tokens.issue(*ALL))
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/console/overview")
    return page
