"""Order messages: completed orders out of records.

Decoding never raises anything but ``RecordRejected``. Amounts become ``Decimal`` from their own text, ids may be JSON
strings or integers, unknown fields are ignored.
"""

import re
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from rewardpoints.domain.accounts import DEFAULT_SITE_CODE
from rewardpoints.domain.earning import Skipped, SkipReason
from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.instants import parse_instant
from rewardpoints.domain.orders import ANONYMOUS_CUSTOMER, COMPLETED_STATUS, Order, check_not_ahead
from rewardpoints.events.envelopes import Envelope, checked_id, optional_text, read, tenant_of
from rewardpoints.events.records import Record, recorded_at, reject


class Customer(msgspec.Struct):
    """The customer of an order."""

    id: str | int | None = None


class OrderBody(Envelope, rename="camel"):
    """The fields of an order that are used."""

    id: str | int | None = None
    status: str | None = None
    customer: Customer | None = None
    site_code: str | None = None
    total_price: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    sub_total_price: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    currency: str | None = None
    completed: str | None = None
    last_status_change: str | None = None


class _StatusBody(Envelope):
    """Only the status of an order, whatever the other fields look like."""

    status: Any = None


_ORDER: Final = msgspec.json.Decoder(OrderBody)
_AMOUNT: Final[msgspec.json.Decoder[Decimal | None]] = msgspec.json.Decoder(Decimal | None)
_AMOUNT_TEXT: Final = re.compile(rb'"-?[0-9]+(\.[0-9]+)?"')
_STATUS: Final = msgspec.json.Decoder(_StatusBody)


def decode_order(record: Record) -> Order | Skipped:
    """The completed order in a record, or why it earns nothing by its status or its customer.

    The status is looked at first: whatever else an order of another status holds, it is skipped, not judged.

    Raises:
        RecordRejected: no order can be read from it.
    """
    try:
        body, tenant = read(record, _ORDER)
    except RecordRejected as rejection:
        if rejection.reason is RejectReason.INVALID_FIELD and _has_other_status(record):
            return Skipped(SkipReason.STATUS)
        raise
    if body.status is None:
        reject(RejectReason.INVALID_FIELD, "the order has no status")
    if body.status != COMPLETED_STATUS:
        return Skipped(SkipReason.STATUS)
    customer = optional_text(body.customer.id if body.customer else None)
    if customer is None or customer == ANONYMOUS_CUSTOMER:
        return Skipped(SkipReason.ANONYMOUS_CUSTOMER)
    return Order(
        tenant=tenant_of(tenant, body),
        id=checked_id("id", body.id),
        customer_id=checked_id("customer.id", customer),
        site_code=DEFAULT_SITE_CODE if body.site_code is None else checked_id("siteCode", body.site_code),
        completed_at=_completed_at(body, record),
        total_price=_amount("totalPrice", body.total_price),
        sub_total_price=_amount("subTotalPrice", body.sub_total_price),
        currency=None if body.currency is None else checked_id("currency", body.currency),
    )


def _has_other_status(record: Record) -> bool:
    """Whether a record whose fields are not as agreed is of an order that earns nothing anyway."""
    try:
        body, _ = read(record, _STATUS)
    except RecordRejected:
        return False
    return isinstance(body.status, str) and body.status != COMPLETED_STATUS


def _amount(field: str, raw: msgspec.Raw | msgspec.UnsetType) -> Decimal | None:
    """A JSON number, or a string of digits: ``Decimal`` would also take ``1_000`` and ``Infinity`` from a string."""
    if raw is msgspec.UNSET:
        return None
    text = bytes(raw)
    if text.startswith(b'"') and not _AMOUNT_TEXT.fullmatch(text):
        reject(RejectReason.INVALID_AMOUNT, f"{field} is no plain decimal number")
    try:
        return _AMOUNT.decode(text)
    except msgspec.ValidationError as error:
        reject(RejectReason.INVALID_FIELD, f"the JSON is not as agreed: {error} - at `$.{field}`", error)
    except (ValueError, ArithmeticError) as error:  # msgspec.DecodeError is a ValueError
        reject(RejectReason.MALFORMED, f"the value is not valid JSON: {error}", error)


def _completed_at(body: OrderBody, record: Record) -> datetime:
    recorded = recorded_at(record)
    name, text = "completed", body.completed
    if text is None:
        name, text = "lastStatusChange", body.last_status_change
    if text is None:
        return recorded
    try:
        completed_at = parse_instant(text)
    except ValueError as error:
        reject(RejectReason.INVALID_TIME, f"{name} is no usable time: it must be ISO 8601 with a UTC offset", error)
    check_not_ahead(completed_at, recorded)
    return completed_at
