"""Decoding: every form an order may have, everything that may be wrong with it."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rewardpoints.domain.earning import Skipped, SkipReason
from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.orders import Order
from rewardpoints.domain.site_settings import OrderValueBase
from rewardpoints.events.messages import decode_chargeback, decode_coupon_result, encode_coupon_request
from rewardpoints.events.order_messages import decode_order
from rewardpoints.events.records import Headers
from tests.events.fakes import NOW, TENANT, redemption
from tests.events.wire import BY_TENANT, MILLISECONDS, FakeRecord, order, order_bytes


def decoded(value: bytes, headers: Headers = BY_TENANT) -> Order:
    result = decode_order(FakeRecord(value, headers))
    assert isinstance(result, Order)
    return result


def event(data: object, **attributes: object) -> bytes:
    envelope = {"specversion": "1.0", "id": "e1", "source": "/orders", "type": "order.completed", **attributes}
    return json.dumps({**envelope, "data": data}).encode()


EXPECTED = Order(
    tenant=TENANT,
    id="O1",
    customer_id="C1",
    site_code="main",
    completed_at=datetime(2026, 5, 1, 11, 59, tzinfo=UTC),
    total_price=Decimal(100),
    sub_total_price=Decimal(90),
    currency="EUR",
)
STRUCTURED = ("content-type", b"application/cloudevents+json; charset=UTF-8")
SPEC = ("ce_specversion", b"1.0")
TENANT_BYTES = TENANT.encode()


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        pytest.param(order_bytes(), BY_TENANT, id="bare, tenant header"),
        pytest.param(order_bytes(tenant=TENANT), (), id="bare, tenant field"),
        pytest.param(order_bytes(tenant=TENANT), BY_TENANT, id="bare, both agree"),
        pytest.param(order_bytes(), (("Tenant", TENANT_BYTES), ("x", b"\xff"), ("y", None)), id="bare, odd headers"),
        pytest.param(order_bytes(), (*BY_TENANT, ("content-type", b"application/json")), id="bare, plain JSON"),
        pytest.param(event(order(), tenant=TENANT), (STRUCTURED,), id="structured, tenant extension"),
        pytest.param(event(order(), tenant=TENANT), (), id="structured, by its body alone"),
        pytest.param(event(order()), (STRUCTURED, *BY_TENANT), id="structured, tenant header"),
        pytest.param(event(order(tenant=TENANT)), (STRUCTURED,), id="structured, tenant in the data"),
        pytest.param(order_bytes(), (SPEC, ("ce_tenant", TENANT_BYTES)), id="binary, tenant extension"),
        pytest.param(order_bytes(), (SPEC, ("ce_id", b"e1"), *BY_TENANT), id="binary, tenant header"),
        pytest.param(order_bytes(tenant=TENANT), (SPEC,), id="binary, tenant field"),
        pytest.param(order_bytes(data={"of": "no event"}), BY_TENANT, id="bare, with a field named data"),
    ],
)
def test_every_form_gives_the_same_order(value: bytes, headers: Headers) -> None:
    assert decoded(value, headers) == EXPECTED


def test_ids_may_be_integers() -> None:
    found = decoded(order_bytes(4711, customer={"id": 42}, siteCode=None))
    assert (found.id, found.customer_id, found.site_code) == ("4711", "42", "main")


@pytest.mark.parametrize("text", ["0.1", "19.90", "100.10000000000000000001", "1e2", "123456789012345678.99"])
def test_money_is_what_was_written(text: str) -> None:
    assert decoded(order_bytes(totalPrice=0).replace(b'"totalPrice": 0', b'"totalPrice": %s' % text.encode())) == (
        replace(EXPECTED, total_price=Decimal(text))
    )


@pytest.mark.parametrize("text", ["19.90", "100", "-0.5", "007"])
def test_money_may_be_a_plain_decimal_text(text: str) -> None:
    assert decoded(order_bytes(totalPrice=text)) == replace(EXPECTED, total_price=Decimal(text))


def test_money_may_be_null_or_left_out() -> None:
    value = order_bytes(totalPrice=None).replace(b'"subTotalPrice": 90, ', b"")
    assert decoded(value) == replace(EXPECTED, total_price=None, sub_total_price=None)


@pytest.mark.parametrize(
    ("changes", "instant"),
    [
        ({"completed": "2025-06-10 12:31:39.614+00:00"}, datetime(2025, 6, 10, 12, 31, 39, 614_000, UTC)),
        ({"completed": "2025-06-10T12:31:39.614999Z"}, datetime(2025, 6, 10, 12, 31, 39, 614_000, UTC)),
        ({"completed": "2025-06-10T14:31:39+02:00"}, datetime(2025, 6, 10, 12, 31, 39, 0, UTC)),
        ({"completed": None, "lastStatusChange": "2025-06-10T12:00:00Z"}, datetime(2025, 6, 10, 12, tzinfo=UTC)),
        ({"completed": None}, NOW),
        ({"completed": (NOW + timedelta(minutes=10)).isoformat()}, NOW + timedelta(minutes=10)),
    ],
)
def test_the_instant_of_an_order(changes: dict[str, Any], instant: datetime) -> None:
    assert decoded(order_bytes(**changes)).completed_at == instant


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (order_bytes(status="CREATED"), SkipReason.STATUS),
        (order_bytes(status="completed"), SkipReason.STATUS),
        (order_bytes(status="CREATED", customer="nobody", id=None, totalPrice="x"), SkipReason.STATUS),
        (event({"status": "SHIPPED", "customer": []}), SkipReason.STATUS),
        (order_bytes(customer=None), SkipReason.ANONYMOUS_CUSTOMER),
        (order_bytes(customer={}), SkipReason.ANONYMOUS_CUSTOMER),
        (order_bytes(customer={"id": "ANONYMOUS"}), SkipReason.ANONYMOUS_CUSTOMER),
    ],
)
def test_what_earns_nothing_is_skipped_before_anything_else_is_judged(value: bytes, reason: SkipReason) -> None:
    assert decode_order(FakeRecord(value, ())) == Skipped(reason)


def _raw(text: str) -> bytes:
    return order_bytes().replace(b'"totalPrice": 100', text.encode())


REJECTED: list[tuple[str, bytes | None, Headers, RejectReason, str]] = [
    ("no value", None, BY_TENANT, RejectReason.MALFORMED, "no value"),
    ("empty", b"", BY_TENANT, RejectReason.MALFORMED, "no value"),
    ("broken", b'{"id": ', BY_TENANT, RejectReason.MALFORMED, "not valid JSON"),
    ("text", b"hello", BY_TENANT, RejectReason.MALFORMED, "not valid JSON"),
    ("array", b"[]", BY_TENANT, RejectReason.INVALID_FIELD, "Expected `object`"),
    ("NaN", _raw('"totalPrice": NaN'), BY_TENANT, RejectReason.MALFORMED, "not valid JSON"),
    ("not UTF-8", order_bytes("O\x01").replace(b"\\u0001", b"\xff"), BY_TENANT, RejectReason.MALFORMED, "UTF-8"),
    ("not UTF-8, ignored", order_bytes(x="A").replace(b'"A"', b'"\xff"'), BY_TENANT, RejectReason.MALFORMED, "UTF-8"),
    ("nested", b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", BY_TENANT, RejectReason.MALFORMED, "nested"),
    ("nested data", event(1)[:-2] + b"[" * 50_000 + b"]" * 50_000 + b"}", (), RejectReason.MALFORMED, "nested"),
    ("lone surrogate", order_bytes("\ud800"), BY_TENANT, RejectReason.MALFORMED, "not valid JSON"),
    ("bool as id", order_bytes(True), BY_TENANT, RejectReason.INVALID_FIELD, "$.id"),
    ("float as id", order_bytes(1.5), BY_TENANT, RejectReason.INVALID_FIELD, "$.id"),
    ("huge integer id", order_bytes().replace(b'"O1"', b"1" * 5000), BY_TENANT, RejectReason.INVALID_FIELD, "$.id"),
    ("no id", order_bytes(None), BY_TENANT, RejectReason.INVALID_ID, "id is missing"),
    ("empty id", order_bytes(""), BY_TENANT, RejectReason.INVALID_ID, "id"),
    ("control in id", order_bytes("a\x00b"), BY_TENANT, RejectReason.INVALID_ID, "control"),
    ("long id", order_bytes("x" * 257), BY_TENANT, RejectReason.INVALID_ID, "256"),
    ("empty customer", order_bytes(customer={"id": ""}), BY_TENANT, RejectReason.INVALID_ID, "customer.id"),
    ("no status", order_bytes(status=None), BY_TENANT, RejectReason.INVALID_FIELD, "status"),
    ("status no text", order_bytes(status=7), BY_TENANT, RejectReason.INVALID_FIELD, "$.status"),
    ("no tenant", order_bytes(), (), RejectReason.MISSING_TENANT, "tenant"),
    ("null tenant", order_bytes(), (("tenant", None),), RejectReason.MISSING_TENANT, "tenant"),
    ("tenant not UTF-8", order_bytes(), (("tenant", b"\xff"),), RejectReason.INVALID_TENANT, "UTF-8"),
    ("reserved tenant", order_bytes(), (("tenant", b"public"),), RejectReason.INVALID_TENANT, "reserved"),
    ("two tenants", order_bytes(tenant="b"), BY_TENANT, RejectReason.INVALID_TENANT, "two"),
    ("two in headers", order_bytes(), (*BY_TENANT, ("ce_tenant", b"b")), RejectReason.INVALID_TENANT, "two"),
    ("amount a bool", _raw('"totalPrice": true'), BY_TENANT, RejectReason.INVALID_FIELD, "$.totalPrice"),
    ("underscore", order_bytes(totalPrice="1_000"), BY_TENANT, RejectReason.INVALID_AMOUNT, "totalPrice"),
    ("whitespace", order_bytes(subTotalPrice=" 90"), BY_TENANT, RejectReason.INVALID_AMOUNT, "subTotalPrice"),
    ("other digits", order_bytes(totalPrice="\u0661"), BY_TENANT, RejectReason.INVALID_AMOUNT, "totalPrice"),
    ("amount no text", order_bytes(totalPrice=""), BY_TENANT, RejectReason.INVALID_AMOUNT, "totalPrice"),
    ("NaN as text", order_bytes(totalPrice="NaN"), BY_TENANT, RejectReason.INVALID_AMOUNT, "totalPrice"),
    ("amount an object", order_bytes(totalPrice={}), BY_TENANT, RejectReason.INVALID_FIELD, "$.totalPrice"),
    ("no time", order_bytes(completed="yesterday"), BY_TENANT, RejectReason.INVALID_TIME, "completed"),
    ("naive time", order_bytes(completed="2026-05-01T11:59:00"), BY_TENANT, RejectReason.INVALID_TIME, "offset"),
    ("future", order_bytes(completed="2026-05-01T12:10:01Z"), BY_TENANT, RejectReason.FUTURE_TIME, "10 minutes"),
    ("structured, no event", order_bytes(), (STRUCTURED,), RejectReason.MALFORMED, "specversion"),
    ("structured, no data", b'{"specversion":"1.0"}', (STRUCTURED,), RejectReason.MALFORMED, "data"),
    ("old CloudEvents", event(order(), specversion="0.3"), BY_TENANT, RejectReason.MALFORMED, "1.0"),
    ("old binary", order_bytes(), (*BY_TENANT, ("ce_specversion", b"0.3")), RejectReason.MALFORMED, "1.0"),
    ("data a text", event("x"), BY_TENANT, RejectReason.INVALID_FIELD, "Expected `object`"),
]


@pytest.mark.parametrize(
    ("value", "headers", "reason", "hint"), [case[1:] for case in REJECTED], ids=[case[0] for case in REJECTED]
)
def test_what_is_wrong_is_rejected_with_a_reason(
    value: bytes | None, headers: Headers, reason: RejectReason, hint: str
) -> None:
    with pytest.raises(RecordRejected) as caught:
        decode_order(FakeRecord(value, headers))
    assert caught.value.reason is reason
    assert hint in caught.value.explanation


@pytest.mark.parametrize("timestamp", [-1, 10**18])
def test_a_record_without_a_usable_timestamp_is_rejected(timestamp: int) -> None:
    with pytest.raises(RecordRejected, match="timestamp"):
        decode_order(FakeRecord(order_bytes(), timestamp=timestamp))


@pytest.mark.parametrize("text", ["1e400", "-1", "1e-400", "1" * 100_000, '"-1"'])
def test_an_unusable_amount_is_decoded_as_it_is_and_refused_by_the_rules(text: str) -> None:
    found = decoded(_raw(f'"totalPrice": {text}'))
    with pytest.raises(RecordRejected) as caught:
        found.value(OrderValueBase.TOTAL_PRICE)
    assert caught.value.reason is RejectReason.INVALID_AMOUNT


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "data", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    changes=st.dictionaries(
        st.sampled_from(["id", "status", "customer", "totalPrice", "completed", "tenant", "specversion", "data"]), _JSON
    ),
    headers=st.lists(
        st.tuples(
            st.sampled_from(["tenant", "ce_tenant", "ce_specversion", "content-type", "x"]),
            st.none() | st.sampled_from([b"acme", b"1.0", b"application/cloudevents+json", b"\xff"]) | st.binary(),
        )
    ),
    cut=st.integers(0, 400),
    timestamp=st.integers(-2, 2**63),
)
def test_decoding_raises_nothing_but_a_rejection(
    changes: dict[str, Any], headers: list[tuple[str, bytes | None]], cut: int, timestamp: int
) -> None:
    value = json.dumps({**order(), **changes}).encode()
    for body in (value, value[:cut]):
        record = FakeRecord(body, tuple(headers), timestamp=timestamp)
        for decode in (decode_order, decode_chargeback, decode_coupon_result):
            with contextlib.suppress(RecordRejected):
                assert decode(record) is not None


def _message(**fields: object) -> bytes:
    return json.dumps({"redemptionId": "r1", **fields}).encode()


def test_a_chargeback() -> None:
    found = decode_chargeback(FakeRecord(_message(tenant=TENANT, customerId=7, reason="a\x00" + "b" * 5000), ()))
    assert (found.redemption_id, found.tenant, found.customer_id, found.at) == ("r1", TENANT, "7", NOW)
    assert found.reason == "a" + "b" * 1999


def test_a_chargeback_in_an_event() -> None:
    found = decode_chargeback(FakeRecord(event({"redemptionId": "r1"}, tenant=TENANT), (STRUCTURED,)))
    assert (found.redemption_id, found.reason, found.customer_id) == ("r1", "", None)


def test_a_coupon_result() -> None:
    found = decode_coupon_result(FakeRecord(_message(status="CREATED")))
    assert (found.redemption_id, found.tenant, found.status, found.at) == ("r1", TENANT, "CREATED", NOW)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"status": "CREATED"}', RejectReason.INVALID_ID),
        (_message(), RejectReason.INVALID_FIELD),
        (b"{", RejectReason.MALFORMED),
    ],
)
def test_a_wrong_coupon_result(value: bytes, reason: RejectReason) -> None:
    with pytest.raises(RecordRejected) as caught:
        decode_coupon_result(FakeRecord(value))
    assert caught.value.reason is reason


def test_a_coupon_request_is_a_cloud_event_with_exact_numbers() -> None:
    message = encode_coupon_request(redemption(), "requests")
    assert message.topic == "requests"
    assert message.key == b"acme/C1"
    assert dict(message.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"r1",
        "ce_source": b"/rewardpoints",
        "ce_type": b"rewardpoints.coupon-creation-requested",
        "ce_time": b"2026-05-01T12:00:00.000+00:00",
        "content-type": b"application/json",
    }
    assert message.value is not None
    assert b'"discountPercentage":10.10' in message.value
    body = json.loads(message.value)
    assert (body["id"], body["code"], body["coupon"]["issuedTo"]) == ("r1", "RP-ABC", "C1")
    assert encode_coupon_request(redemption(), "requests") == message


def test_the_timestamp_of_a_record_is_exact() -> None:
    found = decode_order(FakeRecord(order_bytes(completed=None), timestamp=MILLISECONDS + 591))
    assert isinstance(found, Order)
    assert found.completed_at == NOW + timedelta(milliseconds=591)
