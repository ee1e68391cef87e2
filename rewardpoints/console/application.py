"""The console as an ASGI application."""

import time
from collections.abc import Callable
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rewardpoints.console.customer import Customer
from rewardpoints.console.dead_letters import DeadLetters
from rewardpoints.console.gate import Gate
from rewardpoints.console.liability import LiabilityPage
from rewardpoints.console.overview import Overview
from rewardpoints.console.pages import Pages
from rewardpoints.console.ports import Ports
from rewardpoints.console.redeem_options import RedeemOptionPages
from rewardpoints.console.rendering import ASSETS, Assets, Renderer
from rewardpoints.console.replays import Replays
from rewardpoints.console.sessions import Sessions
from rewardpoints.console.signing import START, Signing
from rewardpoints.console.site_settings import SiteSettingsPages
from rewardpoints.domain.ports import Clock
from rewardpoints.settings import ConsoleSettings, SiteSettingsSettings
from rewardpoints.telemetry import Metrics

SESSION_SECRET_BYTES: Final = 32
_CONTENT_SECURITY_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final = (
    (b"content-security-policy", _CONTENT_SECURITY_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def create_console(
    ports: Ports,
    settings: ConsoleSettings,
    site_settings: SiteSettingsSettings,
    *,
    order_topic: str,
    clock: Clock,
    metrics: Metrics,
    randomness: Callable[[int], bytes],
) -> ASGIApp:
    """The console. It opens and closes nothing: what is passed in belongs to the caller.

    ``randomness`` must be a cryptographic source of so many bytes (``secrets.token_bytes``).
    """
    key = settings.session_key
    secret = key.get_secret_value().encode() if key else randomness(SESSION_SECRET_BYTES)
    sessions = Sessions(secret, clock, seconds=settings.session_seconds)
    gate = Gate(ports.tokens, sessions)
    assets = Assets()
    renderer = Renderer(assets)
    pages = Pages(gate, renderer, answer_seconds=settings.answer_seconds)
    Overview(ports.watch).add_to(pages)
    Customer(ports.explainer).add_to(pages)
    LiabilityPage(ports.liability).add_to(pages)
    DeadLetters(ports.letters).add_to(pages)
    Replays(ports.replays, order_topic=order_topic).add_to(pages)
    RedeemOptionPages(ports.redeem_options, clock, randomness).add_to(pages)
    SiteSettingsPages(ports.site_settings, site_settings, clock).add_to(pages)
    signing = Signing(pages, gate, sessions, randomness, secure_cookie=settings.secure_cookie)

    files = _Files(assets, renderer)
    return Starlette(
        routes=[
            Route("/console", files.start),
            Route("/console/", files.start),
            Route("/console/static/{name}", files.asset),
            *signing.routes(),
            *pages.routes,
        ],
        exception_handlers={HTTPException: files.missing},
        middleware=[Middleware(_Guarded, metrics=metrics)],
    )


class _Files:
    """What is served without a session, and what is not there."""

    def __init__(self, assets: Assets, renderer: Renderer) -> None:
        self._assets = assets
        self._renderer = renderer

    async def start(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        return RedirectResponse(START, status_code=303)

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            raise HTTPException(404)
        return self._assets.answer(name)

    async def missing(self, request: Request, error: Exception) -> Response:
        return self._renderer.answer(
            "error.html",
            visitor=None,
            part="part=" in request.url.query,
            status=error.status_code if isinstance(error, HTTPException) else 500,
            path="",
            title="No such page",
            message="The console has no page at this address.",
        )


class _Guarded:
    """Puts the security headers on every answer, and counts and times it."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        started_at = time.perf_counter()

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], *SECURITY_HEADERS]
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, guarded_send)
        finally:
            operation = f"{scope['method']} /console" if status < 400 else "console refused"  # noqa: PLR2004
            self._metrics.http_requests.labels(operation, str(status)).inc()
            self._metrics.http_seconds.labels(operation).observe(time.perf_counter() - started_at)
