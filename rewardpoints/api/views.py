"""Views: what the operations answer, as JSON with exact numbers."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
from starlette.responses import Response

from rewardpoints.domain.accounts import customer_of
from rewardpoints.domain.history import Summary
from rewardpoints.domain.instants import format_instant, format_zulu
from rewardpoints.domain.redeem_options import RedeemOption

JSON: Final = "application/json"
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


def encode(value: Any) -> bytes:
    """JSON; a ``Decimal`` becomes a number with exactly its digits."""
    return _encoder.encode(value)


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(_encoder.encode(value), status_code=status, headers=headers, media_type=JSON)


def summary_view(summary: Summary) -> dict[str, Any]:
    """An account's summary."""
    return {
        "customerId": customer_of(summary.account),
        "activePoints": summary.active_points,
        "summary": {
            "addedPointsList": [
                {
                    "id": added.lot.public_id,
                    "reference-id": added.lot.reference_id,
                    "description": added.lot.description,
                    "points": added.lot.points,
                    "createdAt": format_instant(added.lot.created_at),
                    "allPointsAfterCreation": added.balance_after,
                    "usedPoints": added.lot.used,
                    "validUntil": format_instant(added.lot.valid_until),
                    "usedWith": added.used_with,
                }
                for added in summary.added
            ],
            "redeemedPointsList": [
                {
                    "id": redeemed.redemption.public_id,
                    "description": redeemed.redemption.description,
                    "points": redeemed.redemption.points,
                    "createdAt": format_instant(redeemed.redemption.created_at),
                    "allPointsAfterCreation": redeemed.balance_after,
                }
                for redeemed in summary.redeemed
            ],
        },
    }


def option_view(option: RedeemOption) -> dict[str, Any]:
    """A redeem option; always with its coupon."""
    return {
        "id": option.id,
        **option.content,
        "metadata": {
            "version": option.version,
            "createdAt": format_zulu(option.created_at),
            "modifiedAt": format_zulu(option.modified_at),
        },
    }


def options_view(options: Sequence[RedeemOption]) -> list[dict[str, Any]]:
    """Redeem options, oldest first."""
    return [option_view(option) for option in options]


MAX_DEPTH: Final = 32
_MAX_NUMBER_DIGITS: Final = 34
_MAX_EXPONENT: Final = 6000
_MAX_WHOLE: Final = 2**63 - 1


def unstorable(value: Any) -> str | None:
    """Why decoded JSON can be neither stored nor handled safely, or None: depth, NUL, numbers beyond every store."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if any("\x00" in name for name in item):
                    return "no name may hold NUL"
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        for problem in _scalar_problems(below):
            return problem
        if not below:
            return None
        level = below
    return f"at most {MAX_DEPTH} levels may be nested"


def _scalar_problems(values: list[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            if "\x00" in value:
                yield "no text may hold NUL"
        elif isinstance(value, Decimal):
            if (
                len(value.as_tuple().digits) > _MAX_NUMBER_DIGITS
                or not -_MAX_EXPONENT < value.adjusted() < _MAX_EXPONENT
            ):
                yield f"numbers may have at most {_MAX_NUMBER_DIGITS} digits"
        elif isinstance(value, int) and abs(value) > _MAX_WHOLE:
            yield "whole numbers may have at most 64 bits"


def resource_error(status: int, kind: str, message: str) -> dict[str, Any]:
    """The body of 404, and of every status the public description does not know."""
    return {"type": kind, "status": status, "message": message}
