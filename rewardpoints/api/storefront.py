"""The storefront's operations: what a signed-in customer can do."""

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from rewardpoints.api import schemas
from rewardpoints.api.access import CUSTOMER, customer_id_of, principal_of
from rewardpoints.api.bodies import RedeemIn
from rewardpoints.api.deadline import answer_by, seconds_left
from rewardpoints.api.errors import Missing, NoPoints
from rewardpoints.api.parameters import IdempotencyKey, SiteCode
from rewardpoints.api.ports import Ports
from rewardpoints.api.routing import Operations
from rewardpoints.api.tokens import Principal
from rewardpoints.api.views import JSON, json_answer, options_view, summary_view
from rewardpoints.domain.accounts import DEFAULT_SITE_CODE, account_of
from rewardpoints.domain.coupons import CODE_BYTES, coupon_code
from rewardpoints.domain.errors import IdempotencyConflict, LedgerUnavailable, NoAccount
from rewardpoints.domain.history import summarize
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.redeem_options import RedeemOption
from rewardpoints.domain.redemptions import (
    CouponOrder,
    Redemption,
    RedemptionIntent,
    RedemptionState,
    fingerprint,
    redemption_id,
)
from rewardpoints.domain.site_settings import settings_at

TAG: Final = "Signed-In Customer Reward Points"

Randomness = Callable[[int], bytes]


class Storefront:
    """Balance, summary, redeem options and redeeming of the customer whose token it is."""

    def __init__(self, ports: Ports, clock: Clock, randomness: Randomness) -> None:
        self._ports = ports
        self._clock = clock
        self._randomness = randomness

    def add_to(self, operations: Operations) -> None:
        """Add the operations."""
        base = "/reward-points/public/customer"
        operations.add(
            "GET", base, self.balance, access=CUSTOMER, tag=TAG, errors=(404,),
            success={"description": "The balance.", "model": int},
        )  # fmt: skip
        operations.add(
            "GET", f"{base}/summary", self.summary, access=CUSTOMER, tag=TAG, errors=(404,),
            success={"description": "The balance and all entries.", "model": schemas.PointsSummary},
        )  # fmt: skip
        operations.add(
            "GET", f"{base}/redeemOptions", self.options, access=CUSTOMER, tag=TAG,
            success={"description": "The tenant's redeem options.", "model": list[schemas.RedeemOption]},
        )  # fmt: skip
        operations.add(
            "POST", f"{base}/redeem", self.redeem, access=CUSTOMER, tag=TAG, errors=(404,),
            success={"description": "The coupon's code.", "model": schemas.CouponCode},
        )  # fmt: skip

    async def balance(self, request: Request) -> Response:
        """The signed-in customer's balance."""
        principal = principal_of(request)
        customer_id = customer_id_of(request)
        points = await self._ports.accounts.balance(account_of(principal.tenant, customer_id), self._clock())
        if points is None:
            raise NoPoints(customer_id)
        return Response(b"%d" % points, media_type=JSON)

    async def summary(self, request: Request) -> Response:
        """The signed-in customer's balance and entries."""
        principal = principal_of(request)
        customer_id = customer_id_of(request)
        history = await self._ports.accounts.summary_history(account_of(principal.tenant, customer_id))
        if history is None:
            raise NoPoints(customer_id)
        return json_answer(summary_view(summarize(history, self._clock())))

    async def options(self, request: Request) -> Response:
        """The redeem options the signed-in customer can choose from."""
        return json_answer(options_view(await self._ports.redeem_options.all(principal_of(request).tenant)))

    async def redeem(
        self,
        request: Request,
        body: RedeemIn,
        site_code: SiteCode = DEFAULT_SITE_CODE,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Redeem the signed-in customer's points for a coupon code.

        Without an `Idempotency-Key` two equal requests are two redemptions. The coupon itself is created shortly
        after; if that fails, the points come back as a new entry.
        """
        principal = principal_of(request)
        customer_id = customer_id_of(request)
        started = False
        try:
            async with asyncio.timeout_at(answer_by(request)):
                intent = await self._intent(principal, customer_id, body.option_id, site_code, idempotency_key)
                if isinstance(intent, RedemptionIntent):
                    started = True
                    redemption = await self._ports.redemptions.redeem(intent, within_seconds=seconds_left(request))
                else:
                    redemption = intent
        except TimeoutError as error:
            raise LedgerUnavailable("no answer in time", outcome_unknown=started) from error
        except NoAccount as error:
            raise NoPoints(customer_id) from error
        if redemption.coupon is None:
            raise IdempotencyConflict
        if redemption.state is RedemptionState.REQUESTED and redemption.publish_at is not None:
            self._ports.coupon_requests.publish_soon(redemption)
        return json_answer({"code": redemption.coupon.code})

    async def _intent(
        self, principal: Principal, customer_id: str, option_id: str, site_code: str, key: str | None
    ) -> RedemptionIntent | Redemption:
        """What to carry out; or what was, where its option is gone by now."""
        account = account_of(principal.tenant, customer_id)
        source = ("key", key) if key is not None else ("random", self._randomness(16).hex())
        identity = redemption_id(account, *source)
        asked = fingerprint("redeem", site_code, {"id": option_id})
        option = await self._ports.redeem_options.find(principal.tenant, option_id)
        if option is None:
            return await self._carried_out_before(identity if key is not None else None, asked, option_id)
        return RedemptionIntent(
            id=identity,
            public_id=identity,
            account=account,
            points=option.points,
            description=option.description,
            site_code=site_code,
            fingerprint=asked,
            coupon=await self._coupon(principal.tenant, site_code, option),
        )

    async def _carried_out_before(self, identity: str | None, asked: str, option_id: str) -> Redemption:
        stored = await self._ports.redemptions.find(identity) if identity is not None else None
        if stored is None:
            raise Missing(f"No redeem option found with id {option_id}")
        if stored.fingerprint != asked:
            raise IdempotencyConflict
        return stored

    async def _coupon(self, tenant: str, site_code: str, option: RedeemOption) -> CouponOrder:
        now = self._clock()
        site = (tenant, site_code)
        history = (await self._ports.settings_reader.histories({site: now}))[site]
        prefix = settings_at(history, now).code_prefix
        return CouponOrder(code=coupon_code(prefix, self._randomness(CODE_BYTES)), option=option.snapshot())
