"""Who may see the console's pages and send its forms."""

from datetime import timedelta

import jwt
import pytest
from pydantic import SecretStr

from rewardpoints.console.gate import MANAGE, SITE, VIEW
from rewardpoints.console.ports import ServiceUnavailable
from rewardpoints.settings import ConsoleSettings
from tests.console.harness import ALL, ORIGIN, Desk, elements_of, form_token_of, scripts_of, text_of

PAGES = {
    "/overview": VIEW,
    "/customer": VIEW,
    "/liability": VIEW,
    "/dead-letters": VIEW,
    "/dead-letters/letter": VIEW,
    "/replays": VIEW,
    "/replays/replay": VIEW,
    "/redeem-options": VIEW,
    "/redeem-options/edit": MANAGE,
    "/site-settings": SITE,
}
"""Every page with its scope."""

NEED_MORE = {"/dead-letters/letter", "/replays/replay"}
"""Pages that show nothing without a query."""

FORMS = {
    "/replays/start": MANAGE,
    "/replays/stop": MANAGE,
    "/replays/resume": MANAGE,
    "/dead-letters/act": MANAGE,
    "/redeem-options/save": MANAGE,
    "/site-settings/save": SITE,
}
"""Every form with its scope."""


def test_every_page_is_in_these_tests(desk: Desk) -> None:
    routes = {
        (route.path.removeprefix("/console"), method)
        for route in desk.app.routes  # type: ignore[attr-defined]  # it is Starlette's
        for method in route.methods - {"HEAD"}
    }
    own = {("", "GET"), ("/", "GET"), ("/static/{name}", "GET"), ("/sign-in", "GET"), ("/sign-in", "POST")}
    own.add(("/sign-out", "POST"))
    assert routes - own == {(path, "GET") for path in PAGES} | {(path, "POST") for path in FORMS}


@pytest.mark.parametrize("path", PAGES)
async def test_without_a_token_a_page_asks_to_sign_in(desk: Desk, path: str) -> None:
    answer = await desk.browser().get(f"{path}?part=1")
    assert answer.status_code == 401
    answer = await desk.browser().get(f"{path}?a=1&b=%3Cb%3E")
    assert answer.status_code == 401
    asked = [one["value"] for one in elements_of(answer.text, "input") if one["name"] == "asked"]
    assert asked == [f"/console{path}?a=1&b=%3Cb%3E"]


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_takes_its_scope(desk: Desk, path: str) -> None:
    others = [scope for scope in ALL if scope != PAGES[path]]
    browser = await desk.signed_in(*others)
    answer = await browser.get(path)
    assert answer.status_code == 403
    assert PAGES[path] in answer.text
    browser = await desk.signed_in(PAGES[path])
    answer = await browser.get(path)
    assert answer.status_code == (400 if path in NEED_MORE else 200)


@pytest.mark.parametrize("path", FORMS)
async def test_a_form_takes_a_session_its_scope_and_its_token(desk: Desk, path: str) -> None:
    assert (await desk.browser().client.post(f"/console{path}", data={})).status_code == 401
    scope = FORMS[path]
    without = await desk.signed_in(*(one for one in ALL if one != scope))
    answer = await without.post(path, {})
    assert answer.status_code == 403
    assert scope in answer.text
    browser = await desk.signed_in()
    for wrong in ("", "0" * 64, await (await desk.signed_in()).form_token()):
        answer = await browser.post(path, {}, token=wrong)
        assert answer.status_code == 403
        assert "not of this session" in answer.text


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
async def test_a_form_of_another_site_is_refused(desk: Desk, path: str, headers: dict[str, str]) -> None:
    browser = await desk.signed_in()
    data = {"form_token": await browser.form_token()}
    answer = await browser.client.post(f"/console{path}", data=data, headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.text


async def test_signing_in_leads_to_the_page_that_was_asked_for(desk: Desk) -> None:
    browser = desk.browser()
    answer = await browser.sign_in(desk.tokens.issue(VIEW), asked="/console/overview?x=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/overview?x=1"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/console" in cookie
    assert "tenant <strong>shop" in (await browser.get("/overview")).text


@pytest.mark.parametrize("asked", ["https://evil.example/", "//evil.example", "/console/\\evil", "/console/sign-out"])
async def test_nobody_is_sent_elsewhere_after_signing_in(desk: Desk, asked: str) -> None:
    answer = await desk.browser().sign_in(desk.tokens.issue(VIEW), asked=asked)
    assert answer.headers["location"] == "/console/overview"


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}])
async def test_another_site_cannot_sign_a_browser_in(desk: Desk, headers: dict[str, str]) -> None:
    browser = desk.browser()
    data = {"token": desk.tokens.issue(VIEW)}
    answer = await browser.client.post("/console/sign-in", data=data, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_a_form_of_the_console_itself_is_taken(desk: Desk) -> None:
    headers = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
    data = {"token": desk.tokens.issue(VIEW)}
    answer = await desk.browser().client.post("/console/sign-in", data=data, headers=headers)
    assert answer.status_code == 303


@pytest.mark.parametrize("token", ["", "nonsense", "Bearer "])
async def test_a_token_that_is_none_opens_no_session(desk: Desk, token: str) -> None:
    browser = desk.browser()
    answer = await browser.sign_in(token)
    assert answer.status_code == 401
    assert "does not accept" in answer.text
    assert "set-cookie" not in answer.headers
    assert (await browser.get("/overview")).status_code == 401


async def test_customers_and_reserved_tenants_are_refused(desk: Desk) -> None:
    for token in (desk.tokens.issue(VIEW, customer_id="C1"), desk.tokens.issue(VIEW, tenant="public")):
        assert (await desk.browser().sign_in(token)).status_code == 403
        answer = await desk.browser().get("/overview", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 403


async def test_a_bearer_token_needs_no_session(desk: Desk) -> None:
    headers = {"Authorization": f"Bearer {desk.tokens.issue(VIEW)}"}
    assert (await desk.browser().get("/overview?part=1", headers=headers)).status_code == 200
    for wrong in ("Bearer x", "Bearer", "Basic YQ=="):
        assert (await desk.browser().get("/overview", headers={"Authorization": wrong})).status_code == 401


async def test_a_bearer_token_counts_and_not_the_cookie_beside_it(desk: Desk) -> None:
    browser = await desk.signed_in()
    assert (await browser.get("/overview", headers={"Authorization": "Bearer x"})).status_code == 401


async def test_a_session_ends_after_its_time(desk: Desk) -> None:
    browser = await desk.signed_in()
    desk.clock.ahead = timedelta(seconds=desk.settings.session_seconds - 5)
    assert (await browser.get("/overview")).status_code == 200
    desk.clock.ahead = timedelta(seconds=desk.settings.session_seconds + 1)
    assert (await browser.get("/overview")).status_code == 401


async def test_a_session_ends_with_its_token(desk: Desk) -> None:
    browser = desk.browser()
    await browser.sign_in(desk.tokens.issue(VIEW, seconds=60))
    assert (await browser.get("/overview")).status_code == 200
    desk.clock.ahead = timedelta(seconds=61)
    assert (await browser.get("/overview")).status_code == 401


async def test_signing_out_takes_the_cookie(desk: Desk) -> None:
    browser = await desk.signed_in()
    answer = await browser.post("/sign-out", {}, token="wrong")
    assert answer.status_code == 403
    assert (await browser.get("/overview")).status_code == 200
    answer = await browser.post("/sign-out", {})
    assert answer.status_code == 303
    assert (await browser.get("/overview")).status_code == 401


async def test_cookies_of_others_are_no_sessions(desk: Desk) -> None:
    claims = {
        "aud": "rewardpoints-console",
        "jti": "1",
        "tenant": "shop",
        "sub": "x",
        "scope": VIEW,
        "exp": 9_999_999_999,
    }
    own = await desk.signed_in()
    cookie = own.client.cookies["rewardpoints_console"]
    forged = [
        jwt.encode(claims, "x" * 32, algorithm="HS256"),
        jwt.encode(claims, "", algorithm="none"),
        cookie[:-2] + ("aa" if not cookie.endswith("aa") else "bb"),
        (await Desk().signed_in()).client.cookies["rewardpoints_console"],
        "",
    ]
    for value in forged:
        browser = desk.browser()
        browser.client.cookies.set("rewardpoints_console", value)
        assert (await browser.get("/overview")).status_code == 401


async def test_processes_with_one_key_share_sessions() -> None:
    settings = ConsoleSettings(enabled=True, session_key=SecretStr("k" * 32))
    here, there = Desk(settings=settings), Desk(settings=settings)
    browser = here.browser()
    answer = await browser.sign_in(here.tokens.issue(VIEW))
    assert "Secure" in answer.headers["set-cookie"]
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert (await there.browser().get("/overview", headers={"Cookie": cookie})).status_code == 200


async def test_the_cookie_holds_no_more_than_the_console_needs(desk: Desk) -> None:
    token = desk.tokens.issue(VIEW, "other.scope")
    browser = desk.browser()
    await browser.sign_in(token)
    cookie = browser.client.cookies["rewardpoints_console"]
    assert token not in cookie
    claims = jwt.decode(cookie, options={"verify_signature": False})
    assert claims["scope"] == VIEW


async def test_every_answer_carries_the_security_headers(desk: Desk) -> None:
    browser = await desk.signed_in()
    style = elements_of((await browser.get("/overview")).text, "link")[0]["href"]
    paths = ["/overview", "/overview?part=1", "/nothing", "/sign-in", str(style).removeprefix("/console")]
    for answer in [await browser.get(path) for path in paths]:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
        assert ("no-store" in answer.headers["cache-control"]) == ("static" not in answer.url.path)


async def test_only_the_consoles_own_files_are_served(desk: Desk) -> None:
    for name in ("console.css", "console.js", "icon.svg"):
        assert (await desk.browser().get(f"/static/{name}")).status_code == 200
    for name in ("..%2Fapplication.py", "x.css", ""):
        assert (await desk.browser().get(f"/static/{name}")).status_code == 404


async def test_keys_that_cannot_be_had_are_said(desk: Desk) -> None:
    desk.faults.plant("tokens.caller", ServiceUnavailable("The access token cannot be checked at the moment."))
    answer = await desk.browser().sign_in("x")
    assert answer.status_code == 503
    assert "cannot be checked" in text_of(answer.text)


async def test_forms_are_bounded_and_strict(desk: Desk) -> None:
    client = desk.browser().client
    for content, kind in [
        (b"token=" + b"x" * 300_000, "application/x-www-form-urlencoded"),
        (b"&".join(b"a=1" for _ in range(3000)), "application/x-www-form-urlencoded"),
        (b"token=%ff", "application/x-www-form-urlencoded"),
        (b"token=%00", "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
    ]:
        answer = await client.post("/console/sign-in", content=content, headers={"Content-Type": kind})
        assert answer.status_code == 400, content[:20]
        assert not scripts_of(answer.text)


async def test_the_form_token_is_the_sessions_own(desk: Desk) -> None:
    one, other = await desk.signed_in(), await desk.signed_in()
    tokens = {form_token_of((await browser.get("/overview")).text) for browser in (one, one, other)}
    assert len(tokens) == 2


async def test_requests_are_counted_without_what_visitors_chose(desk: Desk) -> None:
    browser = await desk.signed_in(MANAGE)
    await browser.get("/overview")
    await browser.get("/nothing/at-all")
    get = desk.metrics.registry.get_sample_value
    for status in ("403", "404"):
        labels = {"operation": "console refused", "status": status}
        assert get("rewardpoints_http_requests_total", labels) == 1
