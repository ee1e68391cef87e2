"""Signing in and out."""

from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from rewardpoints.console.forms import read_form
from rewardpoints.console.gate import SCOPES, Gate, SignInNeeded, check_origin
from rewardpoints.console.pages import Pages
from rewardpoints.console.sessions import COOKIE, PATH, SESSION_ID_BYTES, Sessions
from rewardpoints.domain.errors import RewardPointsError

START: Final = "/console/overview"
SIGN_IN: Final = "/console/sign-in"


class Signing:
    """Turns an access token that is pasted once into a session, and ends it."""

    def __init__(
        self, pages: Pages, gate: Gate, sessions: Sessions, randomness: Callable[[int], bytes], *, secure_cookie: bool
    ) -> None:
        self._pages = pages
        self._gate = gate
        self._sessions = sessions
        self._randomness = randomness
        self._secure = secure_cookie

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route(SIGN_IN, self.ask, methods=["GET"]),
            Route(SIGN_IN, self.sign_in, methods=["POST"]),
            Route("/console/sign-out", self.sign_out, methods=["POST"]),
        ]

    async def ask(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """The page to paste a token on."""
        return self._pages.sign_in(START, tried=False, status=200)

    async def sign_in(self, request: Request) -> Response:
        """Open a session, where the token is one."""
        try:
            check_origin(request)
            form = await read_form(request)
            asked = own_page(form.text("asked"))
            try:
                caller = await self._gate.caller(form.text("token").removeprefix("Bearer ").strip())
            except SignInNeeded:
                return self._pages.sign_in(asked, tried=True)
        except RewardPointsError as refused:
            return self._pages.refuse(request, None, refused, path=SIGN_IN)
        session_id = self._randomness(SESSION_ID_BYTES).hex()
        cookie, seconds = self._sessions.open(caller, session_id, SCOPES)
        if seconds <= 0:
            return self._pages.sign_in(asked, tried=True)
        answer = RedirectResponse(asked, status_code=303)
        answer.set_cookie(
            COOKIE, cookie, max_age=seconds, path=PATH, secure=self._secure, httponly=True, samesite="strict"
        )
        return answer

    async def sign_out(self, request: Request) -> Response:
        """End the session, as far as the browser is concerned."""
        try:
            check_origin(request)
            visitor = await self._gate.visitor(request)
            self._gate.check_form(visitor, await read_form(request))
        except SignInNeeded:
            pass
        except RewardPointsError as refused:
            return self._pages.refuse(request, None, refused, path=SIGN_IN)
        answer = RedirectResponse(SIGN_IN, status_code=303)
        answer.delete_cookie(COOKIE, path=PATH, secure=self._secure, httponly=True, samesite="strict")
        return answer


def own_page(address: str) -> str:
    """``address`` where it is a page of the console, else the first page: nobody is sent elsewhere after signing in."""
    own = address.startswith("/console/") and address.isascii() and address.isprintable() and "\\" not in address
    return address if own and not address.startswith((SIGN_IN, "/console/sign-out")) else START
