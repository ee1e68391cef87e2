from decimal import Decimal
from typing import Any

import pytest

from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.redeem_options import merged_content, option_content

ABSOLUTE: dict[str, Any] = {
    "name": "Gutschein über 10 Euro",
    "discountType": "ABSOLUTE",
    "discountAbsolute": {"amount": Decimal("10.50"), "currency": "EUR"},
    "allowAnonymous": True,
    "maxRedemptions": 1,
    "status": "VALID",
}
OPTION: dict[str, Any] = {
    "type": "coupon",
    "name": "10 Euro",
    "description": "Für 90 Punkte",
    "points": 90,
    "coupon": ABSOLUTE,
}


def test_a_whole_option_is_kept_as_it_is() -> None:
    assert option_content(OPTION) == OPTION


def test_what_is_not_part_of_an_option_is_left_out() -> None:
    assert option_content({**OPTION, "id": "x", "metadata": {"version": 3}, "other": 1}) == OPTION


def test_unknown_parts_of_the_template_are_kept() -> None:
    coupon = {**ABSOLUTE, "restrictions": {"validFor": ["c1"]}, "custom": {"a": [1]}}
    assert option_content({**OPTION, "coupon": coupon})["coupon"] == coupon


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("type", {"type": None}),
        ("type", {"type": "gift"}),
        ("name", {"name": ""}),
        ("name", {"name": "  "}),
        ("name", {"name": 5}),
        ("name", {"name": "a\x00"}),
        ("description", {"description": 5}),
        ("description", {"description": "\ud800"}),
        ("points", {"points": None}),
        ("points", {"points": 0}),
        ("points", {"points": -5}),
        ("points", {"points": "90"}),
        ("points", {"points": True}),
        ("points", {"points": Decimal("1.5")}),
        ("points", {"points": 1_000_000_001}),
        ("coupon", {"coupon": None}),
        ("coupon", {"coupon": []}),
        ("coupon.name", {"coupon": {**ABSOLUTE, "name": None}}),
        ("coupon.discountType", {"coupon": {"name": "x"}}),
        ("coupon.discountType", {"coupon": {**ABSOLUTE, "discountType": "FREE_SHIPPING"}}),
        ("coupon.discountAbsolute", {"coupon": {**ABSOLUTE, "discountAbsolute": None}}),
        ("coupon.discountAbsolute.amount", {"coupon": {**ABSOLUTE, "discountAbsolute": {"currency": "EUR"}}}),
        (
            "coupon.discountAbsolute.amount",
            {"coupon": {**ABSOLUTE, "discountAbsolute": {"amount": 0, "currency": "EUR"}}},
        ),
        (
            "coupon.discountAbsolute.amount",
            {"coupon": {**ABSOLUTE, "discountAbsolute": {"amount": Decimal("1e400"), "currency": "EUR"}}},
        ),
        (
            "coupon.discountAbsolute.currency",
            {"coupon": {**ABSOLUTE, "discountAbsolute": {"amount": 1, "currency": "EURO"}}},
        ),
        ("coupon.discountPercentage", {"coupon": {"name": "x", "discountType": "PERCENT"}}),
        ("coupon.discountPercentage", {"coupon": {"name": "x", "discountType": "PERCENT", "discountPercentage": 101}}),
        ("coupon.discountPercentage", {"coupon": {"name": "x", "discountType": "PERCENT", "discountPercentage": 0}}),
        ("coupon.allowAnonymous", {"coupon": {**ABSOLUTE, "allowAnonymous": "yes"}}),
        ("coupon.maxRedemptions", {"coupon": {**ABSOLUTE, "maxRedemptions": -2}}),
        ("coupon.status", {"coupon": {**ABSOLUTE, "status": "NEW"}}),
        ("coupon.restrictions", {"coupon": {**ABSOLUTE, "restrictions": "none"}}),
        (
            "coupon.restrictions.minOrderValue.amount",
            {"coupon": {**ABSOLUTE, "restrictions": {"minOrderValue": {"amount": -1, "currency": "EUR"}}}},
        ),
        ("coupon", {"coupon": {**ABSOLUTE, "deep": [[[[[[[[[1]]]]]]]]]}}),
        ("coupon", {"coupon": {**ABSOLUTE, "wide": list(range(600))}}),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        option_content({**OPTION, **change})
    assert refusal.value.field == field


def test_a_part_is_laid_over_what_is_stored() -> None:
    assert merged_content(OPTION, {"points": 120}) == {**OPTION, "points": 120}
    changed = merged_content(OPTION, {"coupon": {"discountAbsolute": {"amount": 5}}})
    assert changed["coupon"]["discountAbsolute"] == {"amount": 5, "currency": "EUR"}
    assert merged_content(OPTION, {"description": None}) == {k: v for k, v in OPTION.items() if k != "description"}


def test_changing_the_discount_type_drops_the_other_types_field() -> None:
    changed = merged_content(OPTION, {"coupon": {"discountType": "PERCENT", "discountPercentage": 10}})
    assert "discountAbsolute" not in changed["coupon"]


def test_a_merge_is_validated_as_a_whole() -> None:
    with pytest.raises(InvalidInput, match="discountPercentage"):
        merged_content(OPTION, {"coupon": {"discountType": "PERCENT"}})
    with pytest.raises(InvalidInput, match="coupon"):
        merged_content(OPTION, {"coupon": None})
