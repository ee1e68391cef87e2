"""Messages: records from Kafka decoded into the domain's terms, and coupon requests encoded.

Decoding never raises anything but ``RecordRejected``. Three forms are read: CloudEvents 1.0 structured, CloudEvents
binary (``ce_*`` headers) and the bare object with its tenant in a ``tenant`` header or field. Numbers become
``Decimal`` from their own text, ids may be JSON strings or integers, unknown fields are ignored.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple, NoReturn, Protocol, TypeVar

import msgspec

from rewardpoints.domain.accounts import DEFAULT_SITE_CODE, MAX_TEXT_LENGTH, check_id, check_tenant
from rewardpoints.domain.coupons import coupon_request
from rewardpoints.domain.earning import Skipped, SkipReason
from rewardpoints.domain.errors import InvalidInput, RecordRejected, RejectReason
from rewardpoints.domain.instants import LATEST, format_instant, parse_instant
from rewardpoints.domain.orders import ANONYMOUS_CUSTOMER, COMPLETED_STATUS, Order, check_not_ahead
from rewardpoints.domain.redemptions import Redemption

Headers = tuple[tuple[str, bytes | None], ...]


class Record(Protocol):
    """A record as the Kafka client delivers it (``aiokafka.ConsumerRecord``). ``timestamp`` in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(slots=True, kw_only=True)
class UndecodableRecord:
    """Stands for the records from ``offset`` to ``last_offset`` that the Kafka client could not decode."""

    topic: str
    partition: int
    offset: int
    last_offset: int
    timestamp: int
    error: str
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()


ORIGIN: Final = "rewardpoints-dead-letter-origin"
"""Header of a record that was published again: its first ``topic/partition/offset/timestamp``."""

COUPON_REQUEST_TYPE: Final = "rewardpoints.coupon-creation-requested"
SOURCE: Final = "/rewardpoints"
COUPON_CREATED: Final = "CREATED"
SPEC_VERSION: Final = "1.0"

_STRUCTURED: Final = "application/cloudevents+json"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MILLISECONDS: Final = int((LATEST - _EPOCH).total_seconds()) * 1000


class Envelope(msgspec.Struct, rename="camel"):
    """What a body may say about itself, whichever form it has."""

    tenant: str | int | None = None
    specversion: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


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


class _StatusBody(Envelope):
    """Only the status of an order, whatever the other fields look like."""

    status: Any = None


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


class Message(NamedTuple):
    """A message to be published."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


class _Hints(NamedTuple):
    """What the headers say about a record's form and tenant."""

    structured: bool = False
    specversion: str | None = None
    tenant: str | None = None


Body = TypeVar("Body", bound=Envelope)

_ORDER: Final = msgspec.json.Decoder(OrderBody)
_AMOUNT: Final[msgspec.json.Decoder[Decimal | None]] = msgspec.json.Decoder(Decimal | None)
_AMOUNT_TEXT: Final = re.compile(rb'"-?[0-9]+(\.[0-9]+)?"')
_NAMES: Final = msgspec.json.Decoder(_NamesBody)
_STATUS: Final = msgspec.json.Decoder(_StatusBody)
_CHARGEBACK: Final = msgspec.json.Decoder(ChargebackBody)
_COUPON_RESULT: Final = msgspec.json.Decoder(CouponResultBody)
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
_NO_HINTS: Final = _Hints()


def decode_order(record: Record) -> Order | Skipped:
    """The completed order in a record, or why it earns nothing by its status or its customer.

    The status is looked at first: whatever else an order of another status holds, it is skipped, not judged.

    Raises:
        RecordRejected: no order can be read from it.
    """
    try:
        body, tenant = _read(record, _ORDER)
    except RecordRejected as rejection:
        if rejection.reason is RejectReason.INVALID_FIELD and _has_other_status(record):
            return Skipped(SkipReason.STATUS)
        raise
    if body.status is None:
        _reject(RejectReason.INVALID_FIELD, "the order has no status")
    if body.status != COMPLETED_STATUS:
        return Skipped(SkipReason.STATUS)
    customer = _optional_text(body.customer.id if body.customer else None)
    if customer is None or customer == ANONYMOUS_CUSTOMER:
        return Skipped(SkipReason.ANONYMOUS_CUSTOMER)
    return Order(
        tenant=_tenant(tenant, body),
        id=_id("id", body.id),
        customer_id=_id("customer.id", customer),
        site_code=DEFAULT_SITE_CODE if body.site_code is None else _id("siteCode", body.site_code),
        completed_at=_completed_at(body, record),
        total_price=_amount("totalPrice", body.total_price),
        sub_total_price=_amount("subTotalPrice", body.sub_total_price),
        currency=None if body.currency is None else _id("currency", body.currency),
    )


def decode_chargeback(record: Record) -> Chargeback:
    """The chargeback in a record.

    Raises:
        RecordRejected: none can be read from it.
    """
    body, tenant = _read(record, _CHARGEBACK)
    return Chargeback(
        redemption_id=_id("redemptionId", body.redemption_id),
        tenant=_tenant(tenant, body),
        customer_id=_optional_text(body.customer_id),
        reason=(body.reason or "").replace("\x00", "")[:MAX_TEXT_LENGTH],
        at=recorded_at(record),
    )


def decode_coupon_result(record: Record) -> CouponResult:
    """The coupon result in a record.

    Raises:
        RecordRejected: none can be read from it.
    """
    body, tenant = _read(record, _COUPON_RESULT)
    if not body.status:
        _reject(RejectReason.INVALID_FIELD, "the result has no status")
    return CouponResult(
        redemption_id=_id("redemptionId", body.redemption_id),
        tenant=_tenant(tenant, body),
        customer_id=_optional_text(body.customer_id),
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
        body, outside = _read(record, _NAMES)
        tenant = _agreed(outside, _optional_text(body.tenant))
    except RecordRejected:
        return _tenant_of_headers(record), None
    customer = body.customer.get("id") if isinstance(body.customer, dict) else body.customer_id
    return tenant, str(customer) if isinstance(customer, str | int) else None


def _tenant_of_headers(record: Record) -> str | None:
    try:
        return _hints(record.headers).tenant
    except RecordRejected:
        return None


def recorded_at(record: Record) -> datetime:
    """When the record was first published: its own timestamp, or its origin's where it is a dead letter's retry.

    So an order without a time of its own, and a chargeback, mean the same instant when they are published again.

    Raises:
        RecordRejected: it has no usable one.
    """
    for name, value in record.headers:
        if name == ORIGIN and value is not None:
            first = value.rpartition(b"/")[2]
            if first.isdigit() and len(first) <= len(str(_LATEST_MILLISECONDS)):
                return _instant(int(first))
    return published_at(record)


def published_at(record: Record) -> datetime:
    """The record's own timestamp, which is what Kafka finds it by.

    Raises:
        RecordRejected: it has no usable one.
    """
    return _instant(record.timestamp)


def _instant(milliseconds: int | None) -> datetime:
    if milliseconds is None or not 0 <= milliseconds <= _LATEST_MILLISECONDS:
        _reject(RejectReason.INVALID_TIME, "the record has no usable timestamp")
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _read(record: Record, decoder: msgspec.json.Decoder[Body]) -> tuple[Body, str | None]:
    """The body of a record, out of its envelope where it has one, and the tenant said outside the body."""
    if isinstance(record, UndecodableRecord):
        offsets = f"offsets {record.offset} to {record.last_offset}"
        _reject(RejectReason.UNDECODABLE, f"the Kafka client cannot decode {offsets}: {record.error}")
    value = record.value
    if not value:
        _reject(RejectReason.MALFORMED, "the record has no value")
    hints = _hints(record.headers) if record.headers else _NO_HINTS
    if hints.specversion is not None:
        _check_specversion(hints.specversion)
        return _decode(value, decoder), hints.tenant
    body = _decode(value, decoder)
    if body.specversion is None:
        if hints.structured:
            _reject(RejectReason.MALFORMED, f"the content type is {_STRUCTURED} but there is no specversion")
        return body, hints.tenant
    if body.data is msgspec.UNSET:
        if hints.structured:
            _reject(RejectReason.MALFORMED, "the CloudEvent has no data")
        return body, hints.tenant
    _check_specversion(body.specversion)
    event_tenant = _optional_text(body.tenant)
    return _decode(body.data, decoder), _agreed(event_tenant, hints.tenant)


def _decode(value: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[Body]) -> Body:
    try:
        str(value, "utf-8")  # the decoder does not look into what it skips
        return decoder.decode(value)
    except UnicodeDecodeError as error:
        _reject(RejectReason.MALFORMED, f"the value is not valid UTF-8 at byte {error.start}", error)
    except msgspec.ValidationError as error:
        _reject(RejectReason.INVALID_FIELD, f"the JSON is not as agreed: {error}", error)
    except RecursionError as error:
        _reject(RejectReason.MALFORMED, "the JSON is nested too deeply", error)
    except (ValueError, ArithmeticError) as error:  # msgspec.DecodeError is a ValueError
        _reject(RejectReason.MALFORMED, f"the value is not valid JSON: {error}", error)


def _hints(headers: Headers) -> _Hints:
    structured = False
    specversion = event_tenant = tenant = None
    for name, value in headers:
        lowered = name.lower()
        if lowered == "tenant":
            tenant = _header_tenant(value)
        elif lowered == "ce_tenant":
            event_tenant = _header_tenant(value)
        elif lowered == "ce_specversion":
            specversion = (value or b"").decode("latin-1")
        elif lowered == "content-type":
            structured = (value or b"").decode("latin-1").strip().lower().startswith(_STRUCTURED)
    return _Hints(structured, specversion, _agreed(event_tenant, tenant))


def _header_tenant(value: bytes | None) -> str | None:
    try:
        return value.decode() if value else None
    except UnicodeDecodeError as error:
        _reject(RejectReason.INVALID_TENANT, "the tenant header is not valid UTF-8", error)


def _agreed(first: str | None, second: str | None) -> str | None:
    if first is not None and second is not None and first != second:
        _reject(RejectReason.INVALID_TENANT, "the record names two different tenants")
    return second if first is None else first


def _check_specversion(specversion: str) -> None:
    if specversion.strip() != SPEC_VERSION:
        _reject(RejectReason.MALFORMED, f"only CloudEvents {SPEC_VERSION} are understood")


def _has_other_status(record: Record) -> bool:
    """Whether a record whose fields are not as agreed is of an order that earns nothing anyway."""
    try:
        body, _ = _read(record, _STATUS)
    except RecordRejected:
        return False
    return isinstance(body.status, str) and body.status != COMPLETED_STATUS


def _tenant(outside: str | None, body: Envelope) -> str:
    tenant = _agreed(outside, _optional_text(body.tenant))
    if not tenant:
        _reject(RejectReason.MISSING_TENANT, "neither a header nor a field names the tenant")
    try:
        return check_tenant(tenant)
    except InvalidInput as error:
        _reject(RejectReason.INVALID_TENANT, str(error), error)


def _id(field: str, value: str | int | None) -> str:
    if value is None:
        _reject(RejectReason.INVALID_ID, f"{field} is missing")
    try:
        return check_id(field, str(value))
    except InvalidInput as error:
        _reject(RejectReason.INVALID_ID, str(error), error)


def _optional_text(value: str | int | None) -> str | None:
    return None if value is None else str(value)


def _amount(field: str, raw: msgspec.Raw | msgspec.UnsetType) -> Decimal | None:
    """A JSON number, or a string of digits: ``Decimal`` would also take ``1_000`` and ``Infinity`` from a string."""
    if raw is msgspec.UNSET:
        return None
    text = bytes(raw)
    if text.startswith(b'"') and not _AMOUNT_TEXT.fullmatch(text):
        _reject(RejectReason.INVALID_AMOUNT, f"{field} is no plain decimal number")
    try:
        return _AMOUNT.decode(text)
    except msgspec.ValidationError as error:
        _reject(RejectReason.INVALID_FIELD, f"the JSON is not as agreed: {error} - at `$.{field}`", error)
    except (ValueError, ArithmeticError) as error:  # msgspec.DecodeError is a ValueError
        _reject(RejectReason.MALFORMED, f"the value is not valid JSON: {error}", error)


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
        _reject(RejectReason.INVALID_TIME, f"{name} is no usable time: it must be ISO 8601 with a UTC offset", error)
    check_not_ahead(completed_at, recorded)
    return completed_at


def _reject(reason: RejectReason, explanation: str, cause: Exception | None = None) -> NoReturn:
    raise RecordRejected(reason, explanation) from cause
