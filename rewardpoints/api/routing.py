"""Routing: every operation with its access rule, checked before its body is read or anything is validated."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rewardpoints.api import schemas
from rewardpoints.api.access import Access, Guard
from rewardpoints.api.bodies import ApiRequest
from rewardpoints.api.deadline import Endpoint, in_time

_ALWAYS: Final = (401, 403, 500, 503)
_WITH_BODY: Final = (400, 413, 415)


class GuardedRoute(APIRoute):
    """A route that admits the caller first, then reads a bounded body, then validates."""

    def __init__(
        self, path: str, endpoint: Endpoint, *, access: Access, guard: Guard, max_body_bytes: int, **options: Any
    ) -> None:
        # needed by get_route_handler, which the base class calls while it initialises
        self._access = access
        self._guard = guard
        self._max_body_bytes = max_body_bytes
        super().__init__(path, endpoint, strict_content_type=False, **options)
        if not _takes_parameters(self.dependant):
            # FastAPI's own would open two exit stacks for dependencies, and handle exceptions a second time
            self.app = _plain(self.get_route_handler())

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of requests, with the guard in front."""
        # an endpoint that takes the request alone has nothing FastAPI could decode or validate for it
        handle = super().get_route_handler() if _takes_parameters(self.dependant) else self.endpoint
        reads_body = self.body_field is not None

        async def guarded(request: Request) -> Response:
            await self._guard.admit(request, self._access)
            if not reads_body:
                return await handle(request)
            bounded = ApiRequest(request.scope, request.receive, max_body_bytes=self._max_body_bytes)
            bounded.check_media_type()
            return await handle(bounded)

        return guarded


def _plain(handle: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await handle(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


def _takes_parameters(dependant: Dependant) -> bool:
    return bool(
        dependant.path_params
        or dependant.query_params
        or dependant.header_params
        or dependant.cookie_params
        or dependant.body_params
        or dependant.dependencies
    )


class Operations:
    """Adds operations to a router, each documented with every status it can answer."""

    def __init__(self, router: APIRouter, guard: Guard, *, max_body_bytes: int) -> None:
        self._router = router
        self._guard = guard
        self._max_body_bytes = max_body_bytes

    def add(
        self,
        method: str,
        path: str,
        endpoint: Endpoint,
        *,
        access: Access,
        tag: str,
        success: Mapping[str, Any],
        status: int = 200,
        errors: tuple[int, ...] = (),
        conflict: Mapping[str, Any] = schemas.CONFLICT,
    ) -> None:
        """Add one operation. ``success`` documents the answer ``status``; ``errors`` come on top of the usual ones."""
        reads_body = method in {"POST", "PUT", "PATCH"}
        statuses = sorted({*_ALWAYS, *errors, *(_WITH_BODY if reads_body else ())})
        responses: dict[int | str, dict[str, Any]] = {status: dict(success)}
        responses |= {code: dict(conflict if code == 409 else schemas.ERRORS[code]) for code in statuses}  # noqa: PLR2004
        extra: dict[str, Any] = {"security": access.security}
        route = GuardedRoute(
            path,
            in_time(endpoint, changes=method != "GET"),
            access=access,
            guard=self._guard,
            max_body_bytes=self._max_body_bytes,
            methods=[method],
            status_code=status,
            responses=responses,
            response_description=str(success["description"]),
            openapi_extra=extra,
            operation_id=f"{method}-{endpoint.__name__.strip('_').replace('_', '-')}",
            tags=[tag],
            response_model=None,
            response_class=Response,
        )
        self._router.routes.append(route)
