"""Messages of the coupon service: coupon requests encoded, and its answers decoded into the domain's terms.

Decoding never raises anything but ``RecordRejected``. Ids may be JSON strings or integers, unknown fields are ignored.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from rewardpoints.domain.accounts import MAX_TEXT_LENGTH
from rewardpoints.domain.coupons import coupon_request
from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.events.envelopes import (
    SPEC_VERSION,
    Envelope,
    agreed,
    checked_id,
    optional_text,
    read,
    tenant_of,
    tenant_of_headers,
)
from rewardpoints.events.records import Message, Record, recorded_at, reject

COUPON_REQUEST_TYPE: Final = "rewardpoints.coupon-creation-requested"
SOURCE: Final = "/rewardpoints"
COUPON_CREATED: Final = "CREATED"


class ChargebackBody(Envelope, rename="camel"):
    """A coupon that could not be created."""

    redemption_id: str | int | None = None
    customer_id: str | int | None = None
    reason: str | None = None


class CouponResultBody(Envelope, rename="camel"):
    """What became of a coupon request."""

    redemption_id: str | int | None = None
    customer_id: str | int | None = None
    status: str | None = None


class _NamesBody(Envelope, rename="camel"):
    """Whom a body is about, whatever the other fields look like."""

    customer: Any = None
    customer_id: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chargeback:
    """A coupon service's word that a redemption's coupon could not be created. ``at``: the record's timestamp."""

    redemption_id: str
    tenant: str
    customer_id: str | None
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponResult:
    """A coupon service's word on what became of a coupon request. ``at``: the record's timestamp."""

    redemption_id: str
    tenant: str
    customer_id: str | None
    status: str
    at: datetime


_NAMES: Final = msgspec.json.Decoder(_NamesBody)
_CHARGEBACK: Final = msgspec.json.Decoder(ChargebackBody)
_COUPON_RESULT: Final = msgspec.json.Decoder(CouponResultBody)
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


def decode_chargeback(record: Record) -> Chargeback:
    """The chargeback in a record.

    Raises:
        RecordRejected: none can be read from it.
    """
    body, tenant = read(record, _CHARGEBACK)
    return Chargeback(
        redemption_id=checked_id("redemptionId", body.redemption_id),
        tenant=tenant_of(tenant, body),
        customer_id=optional_text(body.customer_id),
        reason=(body.reason or "").replace("\x00", "")[:MAX_TEXT_LENGTH],
        at=recorded_at(record),
    )


def decode_coupon_result(record: Record) -> CouponResult:
    """The coupon result in a record.

    Raises:
        RecordRejected: none can be read from it.
    """
    body, tenant = read(record, _COUPON_RESULT)
    if not body.status:
        reject(RejectReason.INVALID_FIELD, "the result has no status")
    return CouponResult(
        redemption_id=checked_id("redemptionId", body.redemption_id),
        tenant=tenant_of(tenant, body),
        customer_id=optional_text(body.customer_id),
        status=body.status,
        at=recorded_at(record),
    )


def encode_coupon_request(redemption: Redemption, topic: str) -> Message:
    """The coupon request of a redemption, a CloudEvent in binary mode; the same bytes however often it is made.

    Raises:
        ValueError: the redemption has no coupon.
    """
    return Message(
        topic=topic,
        key=redemption.account.encode(),
        value=_ENCODER.encode(coupon_request(redemption)),
        headers=(
            ("ce_specversion", SPEC_VERSION.encode()),
            ("ce_id", redemption.id.encode()),
            ("ce_source", SOURCE.encode()),
            ("ce_type", COUPON_REQUEST_TYPE.encode()),
            ("ce_time", format_instant(redemption.created_at).encode()),
            ("content-type", b"application/json"),
        ),
    )


def named_account(record: Record) -> tuple[str | None, str | None]:
    """The tenant and the customer that a record of any kind names, as far as it can be read; for filters."""
    try:
        body, outside = read(record, _NAMES)
        tenant = agreed(outside, optional_text(body.tenant))
    except RecordRejected:
        return tenant_of_headers(record), None
    customer = body.customer.get("id") if isinstance(body.customer, dict) else body.customer_id
    return tenant, str(customer) if isinstance(customer, str | int) else None
