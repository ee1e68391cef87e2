"""Redeem options: what a customer can spend points on, with the template of the coupon that is asked for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from rewardpoints.domain.accounts import check_text
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.lots import MAX_POINTS

OPTION_TYPE: Final = "coupon"
MAX_AMOUNT: Final = Decimal(1_000_000_000)
MAX_DEPTH: Final = 8
MAX_VALUES: Final = 500
_ONE_HUNDRED: Final = Decimal(100)
_CURRENCY: Final = re.compile(r"[a-zA-Z]{3}")
_STATUSES: Final = ("INACTIVE", "VALID", "EXPIRED", "USED")
_CONTENT_FIELDS: Final = ("type", "name", "description", "points", "coupon", "pointsAfterCoupon")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedeemOption:
    """One option of a tenant. ``content``: its public fields without id and metadata; numbers are int or Decimal."""

    tenant: str
    id: str
    content: Mapping[str, Any]
    version: int
    created_at: datetime
    modified_at: datetime

    @property
    def points(self) -> int:
        """What a coupon costs."""
        return int(self.content["points"])

    @property
    def description(self) -> str:
        """What its redemptions are described by: the description, or the name where there is none."""
        return str(self.content.get("description") or self.content["name"])

    def snapshot(self) -> dict[str, Any]:
        """The option as a redemption keeps it."""
        return {"id": self.id, **self.content, "version": self.version}


def option_content(given: Mapping[str, Any]) -> dict[str, Any]:
    """The validated content of a redeem option, without unknown fields and without the other discount type's.

    Raises:
        InvalidInput: something is missing or breaks its rule.
    """
    content = {name: given[name] for name in _CONTENT_FIELDS if given.get(name) is not None}
    if content.get("type") != OPTION_TYPE:
        raise InvalidInput("type", f"must be {OPTION_TYPE!r}")
    _check_text(content, "name", required=True)
    _check_text(content, "description", required=False)
    _check_whole(content, "points", least=1)
    if "pointsAfterCoupon" in content:
        _check_whole(content, "pointsAfterCoupon", least=-MAX_POINTS)
    coupon = content.get("coupon")
    if not isinstance(coupon, Mapping):
        raise InvalidInput("coupon", "must be given: it is the template of the coupon that is created")
    content["coupon"] = _coupon(coupon)
    return content


def merged_content(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The stored content with the parts a client sent laid over it, validated as a whole. ``null`` removes a field.

    Raises:
        InvalidInput: the result is not a usable option.
    """
    parts = {name: given[name] for name in _CONTENT_FIELDS if name in given}
    return option_content(merge(stored, parts))


def merge(stored: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """``patch`` laid over ``stored`` as RFC 7396 (JSON merge patch) has it."""
    merged = dict(stored)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            under = merged.get(name)
            merged[name] = merge(under if isinstance(under, Mapping) else {}, value)
        else:
            merged[name] = value
    return merged


def _coupon(given: Mapping[str, Any]) -> dict[str, Any]:
    coupon = {name: value for name, value in given.items() if value is not None}
    _check_shape(coupon)
    _check_text(coupon, "name", required=True, within="coupon.")
    _check_text(coupon, "description", required=False, within="coupon.")
    kind = coupon.get("discountType")
    if kind == "ABSOLUTE":
        coupon.pop("discountPercentage", None)
        _check_money(coupon, "discountAbsolute", positive=True)
    elif kind == "PERCENT":
        coupon.pop("discountAbsolute", None)
        percentage = _number(coupon, "discountPercentage", within="coupon.")
        if not 0 < percentage <= _ONE_HUNDRED:
            raise InvalidInput("coupon.discountPercentage", "must be more than 0 and at most 100")
    else:
        raise InvalidInput("coupon.discountType", "must be ABSOLUTE or PERCENT")
    _check_optional_fields(coupon)
    return coupon


def _check_optional_fields(coupon: Mapping[str, Any]) -> None:
    if not isinstance(coupon.get("allowAnonymous", False), bool):
        raise InvalidInput("coupon.allowAnonymous", "must be true or false")
    for name in ("maxRedemptions", "maxRedemptionsPerCustomer"):
        if name in coupon and _number(coupon, name, within="coupon.") < -1:
            raise InvalidInput(f"coupon.{name}", "must be -1 (unlimited) or more")
    if coupon.get("status", "VALID") not in _STATUSES:
        raise InvalidInput("coupon.status", f"must be one of {', '.join(_STATUSES)}")
    restrictions = coupon.get("restrictions", {})
    if not isinstance(restrictions, Mapping):
        raise InvalidInput("coupon.restrictions", "must be an object")
    if restrictions.get("minOrderValue") is not None:
        _check_money(restrictions, "minOrderValue", positive=False, within="coupon.restrictions.")


def _check_money(parent: Mapping[str, Any], name: str, *, positive: bool, within: str = "coupon.") -> None:
    money = parent.get(name)
    if not isinstance(money, Mapping):
        raise InvalidInput(f"{within}{name}", "must be an object with amount and currency")
    amount = _number(money, "amount", within=f"{within}{name}.")
    if amount < 0 or (positive and amount == 0):
        raise InvalidInput(f"{within}{name}.amount", "must be more than 0" if positive else "must not be negative")
    currency = money.get("currency")
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise InvalidInput(f"{within}{name}.currency", "must be a three-letter currency code")


def _number(parent: Mapping[str, Any], name: str, *, within: str) -> Decimal:
    value = parent.get(name)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise InvalidInput(f"{within}{name}", "must be a number")
    number = Decimal(value)
    if not number.is_finite() or number.adjusted() > MAX_AMOUNT.adjusted() or abs(number) > MAX_AMOUNT:
        raise InvalidInput(f"{within}{name}", f"must be at most {MAX_AMOUNT}")
    return number


def _check_text(parent: Mapping[str, Any], name: str, *, required: bool, within: str = "") -> None:
    value = parent.get(name)
    if value is None and not required:
        return
    if not isinstance(value, str) or (required and not value.strip()):
        raise InvalidInput(f"{within}{name}", "must be a text")
    check_text(f"{within}{name}", value)


def _check_whole(parent: Mapping[str, Any], name: str, *, least: int) -> None:
    value = parent.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_POINTS:
        raise InvalidInput(name, f"must be a whole number between {least} and {MAX_POINTS}")


def _check_shape(coupon: Mapping[str, Any]) -> None:
    """Bound what a template may carry beyond the fields known here."""
    level: list[Any] = [coupon]
    values = 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            below.extend(value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ())
        values += len(below)
        if not below:
            return
        level = below
        if values > MAX_VALUES:
            break
    raise InvalidInput("coupon", f"must be at most {MAX_DEPTH} levels deep and hold at most {MAX_VALUES} values")
