"""The API of a process: its operations over the ledger, the keys of its tokens, and the console where it is on."""

import secrets

import httpx
from starlette.types import ASGIApp

from rewardpoints import __version__
from rewardpoints.api.application import create_app
from rewardpoints.api.keys import KeyRing, key_source
from rewardpoints.api.operations import ReadinessChecks
from rewardpoints.api.ports import Ports
from rewardpoints.api.tokens import TokenVerifier
from rewardpoints.app.clock import utc_now
from rewardpoints.app.readiness import LedgerCheck
from rewardpoints.domain.ports import CouponRequests, Readiness
from rewardpoints.events.asyncapi import asyncapi
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import Settings
from rewardpoints.telemetry import Metrics


class Api:
    """``app`` answers; ``stop`` ends what goes on behind it, once nothing is asked any more."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        *,
        coupon_requests: CouponRequests,
        kafka: Readiness,
        metrics: Metrics,
        http_client: httpx.AsyncClient,
    ) -> None:
        if settings.token is None or settings.jwks is None:
            raise ValueError("the API needs the settings that tokens are checked by")
        self._keys = KeyRing(
            key_source(settings.jwks, http_client),
            algorithms=settings.token.algorithms,
            cache_seconds=settings.jwks.cache_seconds,
        )
        verifier = TokenVerifier(settings.token, self._keys)
        self.app: ASGIApp = create_app(
            ports=Ports(
                accounts=ledger.accounts,
                redemptions=ledger.redemptions,
                redeem_options=ledger.redeem_options,
                settings_store=ledger.site_settings,
                settings_reader=ledger.settings_reader,
                coupon_requests=coupon_requests,
            ),
            http=settings.http,
            site_settings=settings.site_settings,
            verifier=verifier,
            clock=utc_now,
            metrics=metrics,
            readiness=ReadinessChecks(required={"mongodb": LedgerCheck(ledger)}, optional={"kafka": kafka}),
            asyncapi=asyncapi(settings.kafka, version=__version__),
            randomness=secrets.token_bytes,
        )
        self._console = None
        if settings.console is not None and settings.console.enabled:
            from rewardpoints.app.console import Console, beside  # noqa: PLC0415 - a process without it starts sooner

            self._console = Console(settings, settings.console, ledger, verifier, metrics)
            self.app = beside(self.app, self._console.app)

    async def stop(self) -> None:
        """End the console's looks and the fetching of keys, within a few seconds."""
        if self._console is not None:
            await self._console.stop()
        await self._keys.close()
