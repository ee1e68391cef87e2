"""Schemas: the shapes of answers and bodies as the OpenAPI document states them. Answers are made in views."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.json_schema import WithJsonSchema

_TIME: Final[JsonDict] = {"format": "date-time"}


class AddedPoints(BaseModel):
    """One grant of points."""

    id: str
    reference_id: str | None = Field(serialization_alias="reference-id")
    description: str
    points: int = Field(ge=0)
    created_at: str = Field(serialization_alias="createdAt", json_schema_extra=_TIME)
    all_points_after_creation: int = Field(serialization_alias="allPointsAfterCreation", ge=0)
    used_points: int = Field(serialization_alias="usedPoints", ge=0)
    valid_until: str = Field(serialization_alias="validUntil", json_schema_extra=_TIME)
    used_with: list[str] = Field(serialization_alias="usedWith")


class RedeemedPoints(BaseModel):
    """One redemption."""

    id: str
    description: str
    points: int = Field(ge=1)
    created_at: str = Field(serialization_alias="createdAt", json_schema_extra=_TIME)
    all_points_after_creation: int = Field(serialization_alias="allPointsAfterCreation", ge=0)


class CustomerSummary(BaseModel):
    """An account's entries, oldest first."""

    added_points_list: list[AddedPoints] = Field(serialization_alias="addedPointsList")
    redeemed_points_list: list[RedeemedPoints] = Field(serialization_alias="redeemedPointsList")


class PointsSummary(BaseModel):
    """An account's balance and entries, from one read."""

    customer_id: str = Field(serialization_alias="customerId")
    active_points: int = Field(serialization_alias="activePoints", ge=0)
    summary: CustomerSummary


class OptionMetadata(BaseModel):
    """A redeem option's version and times."""

    version: int = Field(ge=1)
    created_at: str = Field(serialization_alias="createdAt", json_schema_extra=_TIME)
    modified_at: str = Field(serialization_alias="modifiedAt", json_schema_extra=_TIME)


class CouponTemplate(BaseModel):
    """What the coupon service is asked to create. Further fields are passed on as they were given."""

    model_config = ConfigDict(extra="allow")

    name: str
    discount_type: str = Field(serialization_alias="discountType", json_schema_extra={"enum": ["ABSOLUTE", "PERCENT"]})


class RedeemOption(BaseModel):
    """What points can be redeemed for."""

    id: str
    type: str
    name: str
    points: int = Field(ge=1)
    coupon: CouponTemplate
    metadata: OptionMetadata


class CouponCode(BaseModel):
    """The code of the coupon that is being created."""

    code: str


class CouponSettings(BaseModel):
    """The mixin's content."""

    rewardpoints: dict[str, Any]


class Mixins(BaseModel):
    """The mixins of a site that this service knows."""

    coupon_settings: CouponSettings | None = Field(None, serialization_alias="couponSettings")


class BadRequestError(BaseModel):
    """400."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


class FaultDetail(BaseModel):
    """401's detail."""

    errorcode: str


class Fault(BaseModel):
    """401's fault."""

    faultstring: str
    detail: FaultDetail


class UnauthorizedError(BaseModel):
    """401."""

    fault: Fault


class ForbiddenError(BaseModel):
    """403; ``details`` names the missing scope."""

    code: int
    status: str
    message: str
    details: list[str]


class ResourceError(BaseModel):
    """404, and every status the public description does not know."""

    type: str
    status: int
    message: str


class ConflictDetail(BaseModel):
    """One reason of a conflict."""

    field: str | None
    type: str | None
    message: str
    more_info: str = Field(serialization_alias="moreInfo")


class ConflictError(BaseModel):
    """409."""

    status: int
    type: str
    message: str
    more_info: str = Field(serialization_alias="moreInfo")
    details: list[ConflictDetail]


class OptionChangedDetails(BaseModel):
    """Which option changed."""

    message: str


class OptionChangedError(BaseModel):
    """409 of a redeem option's change."""

    status: int
    message: str
    details: OptionChangedDetails


class InternalError(BaseModel):
    """500."""

    timestamp: str = Field(json_schema_extra=_TIME)
    status: int
    error: str
    path: str


_RETRY_AFTER: Final = {"Retry-After": {"required": True, "schema": {"type": "integer"}, "description": "seconds"}}
_AUTHENTICATE: Final = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}

ERRORS: Final[dict[int, dict[str, Any]]] = {
    400: {"description": "The request breaks a rule; nothing was changed.", "model": BadRequestError},
    401: {"description": "No acceptable access token.", "model": UnauthorizedError, "headers": _AUTHENTICATE},
    403: {"description": "The access token does not allow this.", "model": ForbiddenError},
    404: {"description": "There is no such thing.", "model": ResourceError},
    413: {"description": "The body is too large.", "model": ResourceError},
    415: {"description": "The body is not JSON.", "model": ResourceError},
    500: {"description": "Internal error.", "model": InternalError},
    503: {"description": "Try again later; nothing was changed.", "model": ResourceError, "headers": _RETRY_AFTER},
}
CONFLICT: Final[dict[str, Any]] = {"description": "Conflict; nothing was changed.", "model": ConflictError}
OPTION_CHANGED: Final[dict[str, Any]] = {
    "description": "The resource requested for update has changed.",
    "model": OptionChangedError,
}

_TEXT: Final[dict[str, Any]] = {"type": "string", "maxLength": 2000}
_NAME: Final[dict[str, Any]] = {**_TEXT, "minLength": 1, "pattern": r"\S"}
_MOST: Final = 1_000_000_000


def _money(**least: int) -> dict[str, Any]:
    amount = {"type": "number", "maximum": _MOST, **least}
    currency = {"type": "string", "pattern": "^[a-zA-Z]{3}$"}
    return {
        "type": "object",
        "properties": {"amount": amount, "currency": currency},
        "required": ["amount", "currency"],
    }


_COUPON_PROPERTIES: Final[dict[str, Any]] = {
    "name": _NAME,
    "description": _TEXT,
    "discountType": {"type": "string", "enum": ["ABSOLUTE", "PERCENT"]},
    "discountPercentage": {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
    "discountAbsolute": _money(exclusiveMinimum=0),
    "allowAnonymous": {"type": "boolean"},
    "maxRedemptions": {"type": "number", "minimum": -1, "maximum": _MOST},
    "maxRedemptionsPerCustomer": {"type": "number", "minimum": -1, "maximum": _MOST},
    "status": {"type": "string", "enum": ["INACTIVE", "VALID", "EXPIRED", "USED"]},
    "restrictions": {"type": "object", "properties": {"minOrderValue": _money(minimum=0)}},
}


def _coupon_of(discount_type: str, discount: str) -> dict[str, Any]:
    kind = {"discountType": {"type": "string", "enum": [discount_type]}}
    return {
        "type": "object",
        "properties": _COUPON_PROPERTIES | kind,
        "required": ["name", "discountType", discount],
    }


_OPTION_PROPERTIES: Final[dict[str, Any]] = {
    "type": {"type": "string", "enum": ["coupon"]},
    "name": _NAME,
    "description": _TEXT,
    "points": {"type": "integer", "minimum": 1, "maximum": _MOST},
    "pointsAfterCoupon": {"type": "integer", "minimum": -_MOST, "maximum": _MOST},
    "metadata": {"type": "object", "properties": {"version": {"type": "integer"}}},
}
_COUPON: Final[dict[str, Any]] = {
    "oneOf": [_coupon_of("ABSOLUTE", "discountAbsolute"), _coupon_of("PERCENT", "discountPercentage")]
}
_COUPON_PARTS: Final[dict[str, Any]] = {"type": "object", "properties": _COUPON_PROPERTIES}
_OPTION_EXAMPLE: Final = {
    "type": "coupon",
    "name": "10 euro voucher",
    "description": "90 points become a voucher over 10 euros.",
    "points": 90,
    "coupon": {
        "name": "Voucher over 10 euros",
        "discountType": "ABSOLUTE",
        "discountAbsolute": {"amount": 10, "currency": "EUR"},
        "allowAnonymous": True,
        "maxRedemptions": 1,
        "status": "VALID",
    },
}
_SITE_EXAMPLE: Final = {
    "rewardpoints": {
        "enabled": True,
        "orderValueToRewardPointsFactor": 1.5,
        "validityInMonths": 36,
        "codePrefix": "SHOP",
    }
}

NEW_OPTION: Final = WithJsonSchema(
    {
        "type": "object",
        "properties": {**_OPTION_PROPERTIES, "coupon": _COUPON},
        "required": ["type", "name", "points", "coupon"],
        "examples": [_OPTION_EXAMPLE],
    }
)
OPTION_PARTS: Final = WithJsonSchema(
    {
        "type": "object",
        "properties": {**_OPTION_PROPERTIES, "coupon": _COUPON_PARTS},
        "examples": [{"points": 100, "metadata": {"version": 1}}],
    }
)
COUPON_SETTINGS: Final = WithJsonSchema(
    {
        "type": "object",
        "properties": {
            "rewardpoints": {
                "type": "object",
                "properties": {
                    "enabled": {"type": "boolean"},
                    "enable": {"type": "boolean", "description": "another name of enabled"},
                    "orderValueToRewardPointsFactor": {"type": "number", "minimum": 0, "maximum": 1_000_000},
                    "validityInMonths": {"type": "integer", "minimum": 1, "maximum": 1200},
                    "codePrefix": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,32}$"},
                    "couponPrefix": {"type": "string", "description": "another name of codePrefix"},
                    "orderValueBase": {"type": "string", "enum": ["totalPrice", "subTotalPrice"]},
                    "rounding": {"type": "string", "enum": ["FLOOR", "HALF_UP", "CEILING"]},
                    "descriptionTemplate": {"type": "string", "minLength": 1, "maxLength": 500},
                    "timeZone": {"type": "string"},
                },
            }
        },
        "required": ["rewardpoints"],
        "examples": [_SITE_EXAMPLE],
    }
)
