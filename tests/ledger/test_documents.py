from dataclasses import fields
from datetime import UTC
from decimal import Decimal
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, structs

from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.redemptions import Redemption, RedemptionState, redemption_from
from rewardpoints.ledger import documents
from tests.altered import altered
from tests.contracts.ledgers import a_version, an_intent, an_option, manual_lot, now, order_lot

STORED: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, tzinfo=UTC)


def stored(document: dict[str, Any]) -> dict[str, Any]:
    """The document as the server gives it back."""
    return bson.decode(bson.encode(document), codec_options=STORED)


def all_fields(value: object) -> dict[str, Any]:
    """Every field, also those that do not count for equality."""
    if isinstance(value, Struct):
        return structs.asdict(value)
    return {field.name: getattr(value, field.name) for field in fields(value)}  # type: ignore[arg-type]  # dataclasses


@pytest.mark.parametrize(
    "lot",
    [
        order_lot("o1", 333),
        order_lot("o1", origin=None, remaining=0),
        manual_lot("m1", reference_id="r"),
        manual_lot("m1", fingerprint=None),
    ],
)
def test_a_lot_survives_storage_whole(lot: Lot) -> None:
    assert all_fields(documents.lot_from(stored(documents.lot_document(lot)))) == all_fields(lot)


def a_redemption(**changes: Any) -> Redemption:
    made = redemption_from(an_intent(5, coupon=True, public_id="shown"), (), now())
    return altered(made, **changes)


@pytest.mark.parametrize(
    "redemption",
    [
        a_redemption(),
        a_redemption(coupon=None, publish_at=None, state=RedemptionState.DONE),
        a_redemption(publish_at=None, state=RedemptionState.CHARGED_BACK),
    ],
)
def test_a_redemption_survives_storage_whole(redemption: Redemption) -> None:
    back = documents.redemption_from(stored(documents.redemption_document(redemption)))
    assert all_fields(back) == all_fields(redemption)


def test_a_request_not_due_has_no_field_for_it() -> None:
    assert "publishAt" not in documents.redemption_document(a_redemption(publish_at=None))
    assert "publishAt" in documents.redemption_document(a_redemption())


def test_a_public_id_is_stored_only_where_it_is_another() -> None:
    assert "publicId" not in documents.lot_document(order_lot("o1"))
    assert documents.lot_document(manual_lot("m1"))["publicId"] == "m1"


def test_options_and_settings_survive_storage() -> None:
    option, version = an_option("a/b"), a_version(3, factor="0.10")
    assert documents.option_from(stored(documents.option_document(option))) == option
    back = documents.settings_from(stored(documents.settings_document(version)))
    assert all_fields(back) == all_fields(version)
    assert str(back.settings.factor) == "0.10"


numbers = st.integers(-(10**18), 10**18) | st.decimals(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(texts, json_values, max_size=5))
def test_json_keeps_every_number_exactly(content: dict[str, Any]) -> None:
    assert documents.from_json(documents.to_json("coupon", content)) == content


@given(texts, texts, texts, texts)
def test_keys_of_different_sites_and_options_differ(tenant: str, name: str, other: str, another: str) -> None:
    for key in (documents.site_key, documents.option_key):
        assert (key(tenant, name) == key(other, another)) == ((tenant, name) == (other, another))


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_broken_unicode_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput, match="option"):
        documents.to_json("option", {"name": [text]})


def test_decimals_are_stored_as_they_were_written() -> None:
    assert documents.to_json("x", {"a": Decimal("1.10"), "b": Decimal("1E+3")}) == '{"a":1.10,"b":1E+3}'


@pytest.mark.parametrize("change", ["kind", "createdAt", "points"])
def test_a_document_with_a_field_missing_is_an_error(change: str) -> None:
    document = documents.lot_document(order_lot("o1"))
    del document[change]
    with pytest.raises(KeyError):
        documents.lot_from(document)


def test_instants_come_back_in_utc() -> None:
    lot = documents.lot_from(stored(documents.lot_document(order_lot("o1"))))
    assert lot.created_at.tzinfo is UTC


def test_settings_that_cannot_be_read_say_why_and_stop_nothing_else() -> None:
    document = documents.settings_document(a_version(1))
    odd = {**document, "content": '{"orderValueToRewardPointsFactor":1,"rounding":"OTHERWISE"}'}
    read = documents.settings_from(odd)
    assert read.problem is not None
    assert "rounding" in read.problem
    assert documents.settings_from(document).problem is None
