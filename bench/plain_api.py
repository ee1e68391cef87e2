"""What the product's reads are held against: the same HTTP server and framework, and nothing but one read behind it.

``python -m bench.plain_api MONGODB_URI DATABASE JWKS_FILE PORT``. The server's protocol, the token check and the driver
are the product's own; its operations, errors, middleware and metrics are not there.

- ``/hello`` answers at once.
- ``/checked`` checks the token.
- ``/open-lots`` checks the token and reads what a balance is made of.
- ``/lots?bytes=N`` checks the token, reads every lot of the account whole and answers so many bytes.
"""

import asyncio
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import uvloop
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rewardpoints.api.keys import KeyRing, key_source
from rewardpoints.api.server import HttpServer
from rewardpoints.api.tokens import Principal, TokenVerifier
from rewardpoints.domain.accounts import account_of
from rewardpoints.ledger.driver import Database, open_database
from rewardpoints.settings import JwksSettings, MongodbSettings, TokenSettings

_JSON = "application/json"


class PlainApi:
    """The endpoints."""

    def __init__(self, database: Database, verifier: TokenVerifier) -> None:
        self._lots = database.lots
        self._verifier = verifier

    def app(self) -> FastAPI:
        """As an application. Plain routes: FastAPI would decode parameters that are not there."""
        app = FastAPI(openapi_url=None)
        for path, endpoint in (
            ("/hello", self.hello),
            ("/checked", self.checked),
            ("/open-lots", self.open_lots),
            ("/lots", self.lots),
        ):
            app.router.routes.append(Route(path, endpoint))
        return app

    async def hello(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """Nothing."""
        return Response(b"209", media_type=_JSON)

    async def checked(self, request: Request) -> Response:
        """The token."""
        await self._principal(request)
        return Response(b"209", media_type=_JSON)

    async def open_lots(self, request: Request) -> Response:
        """The token, and one read as large as a balance's."""
        principal = await self._principal(request)
        wanted = {
            "account": account_of(principal.tenant, principal.customer_id or ""),
            "open": True,
            "validUntil": {"$gt": datetime.now(UTC)},
        }
        found = await self._lots.find(wanted, {"remaining": 1, "_id": 0}).to_list(None)
        return Response(b"%d" % len(found), media_type=_JSON)

    async def lots(self, request: Request) -> Response:
        """The token, and one read of all lots of the account."""
        principal = await self._principal(request)
        account = account_of(principal.tenant, principal.customer_id or "")
        found = await self._lots.find({"account": account}).to_list(None)
        size = int(request.query_params["bytes"])
        return Response(str(len(found)).encode().ljust(size), media_type=_JSON)

    async def _principal(self, request: Request) -> Principal:
        return await self._verifier.verify(request.headers["authorization"].removeprefix("Bearer "))


async def serve(uri: str, database: str, jwks_file: Path, port: int) -> None:
    """Serve until SIGTERM."""
    settings = TokenSettings()
    opened = open_database(MongodbSettings.model_validate({"uri": uri, "database": database}))
    async with httpx.AsyncClient() as client:
        keys = KeyRing(
            key_source(JwksSettings(file=jwks_file), client), algorithms=settings.algorithms, cache_seconds=300
        )
        api = PlainApi(opened, TokenVerifier(settings, keys))
        server = HttpServer(api.app(), host="127.0.0.1", port=port, drain_seconds=1)
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
        await server.start()
        await asked.wait()
        await server.stop()
        await opened.close()


def main() -> None:
    """Run it."""
    uri, database, jwks_file, port = sys.argv[1:]
    uvloop.run(serve(uri, database, Path(jwks_file), int(port)))


if __name__ == "__main__":
    main()
