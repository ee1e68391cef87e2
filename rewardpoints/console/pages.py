"""Pages: every address with the scope it takes, and the answers to whatever goes wrong on the way."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from rewardpoints.console.forms import Form, parse_form, read_form
from rewardpoints.console.gate import Gate, NotAllowed, SignInNeeded, Visitor, check_origin
from rewardpoints.console.ports import ServiceUnavailable
from rewardpoints.console.rendering import Renderer
from rewardpoints.domain.errors import (
    InvalidInput,
    LedgerBusy,
    LedgerUnavailable,
    NoAccount,
    NotFound,
    ReplayFinished,
    RewardPointsError,
    UnreadableEntry,
    VersionConflict,
)

_STATUSES: Final[dict[type[RewardPointsError], tuple[int, str]]] = {
    SignInNeeded: (401, "Sign in"),
    NotAllowed: (403, "Not allowed"),
    InvalidInput: (400, "That cannot be used"),
    NoAccount: (404, "Nothing there"),
    NotFound: (404, "Nothing there"),
    VersionConflict: (409, "Changed meanwhile"),
    ReplayFinished: (409, "Finished already"),
    UnreadableEntry: (500, "Unreadable entry"),
    LedgerBusy: (503, "Busy"),
    LedgerUnavailable: (503, "MongoDB does not answer"),
    ServiceUnavailable: (503, "Not available now"),
}
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that may be answered: who asks, what the address and the form say."""

    renderer: Renderer
    visitor: Visitor
    path: str
    query: Form
    form: Form

    @property
    def tenant(self) -> str:
        """Whose data the page is about; it comes from the token and from nowhere else."""
        return self.visitor.caller.tenant

    @property
    def part(self) -> bool:
        """Whether the console's script asks for the middle of the page only."""
        return self.query.chosen("part")

    @property
    def waits(self) -> bool:
        """Whether a page that takes long shows first that it is being made; its script, or a link, asks then."""
        return not self.part and not self.query.chosen("now")

    def show(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """The page."""
        return self.renderer.answer(
            template, visitor=self.visitor, part=self.part, status=status, path=self.path, **values
        )

    def go_to(self, address: str) -> Response:
        """Have the browser load another page of the console."""
        return RedirectResponse(address, status_code=303)


Endpoint = Callable[[Visit], Awaitable[Response]]


class Pages:
    """Collects the routes of the console."""

    def __init__(self, gate: Gate, renderer: Renderer, *, answer_seconds: float) -> None:
        self._gate = gate
        self._renderer = renderer
        self._answer_seconds = answer_seconds
        self.routes: list[Route] = []

    def add(self, path: str, endpoint: Endpoint, *, scope: str, method: str = "GET") -> None:
        """Serve ``path`` to visitors with the scope; with ``POST`` only to forms of their session."""

        async def handle(request: Request) -> Response:
            visitor: Visitor | None = None
            try:
                if method == "POST":
                    check_origin(request)
                visitor = await self._gate.visitor(request)
                self._gate.check_scope(visitor, scope)
                form = Form()
                if method == "POST":
                    form = await read_form(request)
                    self._gate.check_form(visitor, form)
                query = parse_form(request.scope["query_string"])
                async with asyncio.timeout(self._answer_seconds):
                    return await endpoint(Visit(self._renderer, visitor, path, query, form))
            except TimeoutError:
                error: RewardPointsError = ServiceUnavailable(
                    f"It takes longer than the {self._answer_seconds:g} seconds a page may take. "
                    "The command of the same name has no such limit."
                )
                return self.refuse(request, visitor, error, path=path)
            except RewardPointsError as refused:
                return self.refuse(request, visitor, refused, path=path)
            except Exception:  # noqa: BLE001 - logged; whatever it is, the visitor gets a page
                _log.exception("console_page_failed", page=path)
                return self._renderer.answer(
                    "error.html",
                    visitor=visitor,
                    part="part=" in request.url.query,
                    status=500,
                    path=path,
                    title="Something went wrong",
                    message="The log has the reason.",
                )

        self.routes.append(Route(path, handle, methods=[method]))

    def refuse(self, request: Request, visitor: Visitor | None, error: RewardPointsError, *, path: str) -> Response:
        """The answer to what was refused; signing in is offered where that helps."""
        part = "part=" in request.url.query
        status, title = next((_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES), (400, "Refused"))
        if isinstance(error, SignInNeeded) and not part:
            asked = f"{path}?{request.url.query}" if request.url.query and request.method == "GET" else path
            return self.sign_in(asked, tried=error.tried)
        if status >= 500:  # noqa: PLR2004 - the server's own faults
            _log.warning("console_page_failed", page=path, error=type(error).__name__)
        return self._renderer.answer(
            "error.html", visitor=visitor, part=part, status=status, path=path, title=title, message=str(error)
        )

    def sign_in(self, asked: str, *, tried: bool, status: int = 401) -> Response:
        """The page to sign in on, which leads to the page that was asked for."""
        return self._renderer.answer(
            "sign_in.html", visitor=None, status=status, path="/console/sign-in", asked=asked, tried=tried
        )
