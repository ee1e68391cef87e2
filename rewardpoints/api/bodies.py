"""Request bodies: bounded, JSON only, numbers exact."""

import decimal
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Self

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from starlette.requests import Request
from starlette.types import Receive, Scope

from rewardpoints.api.errors import BadRequest, ContentTooLarge, UnsupportedMediaType
from rewardpoints.api.views import unstorable
from rewardpoints.domain.accounts import MAX_ID_LENGTH, MAX_TEXT_LENGTH, check_id, check_text
from rewardpoints.domain.instants import parse_instant
from rewardpoints.domain.lots import MAX_POINTS

_decoder: Final = msgspec.json.Decoder(float_hook=Decimal)


class ApiRequest(Request):
    """A request whose body has at most ``max_body_bytes`` bytes, and whose JSON keeps every number's exact value."""

    def __init__(self, scope: Scope, receive: Receive, *, max_body_bytes: int) -> None:
        super().__init__(scope, receive)
        self._max_body_bytes = max_body_bytes

    async def body(self) -> bytes:
        """The whole body, read once.

        Raises:
            ContentTooLarge: it is longer than allowed, announced or not.
        """
        if not hasattr(self, "_body"):
            announced = self.headers.get("content-length", "")
            if announced.isdigit() and int(announced) > self._max_body_bytes:
                raise ContentTooLarge
            received = bytearray()
            async for chunk in self.stream():
                received += chunk
                if len(received) > self._max_body_bytes:
                    raise ContentTooLarge
            self._body = bytes(received)
        return self._body

    async def json(self) -> Any:
        """The decoded body; numbers with a point or an exponent are ``Decimal``.

        Raises:
            BadRequest: it is not JSON, or holds what cannot be stored.
        """
        return decode_json(await self.body())

    def check_media_type(self) -> None:
        """Raises UnsupportedMediaType where a content type is named and is not JSON."""
        content_type = self.headers.get("content-type")
        if content_type is None:
            return
        kind = content_type.partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise UnsupportedMediaType


def decode_json(body: bytes) -> Any:
    """JSON with exact numbers.

    Raises:
        BadRequest: it is not JSON, or holds what cannot be stored.
    """
    try:
        value = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"The body is not valid JSON: {error}") from error
    except (UnicodeDecodeError, RecursionError, decimal.DecimalException) as error:
        raise BadRequest(
            "The body is not valid JSON: not UTF-8, nested too deeply, or a number out of range"
        ) from error
    problem = unstorable(value)
    if problem:
        raise BadRequest(f"The body cannot be accepted: {problem}")
    return value


def _instant(value: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be an ISO 8601 time with an offset")  # noqa: TRY004 - pydantic reports ValueError
    return parse_instant(value)


Instant = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation")
]
Id = Annotated[str, Field(max_length=MAX_ID_LENGTH), AfterValidator(lambda value: check_id("id", value))]
ReferenceId = Annotated[
    str, Field(max_length=MAX_ID_LENGTH), AfterValidator(lambda value: check_text("reference-id", value))
]
Text = Annotated[str, Field(max_length=MAX_TEXT_LENGTH), AfterValidator(lambda value: check_text("description", value))]


def _strict(**example: Any) -> ConfigDict:
    return ConfigDict(strict=True, extra="ignore", json_schema_extra={"examples": [example]})


class PointsIn(BaseModel):
    """Points to add. ``usedPoints``, ``usedWith`` and ``allPointsAfterCreation`` may be sent and are ignored."""

    model_config = _strict(points=20, description="points added", createdAt="2019-08-24T14:15:22Z")

    id: Id | None = None
    reference_id: ReferenceId | None = Field(None, alias="reference-id")
    description: Text | None = None
    points: int = Field(ge=0, le=MAX_POINTS)
    created_at: Instant | None = Field(None, alias="createdAt")
    valid_until: Instant | None = Field(None, alias="validUntil")


class AddedPointsIn(PointsIn):
    """Points to add to an account. ``createdAt`` is the server's; a sent one is ignored."""

    model_config = _strict(id="12345fee", points=123, description="points added", validUntil="2089-08-24T14:15:22Z")

    points: int = Field(ge=1, le=MAX_POINTS)


class NewCustomerIn(BaseModel):
    """An account to open: ``{customerId, startPoints}``, or ``{points}`` alone; without either, with 0 points."""

    model_config = _strict(
        customerId="C4289081720", startPoints={"id": "12345fee", "reference-id": "123456", "points": 20}
    )

    customer_id: str | None = Field(None, alias="customerId", max_length=MAX_ID_LENGTH)
    start_points: PointsIn | None = Field(None, alias="startPoints")
    points: int | None = Field(None, ge=0, le=MAX_POINTS)

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if self.start_points is not None and self.points is not None and self.points != self.start_points.points:
            raise ValueError("points and startPoints.points disagree")
        return self

    @property
    def grant(self) -> PointsIn:
        """The opening entry asked for."""
        return self.start_points or PointsIn.model_validate({"points": self.points or 0})


class RedeemedPointsIn(BaseModel):
    """Points to redeem without a coupon. ``createdAt`` and ``allPointsAfterCreation`` may be sent and are ignored."""

    model_config = _strict(points=50, description="points redeemed")

    id: Id | None = None
    description: Text | None = None
    points: int = Field(ge=1, le=MAX_POINTS)


class RedeemIn(BaseModel):
    """The option to redeem for, under either of the two names clients use."""

    model_config = _strict(id="575937654bf757001d8496c9")

    id: Id | None = None
    redeem_option_id: Id | None = Field(None, alias="redeemOptionId")

    @model_validator(mode="after")
    def _one_option(self) -> Self:
        if self.id is None and self.redeem_option_id is None:
            raise ValueError("id is missing: the redeem option")
        if None not in (self.id, self.redeem_option_id) and self.id != self.redeem_option_id:
            raise ValueError("id and redeemOptionId disagree")
        return self

    @property
    def option_id(self) -> str:
        """The option's id."""
        return self.id or self.redeem_option_id or ""


def object_named(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object under ``name``.

    Raises:
        BadRequest: there is none.
    """
    value = body.get(name)
    if not isinstance(value, Mapping):
        raise BadRequest(f"{name}: must be an object")
    return value
