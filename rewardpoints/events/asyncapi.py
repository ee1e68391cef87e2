"""The AsyncAPI 3.0 document of every topic, made from the types records are decoded with."""

from typing import Any, Final

import msgspec

from rewardpoints.events import dead_letters
from rewardpoints.events.messages import COUPON_REQUEST_TYPE, ChargebackBody, CouponResultBody
from rewardpoints.events.order_messages import OrderBody
from rewardpoints.settings import KafkaSettings

ASYNCAPI_VERSION: Final = "3.0.0"
_REFERENCE: Final = "#/components/schemas/{name}"
_ID: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer", "minimum": 1}
_INSTANT: Final = {"type": "string", "format": "date-time", "examples": ["2023-05-11T18:32:18.591+00:00"]}

_REQUIRED: Final = {
    "OrderBody": ["id", "status"],
    "ChargebackBody": ["redemptionId"],
    "CouponResultBody": ["redemptionId", "status"],
}
_FORMS: Final = (
    "CloudEvents 1.0 structured (application/cloudevents+json), CloudEvents 1.0 binary (ce_* headers), or the bare "
    "object. The tenant comes from the event's tenant attribute, a tenant header or a tenant field."
)
_COUPON_REQUEST: Final = {
    "type": "object",
    "required": [
        "id",
        "tenant",
        "siteCode",
        "customerId",
        "code",
        "points",
        "draws",
        "option",
        "coupon",
        "requestedAt",
    ],
    "properties": {
        "id": {**_ID, "description": "the redemption; the same each time the request is published"},
        "tenant": _ID,
        "siteCode": _ID,
        "customerId": _ID,
        "code": {**_ID, "description": "the code the coupon must have"},
        "points": _WHOLE,
        "draws": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["lot", "points"],
                "properties": {"lot": _ID, "points": _WHOLE},
            },
        },
        "option": {"type": "object", "description": "the redeem option as it was when it was redeemed"},
        "coupon": {
            "type": "object",
            "description": "the option's coupon template with code and issuedTo",
            "required": ["code", "issuedTo"],
            "properties": {"code": _ID, "issuedTo": _ID},
        },
        "requestedAt": _INSTANT,
    },
}
_DEAD_LETTER_HEADERS: Final = {
    dead_letters.REASON: "why, as one word",
    dead_letters.ERROR: "why, for a person",
    dead_letters.SOURCE_TOPIC: "topic the record came from",
    dead_letters.SOURCE_PARTITION: "its partition",
    dead_letters.SOURCE_OFFSET: "its offset",
    dead_letters.SOURCE_TIMESTAMP: "its timestamp in milliseconds",
    dead_letters.ATTEMPTS: "how many times it became a dead letter",
    dead_letters.FIRST_SEEN: "when it first did",
    dead_letters.OMITTED: "what was left out because the message would have been too large",
    dead_letters.VALUE_SIZE: "bytes of a value left out",
    dead_letters.VALUE_SHA256: "SHA-256 of a value left out",
}


def asyncapi(settings: KafkaSettings, *, version: str) -> dict[str, Any]:
    """The document as JSON-ready values. ``version`` is the service's. Addresses and credentials are not in it."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, topic, action, message in (
        ("orderCompleted", settings.topic_order_completed, "receive", _incoming("OrderBody", "An order of any status")),
        ("couponCreationRequests", settings.topic_coupon_creation_requests, "send", _coupon_request()),
        (
            "couponCreationResults",
            settings.topic_coupon_creation_results,
            "receive",
            _incoming("CouponResultBody", "What became of a coupon request"),
        ),
        (
            "chargebacks",
            settings.topic_chargebacks,
            "receive",
            _incoming("ChargebackBody", "A coupon that could not be created; its points come back"),
        ),
        ("deadLetters", settings.topic_dead_letter, "send", _dead_letter()),
    ):
        if topic is not None:
            channels[name] = {"address": topic, "messages": {name: message}}
            operations[f"{action}_{name}"] = {"action": action, "channel": {"$ref": f"#/channels/{name}"}}
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {"title": "Reward points", "version": version},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": _schemas()},
    }


def _schemas() -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components((OrderBody, ChargebackBody, CouponResultBody), ref_template=_REFERENCE)
    for name, required in _REQUIRED.items():
        schema = schemas[name]
        schema["required"] = required
        for field in ("specversion", "data"):  # of the envelope, when there is one
            del schema["properties"][field]
        for field in ("totalPrice", "subTotalPrice"):  # kept as they were written, so msgspec knows no type
            if field in schema["properties"]:
                schema["properties"][field] = {"type": ["number", "null"], "minimum": 0}
    return {**schemas, "CouponRequest": _COUPON_REQUEST}


def _incoming(schema: str, summary: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "description": _FORMS,
        "headers": {"type": "object", "properties": {"tenant": {"type": "string"}}},
        "payload": {"$ref": _REFERENCE.format(name=schema)},
    }


def _coupon_request() -> dict[str, Any]:
    attributes = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type")
    return {
        "summary": "Asks for a coupon; published at least once, each time with the same id and code",
        "description": f"CloudEvents 1.0 binary mode of type {COUPON_REQUEST_TYPE}; the key is the account.",
        "headers": {"type": "object", "properties": {name: {"type": "string"} for name in attributes}},
        "payload": {"$ref": _REFERENCE.format(name="CouponRequest")},
    }


def _dead_letter() -> dict[str, Any]:
    properties = {name: {"type": "string", "description": text} for name, text in _DEAD_LETTER_HEADERS.items()}
    return {
        "summary": "A record that can never be applied",
        "description": "Key, value and headers are the original's, byte for byte, with these headers added.",
        "headers": {"type": "object", "properties": properties},
        "payload": True,
    }
