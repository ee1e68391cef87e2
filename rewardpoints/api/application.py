"""The application: operations, errors and middleware put together."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from rewardpoints.api.access import MANAGE_SCOPE, SITE_SCOPE, VIEW_SCOPE, Guard
from rewardpoints.api.errors import ErrorAnswers
from rewardpoints.api.management import Management
from rewardpoints.api.observed import Observed
from rewardpoints.api.operations import OperatorEndpoints, ReadinessChecks
from rewardpoints.api.paths import CanonicalPath
from rewardpoints.api.ports import Ports
from rewardpoints.api.redeem_options import RedeemOptionOperations
from rewardpoints.api.routing import Operations
from rewardpoints.api.site_settings import SiteSettingsOperations
from rewardpoints.api.storefront import Randomness, Storefront
from rewardpoints.api.tokens import TokenVerifier
from rewardpoints.domain.ports import Clock
from rewardpoints.settings import HttpSettings, SiteSettingsSettings
from rewardpoints.telemetry import Metrics

CORS_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Accept-Language",
    "Content-Language",
    "X-Version",
    "Emporix-Tenant",
    "Idempotency-Key",
)
CORS_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
CORS_EXPOSED: Final = ("Retry-After", "X-Total-Count", "WWW-Authenticate")
_DESCRIPTION: Final = (
    "Collect reward points and exchange them for coupons. Every operation checks the access token before anything "
    "else; an `Emporix-Tenant` header, where sent, must name the token's tenant."
)
_SECURITY_SCHEMES: Final = {
    "OAuth2": {
        "type": "oauth2",
        "description": "A service's access token, issued by the identity provider whose keys this service trusts.",
        "flows": {
            "clientCredentials": {
                "tokenUrl": "/oauth/token",
                "scopes": {
                    VIEW_SCOPE: "view reward points",
                    MANAGE_SCOPE: "manage reward points and redeem options",
                    SITE_SCOPE: "manage site settings",
                },
            }
        },
    },
    "CustomerAccessToken": {"type": "http", "scheme": "bearer", "description": "A signed-in customer's access token."},
}


class RewardPointsApi(FastAPI):
    """FastAPI, with the OpenAPI document completed: security schemes in, answers that are never given out."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            components = document["components"]
            components["securitySchemes"] = _SECURITY_SCHEMES
            for never_answered in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(never_answered, None)
            self.openapi_schema = document
        return self.openapi_schema


def create_app(
    *,
    ports: Ports,
    http: HttpSettings,
    site_settings: SiteSettingsSettings,
    verifier: TokenVerifier,
    clock: Clock,
    metrics: Metrics,
    readiness: ReadinessChecks,
    asyncapi: Mapping[str, Any],
    randomness: Randomness,
) -> FastAPI:
    """The HTTP API as an ASGI application. It opens and closes nothing: what is passed in belongs to the caller.

    ``randomness`` must be a cryptographic source of so many bytes (``secrets.token_bytes``): coupon codes come from it.
    """
    answers = ErrorAnswers(clock)
    app = RewardPointsApi(
        title="Reward Points Service",
        version="1",
        description=_DESCRIPTION,
        redirect_slashes=False,
        redoc_url=None,
        exception_handlers=answers.handlers(),
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=http.cors_origins,
                allow_methods=CORS_METHODS,
                allow_headers=CORS_HEADERS,
                expose_headers=CORS_EXPOSED,
            ),
            Middleware(Observed, metrics=metrics, answers=answers),
            Middleware(CanonicalPath),
        ],
    )
    operations = Operations(app.router, Guard(verifier), max_body_bytes=http.max_body_bytes)
    Storefront(ports, clock, randomness).add_to(operations)
    Management(ports, clock, randomness).add_to(operations)
    RedeemOptionOperations(ports, clock, randomness).add_to(operations)
    SiteSettingsOperations(ports, clock, site_settings).add_to(operations)
    app.router.routes.extend(OperatorEndpoints(metrics, readiness, asyncapi).routes())
    return app
