"""Envelopes: the forms a message may come in, and the tenant each names.

Three forms are read: CloudEvents 1.0 structured, CloudEvents binary (``ce_*`` headers) and the bare object with its
tenant in a ``tenant`` header or field. Nothing here raises anything but ``RecordRejected``.
"""

from typing import Final, NamedTuple, TypeVar

import msgspec

from rewardpoints.domain.accounts import check_id, check_tenant
from rewardpoints.domain.errors import InvalidInput, RecordRejected, RejectReason
from rewardpoints.events.records import Headers, Record, UndecodableRecord, reject

SPEC_VERSION: Final = "1.0"

_STRUCTURED: Final = "application/cloudevents+json"
_TELLING: Final = frozenset({"tenant", "ce_tenant", "ce_specversion", "content-type"})


class Envelope(msgspec.Struct, rename="camel"):
    """What a body may say about itself, whichever form it has."""

    tenant: str | int | None = None
    specversion: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Hints(NamedTuple):
    """What the headers say about a record's form and tenant."""

    structured: bool = False
    specversion: str | None = None
    tenant: str | None = None


_NO_HINTS: Final = _Hints()

Body = TypeVar("Body", bound=Envelope)


def read(record: Record, decoder: msgspec.json.Decoder[Body]) -> tuple[Body, str | None]:
    """The body of a record, out of its envelope where it has one, and the tenant said outside the body.

    Raises:
        RecordRejected: there is no such body.
    """
    if isinstance(record, UndecodableRecord):
        offsets = f"offsets {record.offset} to {record.last_offset}"
        reject(RejectReason.UNDECODABLE, f"the Kafka client cannot decode {offsets}: {record.error}")
    value = record.value
    if not value:
        reject(RejectReason.MALFORMED, "the record has no value")
    hints = _hints(record.headers) if record.headers else _NO_HINTS
    if hints.specversion is not None:
        _check_specversion(hints.specversion)
        return _decode(value, decoder), hints.tenant
    body = _decode(value, decoder)
    if body.specversion is None:
        if hints.structured:
            reject(RejectReason.MALFORMED, f"the content type is {_STRUCTURED} but there is no specversion")
        return body, hints.tenant
    if body.data is msgspec.UNSET:
        if hints.structured:
            reject(RejectReason.MALFORMED, "the CloudEvent has no data")
        return body, hints.tenant
    _check_specversion(body.specversion)
    event_tenant = optional_text(body.tenant)
    return _decode(body.data, decoder), agreed(event_tenant, hints.tenant)


def _decode(value: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[Body]) -> Body:
    try:
        str(value, "utf-8")  # the decoder does not look into what it skips
        return decoder.decode(value)
    except UnicodeDecodeError as error:
        reject(RejectReason.MALFORMED, f"the value is not valid UTF-8 at byte {error.start}", error)
    except msgspec.ValidationError as error:
        reject(RejectReason.INVALID_FIELD, f"the JSON is not as agreed: {error}", error)
    except RecursionError as error:
        reject(RejectReason.MALFORMED, "the JSON is nested too deeply", error)
    except (ValueError, ArithmeticError) as error:  # msgspec.DecodeError is a ValueError
        reject(RejectReason.MALFORMED, f"the value is not valid JSON: {error}", error)


def _hints(headers: Headers) -> _Hints:
    structured = False
    specversion = event_tenant = tenant = None
    for name, value in headers:
        lowered = name.lower()
        if lowered not in _TELLING:
            continue
        if lowered == "tenant":
            tenant = _header_tenant(value)
        elif lowered == "ce_tenant":
            event_tenant = _header_tenant(value)
        elif lowered == "ce_specversion":
            specversion = (value or b"").decode("latin-1")
        elif lowered == "content-type":
            structured = (value or b"").decode("latin-1").strip().lower().startswith(_STRUCTURED)
    return _Hints(structured, specversion, agreed(event_tenant, tenant))


def _header_tenant(value: bytes | None) -> str | None:
    try:
        return value.decode() if value else None
    except UnicodeDecodeError as error:
        reject(RejectReason.INVALID_TENANT, "the tenant header is not valid UTF-8", error)


def agreed(first: str | None, second: str | None) -> str | None:
    """The tenant that two places name, either of which may name none.

    Raises:
        RecordRejected: they name two.
    """
    if first is not None and second is not None and first != second:
        reject(RejectReason.INVALID_TENANT, "the record names two different tenants")
    return second if first is None else first


def _check_specversion(specversion: str) -> None:
    if specversion.strip() != SPEC_VERSION:
        reject(RejectReason.MALFORMED, f"only CloudEvents {SPEC_VERSION} are understood")


def tenant_of_headers(record: Record) -> str | None:
    """The tenant that a record's headers name, None where they name none or two."""
    try:
        return _hints(record.headers).tenant
    except RecordRejected:
        return None


def optional_text(value: str | int | None) -> str | None:
    """An id that may be missing, as text."""
    return None if value is None else str(value)


def tenant_of(outside: str | None, body: Envelope) -> str:
    """The tenant named outside the body, or in it.

    Raises:
        RecordRejected: there is none, there are two, or it can be no tenant's name.
    """
    tenant = agreed(outside, optional_text(body.tenant))
    if not tenant:
        reject(RejectReason.MISSING_TENANT, "neither a header nor a field names the tenant")
    try:
        return check_tenant(tenant)
    except InvalidInput as error:
        reject(RejectReason.INVALID_TENANT, str(error), error)


def checked_id(field: str, value: str | int | None) -> str:
    """An id that must be there, as text; ``field`` is what the reason calls it.

    Raises:
        RecordRejected: it is missing, or can be no id.
    """
    if value is None:
        reject(RejectReason.INVALID_ID, f"{field} is missing")
    try:
        return check_id(field, str(value))
    except InvalidInput as error:
        reject(RejectReason.INVALID_ID, str(error), error)
