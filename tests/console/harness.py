"""A console over fakes, and browsers of it that keep cookies."""

import re
import secrets
from dataclasses import dataclass, field
from functools import partial
from html import unescape
from html.parser import HTMLParser
from typing import Any

import httpx

from rewardpoints.console.application import create_console
from rewardpoints.console.gate import MANAGE, SITE, VIEW
from rewardpoints.console.ports import Ports
from rewardpoints.settings import ConsoleSettings, SiteSettingsSettings
from rewardpoints.telemetry import Metrics
from tests.api.fakes import FakeRedeemOptions, Faults, TestClock
from tests.console.fakes import (
    TENANT,
    FakeExplainer,
    FakeLetters,
    FakeLiability,
    FakeReplays,
    FakeSites,
    FakeTokens,
    FakeWatch,
)

ORIGIN = "http://console.test"
HOSTILE = "<script>alert('x')</script>\"'&%2F"
ALL = (VIEW, MANAGE, SITE)


@dataclass
class Desk:
    """The fakes behind a console; ``faults`` makes a port's method raise."""

    clock: TestClock = field(default_factory=TestClock)
    faults: Faults = field(default_factory=Faults)
    metrics: Metrics = field(default_factory=Metrics)
    site_mode: SiteSettingsSettings = field(default_factory=lambda: SiteSettingsSettings(cache_seconds=900))
    settings: ConsoleSettings = field(
        default_factory=lambda: ConsoleSettings(enabled=True, secure_cookie=False, answer_seconds=5)
    )

    def __post_init__(self) -> None:
        self.tokens = FakeTokens(self.clock)
        self.watch = FakeWatch()
        self.explainer = FakeExplainer(self.clock)
        self.liability = FakeLiability(self.clock, self.explainer)
        self.letters = FakeLetters()
        self.replays = FakeReplays()
        self.redeem_options = FakeRedeemOptions()
        self.site_settings = FakeSites()
        self.app = create_console(
            Ports(**{name: self.faults.over(name, partial(getattr, self, name)) for name in PORTS}),
            self.settings,
            self.site_mode,
            order_topic="order-completed",
            clock=self.clock,
            metrics=self.metrics,
            randomness=secrets.token_bytes,
        )

    def browser(self) -> "Browser":
        return Browser(self)

    async def signed_in(self, *scopes: str, tenant: str = TENANT) -> "Browser":
        """A browser with a session; every scope where none is named."""
        browser = self.browser()
        answer = await browser.sign_in(self.tokens.issue(*(scopes or ALL), tenant=tenant))
        assert answer.status_code == 303, answer.text
        return browser


PORTS = ("tokens", "watch", "explainer", "liability", "letters", "replays", "redeem_options", "site_settings")


class Browser:
    """A client that keeps cookies and follows nothing by itself."""

    def __init__(self, desk: Desk) -> None:
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=desk.app), base_url=ORIGIN)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.get(f"/console{path}", **options)

    async def part(self, path: str, **query: str) -> httpx.Response:
        """What the script puts into a page."""
        return await self.client.get(f"/console{path}", params={**query, "part": "1"})

    async def sign_in(self, token: str, *, asked: str = "/console/overview") -> httpx.Response:
        return await self.client.post("/console/sign-in", data={"token": token, "asked": asked})

    async def form_token(self) -> str:
        """The token of this session's forms, from a page."""
        return form_token_of((await self.get("/overview")).text)

    async def post(self, path: str, fields: dict[str, Any], *, token: str | None = None) -> httpx.Response:
        """A form of this session; ``token`` in place of its own."""
        given = await self.form_token() if token is None else token
        return await self.client.post(f"/console{path}", data={**fields, "form_token": given})


def form_token_of(page: str) -> str:
    found = re.search(r'name="form_token" value="([^"]+)"', page)
    assert found, page
    return found[1]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def text_of(page: str) -> str:
    """What a page says, with single spaces."""
    reader = _Reader()
    reader.feed(page)
    return re.sub(r"\s+", " ", " ".join(reader.texts)).strip()


def elements_of(page: str, tag: str) -> list[dict[str, str | None]]:
    """The attributes of every such element."""
    reader = _Reader()
    reader.feed(page)
    return [attributes for name, attributes in reader.elements if name == tag]


def fields_of(page: str, action: str) -> dict[str, str]:
    """The fields of the form with this action, as the page fills them in."""
    found = re.search(rf'<form[^>]*action="{re.escape(action)}"[^>]*>(.*?)</form>', page, re.DOTALL)
    assert found, f"no form {action}"
    values = {}
    for attributes in elements_of(found[1], "input"):
        ticked = attributes.get("type") not in {"checkbox", "radio"} or "checked" in attributes
        if attributes.get("name") and ticked:
            values[str(attributes["name"])] = attributes.get("value") or ""
    for name, inner in re.findall(r'<select[^>]*name="([^"]+)"[^>]*>(.*?)</select>', found[1], re.DOTALL):
        values[name] = next(one["value"] or "" for one in elements_of(inner, "option") if "selected" in one)
    for name, inner in re.findall(r'<textarea[^>]*name="([^"]+)"[^>]*>(.*?)</textarea>', found[1], re.DOTALL):
        values[name] = unescape(inner)
    return values


def scripts_of(page: str) -> list[str]:
    """What a page would run besides the console's own script: nothing, or something is wrong."""
    inline = [one for one in elements_of(page, "script") if not str(one.get("src", "")).startswith("/console/static/")]
    handlers = [
        name for _, attributes in _read(page) for name in attributes if name.startswith("on") or name == "style"
    ]
    return [*map(str, inline), *handlers]


def _read(page: str) -> list[tuple[str, dict[str, str | None]]]:
    reader = _Reader()
    reader.feed(page)
    return reader.elements
