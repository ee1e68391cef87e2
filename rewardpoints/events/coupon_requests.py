"""Coupon requests read back: the redemption that each was published for."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from rewardpoints.domain.accounts import account_of, check_id, check_tenant
from rewardpoints.domain.errors import InvalidInput, RecordRejected, RejectReason
from rewardpoints.domain.instants import parse_instant
from rewardpoints.domain.lots import Draw
from rewardpoints.domain.redemptions import CouponOrder, Redemption, RedemptionState, fingerprint
from rewardpoints.events.records import Record, UndecodableRecord

_DECODER: Final = msgspec.json.Decoder(float_hook=Decimal)


def decode_coupon_request(record: Record) -> Redemption:
    """The redemption of a coupon request, as it stood right after its request was published.

    Raises:
        RecordRejected: it is no coupon request of this service.
    """
    if isinstance(record, UndecodableRecord) or not record.value:
        raise RecordRejected(RejectReason.MALFORMED, "the record cannot be read")
    try:
        return _redemption(_DECODER.decode(record.value))
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, InvalidInput) as error:
        raise RecordRejected(RejectReason.MALFORMED, f"the record is no coupon request: {error!r}") from error


def _redemption(message: Mapping[str, Any]) -> Redemption:
    draws = tuple(Draw(check_id("lot", draw["lot"]), _points(draw["points"])) for draw in message["draws"])
    points = _points(message["points"])
    if sum(draw.points for draw in draws) != points or len({draw.lot for draw in draws}) != len(draws):
        raise ValueError("its draws are not its points")
    identity = check_id("id", message["id"])
    option = message["option"]
    template = {name: value for name, value in message["coupon"].items() if name not in {"code", "issuedTo"}}
    return Redemption(
        id=identity,
        public_id=identity,
        account=account_of(check_tenant(message["tenant"]), check_id("customerId", message["customerId"])),
        points=points,
        draws=draws,
        description=str(option.get("description") or option["name"]),
        site_code=check_id("siteCode", message["siteCode"]),
        created_at=parse_instant(message["requestedAt"]),
        state=RedemptionState.REQUESTED,
        fingerprint=fingerprint("redeem", message["siteCode"], {"id": option["id"]}),
        coupon=CouponOrder(code=check_id("code", message["code"]), option={**option, "coupon": template}),
    )


def _points(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError("points are no positive integer")
    return value
