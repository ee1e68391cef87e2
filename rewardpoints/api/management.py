"""The employees' operations on customers' points."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from rewardpoints.api import schemas
from rewardpoints.api.access import MANAGE, VIEW, principal_of
from rewardpoints.api.bodies import AddedPointsIn, NewCustomerIn, PointsIn, RedeemedPointsIn
from rewardpoints.api.deadline import answer_by, seconds_left
from rewardpoints.api.errors import BadRequest, Conflict, NoPoints
from rewardpoints.api.parameters import CustomerId, IdempotencyKey, SiteCode
from rewardpoints.api.ports import Ports
from rewardpoints.api.routing import Operations
from rewardpoints.api.storefront import Randomness
from rewardpoints.api.views import JSON, encode, json_answer, summary_view
from rewardpoints.domain.accounts import DEFAULT_SITE_CODE, account_of, entry_id
from rewardpoints.domain.errors import AccountExists, LedgerUnavailable, NoAccount
from rewardpoints.domain.history import SummaryHistory, summarize
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.manual_entries import ManualGrant, manual_lot, opening_lot
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.redemptions import RedemptionIntent, fingerprint, redemption_id
from rewardpoints.domain.site_settings import SiteSettings, settings_at

TAG: Final = "Reward Points Management"
DEFAULT_PAGE_SIZE: Final = 60
MAX_PAGE_SIZE: Final = 1000
MAX_PAGE_NUMBER: Final = 1_000_000_000
STREAM_CHUNK_BYTES: Final = 32_768

PageNumber = Annotated[int | None, Query(alias="pageNumber", ge=1, le=MAX_PAGE_NUMBER)]
PageSize = Annotated[int | None, Query(alias="pageSize", ge=1, le=MAX_PAGE_SIZE)]


class Management:
    """Reading, opening, adding to, redeeming from and erasing the accounts of a tenant."""

    def __init__(self, ports: Ports, clock: Clock, randomness: Randomness) -> None:
        self._ports = ports
        self._clock = clock
        self._randomness = randomness

    def add_to(self, operations: Operations) -> None:
        """Add the operations."""
        customer = "/reward-points/customer/{customerId}"
        operations.add(
            "GET", "/reward-points/summaryBatch", self.summary_batch, access=VIEW, tag=TAG, errors=(400,),
            success=_BATCH,
        )  # fmt: skip
        operations.add(
            "GET", customer, self.customer_balance, access=VIEW, tag=TAG, errors=(400, 404),
            success={"description": "The balance.", "model": int},
        )  # fmt: skip
        operations.add(
            "GET", f"{customer}/summary", self.customer_summary, access=VIEW, tag=TAG, errors=(400, 404),
            success={"description": "The balance and all entries.", "model": schemas.PointsSummary},
        )  # fmt: skip
        operations.add(
            "POST", customer, self.open_account, access=MANAGE, tag=TAG, errors=(409,),
            success={"description": "The account was opened."},
        )  # fmt: skip
        operations.add(
            "DELETE", customer, self.erase_account, access=MANAGE, tag=TAG, errors=(400,),
            success={"description": "Nothing of the customer is left."},
        )  # fmt: skip
        operations.add(
            "POST", f"{customer}/addPoints", self.add_points, access=MANAGE, tag=TAG, status=201,
            success={"description": "The points were added, now or by an earlier try of this request."},
        )  # fmt: skip
        operations.add(
            "POST", f"{customer}/redeemPoints", self.redeem_points, access=MANAGE, tag=TAG, status=201, errors=(404,),
            success={"description": "The points were redeemed, now or by an earlier try of this request."},
        )  # fmt: skip

    async def summary_batch(
        self, request: Request, page_number: PageNumber = None, page_size: PageSize = None
    ) -> Response:
        """The summaries of all customers of the tenant, by customer id; a page of them where one is asked for.

        Everything is streamed. When that fails midway the connection is cut, so that a part never looks like the
        whole.
        """
        tenant = principal_of(request).tenant
        headers, skip, limit = {}, 0, None
        if page_number is not None or page_size is not None:
            limit = page_size or DEFAULT_PAGE_SIZE
            skip = ((page_number or 1) - 1) * limit
            headers["X-Total-Count"] = str(await self._ports.accounts.count(tenant))
        chunks = self._summaries(self._ports.accounts.summary_histories(tenant, skip=skip, limit=limit))
        # the first chunk is read before the answer begins: a ledger that is down is a 503, not a cut connection
        first = await anext(chunks)
        return _Stream(first, chunks, headers)

    async def _summaries(self, histories: AsyncIterator[SummaryHistory]) -> AsyncGenerator[bytes, None]:
        chunk = bytearray(b"[")
        separator = b""
        async for history in histories:
            chunk += separator + encode(summary_view(summarize(history, self._clock())))
            separator = b","
            if len(chunk) >= STREAM_CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
        yield bytes(chunk + b"]")

    async def customer_balance(self, request: Request, customer_id: CustomerId) -> Response:
        """A customer's balance."""
        account = account_of(principal_of(request).tenant, customer_id)
        points = await self._ports.accounts.balance(account, self._clock())
        if points is None:
            raise NoPoints(customer_id)
        return Response(b"%d" % points, media_type=JSON)

    async def customer_summary(self, request: Request, customer_id: CustomerId) -> Response:
        """A customer's balance and entries."""
        history = await self._ports.accounts.summary_history(account_of(principal_of(request).tenant, customer_id))
        if history is None:
            raise NoPoints(customer_id)
        return json_answer(summary_view(summarize(history, self._clock())))

    async def open_account(
        self,
        request: Request,
        customer_id: CustomerId,
        body: NewCustomerIn,
        site_code: SiteCode = DEFAULT_SITE_CODE,
    ) -> Response:
        """Open a customer's account with its first entry, an import: times of the past are kept."""
        if body.customer_id is not None and body.customer_id != customer_id:
            raise BadRequest("customerId: differs from the customer in the path")
        tenant = principal_of(request).tenant
        account, given = account_of(tenant, customer_id), body.grant
        grant = ManualGrant(
            id=given.id or entry_id(account, "opening"),
            source_id="",
            points=given.points,
            fingerprint=fingerprint("open", site_code, _content(given)),
            description=given.description or "",
            reference_id=given.reference_id,
            created_at=given.created_at,
            valid_until=given.valid_until,
        )
        settings = await self._settings(tenant, site_code)
        lot = opening_lot(account, grant, settings, site_code=site_code, now=self._clock())
        try:
            await self._ports.accounts.open(lot)
        except AccountExists as error:
            explanation = f"Couldn't create a new reward point entry for the customer '{customer_id}'"
            raise Conflict("New Reward Point Entry not Created", explanation) from error
        return Response()

    async def erase_account(self, request: Request, customer_id: CustomerId) -> Response:
        """Erase a customer: all points, entries and unpublished coupon requests. Repeating it changes nothing.

        An erasure that cannot be ended in time is answered 503; a worker ends it where it is not asked for again.
        """
        try:
            async with asyncio.timeout_at(answer_by(request)):
                await self._ports.accounts.erase(account_of(principal_of(request).tenant, customer_id))
        except TimeoutError as error:
            raise LedgerUnavailable("the customer is not erased yet") from error
        return Response()

    async def add_points(
        self,
        request: Request,
        customer_id: CustomerId,
        body: AddedPointsIn,
        site_code: SiteCode = DEFAULT_SITE_CODE,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Add points to a customer's account, which is opened where there is none.

        The `Idempotency-Key` (or `id`) makes the request repeatable: the same key and content add nothing again.
        """
        tenant = principal_of(request).tenant
        account = account_of(tenant, customer_id)
        kind, name = self._source(idempotency_key, body.id)
        grant = ManualGrant(
            id=body.id or entry_id(account, kind, name),
            # the kind goes in front of every name, so that no id can be chosen to look like a key
            source_id=f"{kind}:{name}",
            points=body.points,
            fingerprint=fingerprint("addPoints", site_code, {"id": body.id, **_content(body)}),
            description=body.description or "",
            reference_id=body.reference_id,
            valid_until=body.valid_until,
        )
        settings = await self._settings(tenant, site_code)
        lot = manual_lot(account, grant, settings, site_code=site_code, now=self._clock())
        await self._ports.accounts.add(lot)
        return Response(status_code=201)

    async def redeem_points(
        self,
        request: Request,
        customer_id: CustomerId,
        body: RedeemedPointsIn,
        site_code: SiteCode = DEFAULT_SITE_CODE,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Redeem points of a customer without a coupon. The `Idempotency-Key` (or `id`) makes it repeatable."""
        account = account_of(principal_of(request).tenant, customer_id)
        identity = redemption_id(account, *self._source(idempotency_key, body.id))
        content = {"id": body.id, "points": body.points, "description": body.description}
        intent = RedemptionIntent(
            id=identity,
            public_id=body.id or identity,
            account=account,
            points=body.points,
            description=body.description or "",
            site_code=site_code,
            fingerprint=fingerprint("redeemPoints", site_code, content),
        )
        try:
            await self._ports.redemptions.redeem(intent, within_seconds=seconds_left(request))
        except NoAccount as error:
            raise NoPoints(customer_id) from error
        return Response(status_code=201)

    async def _settings(self, tenant: str, site_code: str) -> SiteSettings:
        now = self._clock()
        site = (tenant, site_code)
        return settings_at((await self._ports.settings_reader.histories({site: now}))[site], now)

    def _source(self, idempotency_key: str | None, given_id: str | None) -> tuple[str, str]:
        """What makes a request repeatable: the kind of its name, and the name."""
        if idempotency_key is not None:
            return "key", idempotency_key
        if given_id is not None:
            return "id", given_id
        return "random", self._randomness(16).hex()


_BATCH: Final[dict[str, Any]] = {
    "description": "The summaries.",
    "model": list[schemas.PointsSummary],
    "headers": {"X-Total-Count": {"schema": {"type": "integer"}, "description": "all customers; given with a page"}},
}


class _Stream(StreamingResponse):
    """Chunks of JSON; whatever ends it, the reading behind the chunks ends with it."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], headers: dict[str, str]) -> None:
        super().__init__(self._chunks(first, rest), headers=headers, media_type=JSON)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        async with aclosing(self._rest):
            await super().__call__(scope, receive, send)

    @staticmethod
    async def _chunks(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        yield first
        async for chunk in rest:
            yield chunk


def _content(given: PointsIn) -> dict[str, Any]:
    """What two tries of one request have in common; ignored fields are left out."""
    return {
        "points": given.points,
        "description": given.description,
        "reference-id": given.reference_id,
        "validUntil": given.valid_until and format_instant(given.valid_until),
    }
