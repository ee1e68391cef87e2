"""Takes the screenshots of docs/console.md: ``python -m tests.console FOLDER``."""

import asyncio
import sys
from pathlib import Path
from typing import Final, Literal

from playwright.async_api import ViewportSize, expect

from tests.console.chromium import DESK, MISSING, PHONE, WAIT_MS, chromium, running_chromium, served, sign_in
from tests.console.harness import Desk
from tests.console.samples import CUSTOMER, fill

Scheme = Literal["light", "dark"]
SHOTS: Final[tuple[tuple[str, str, Scheme, dict[str, int]], ...]] = (
    ("overview-light", "overview", "light", DESK),
    ("overview-dark", "overview", "dark", DESK),
    ("overview-phone", "overview", "light", PHONE),
    ("customer-light", f"customer?customer={CUSTOMER}", "light", DESK),
    ("customer-dark", f"customer?customer={CUSTOMER}", "dark", DESK),
    ("customer-phone", f"customer?customer={CUSTOMER}", "dark", PHONE),
    ("liability-light", "liability", "light", DESK),
    ("dead-letters-light", "dead-letters", "light", DESK),
    ("replay-dark", "replays/replay?id=20261121-115312-9c04e1", "dark", DESK),
    ("site-settings-light", "site-settings", "light", DESK),
)


async def shoot(folder: Path) -> None:
    """Write a PNG for each of ``SHOTS``."""
    desk = Desk()
    fill(desk)
    async with served(desk) as url, running_chromium() as browser:
        for name, address, scheme, size in SHOTS:
            viewport: ViewportSize = {"width": size["width"], "height": size["height"]}
            context = await browser.new_context(viewport=viewport, color_scheme=scheme)
            page = await sign_in(context, desk, url)
            await page.goto(f"{url}/console/{address}")
            await expect(page.locator("[aria-busy]")).to_have_count(0, timeout=WAIT_MS)
            await page.screenshot(path=folder / f"{name}.png", animations="disabled")
            await context.close()


if __name__ == "__main__":
    if chromium() is None:
        sys.exit(MISSING)
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    asyncio.run(shoot(target))
