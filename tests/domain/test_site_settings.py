from decimal import Decimal
from typing import Any

import pytest

from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.redeem_options import merge
from rewardpoints.domain.site_settings import OrderValueBase, Rounding, canonical_content, parse_site_settings

FACTOR = "orderValueToRewardPointsFactor"


def test_defaults() -> None:
    settings = parse_site_settings({FACTOR: 1})
    assert settings.enabled
    assert (settings.factor, settings.validity_months, settings.code_prefix) == (Decimal(1), 36, "RP")
    assert (settings.base, settings.rounding, settings.time_zone) == (OrderValueBase.TOTAL_PRICE, Rounding.FLOOR, "UTC")
    assert settings.describe_order("EON1") == "Reward points for order EON1"


def test_every_field_is_read() -> None:
    settings = parse_site_settings(
        {
            "enabled": False,
            FACTOR: Decimal("0.25"),
            "validityInMonths": 12,
            "codePrefix": "LLS",
            "orderValueBase": "subTotalPrice",
            "rounding": "HALF_UP",
            "timeZone": "Europe/Berlin",
            "descriptionTemplate": "Bonuspunkte für Bestellung {orderId}",
            "somethingElse": {"kept": True},
        }
    )
    assert not settings.enabled
    assert (settings.factor, settings.validity_months, settings.code_prefix) == (Decimal("0.25"), 12, "LLS")
    assert (settings.base, settings.rounding) == (OrderValueBase.SUB_TOTAL_PRICE, Rounding.HALF_UP)
    assert str(settings.zone) == "Europe/Berlin"
    assert settings.describe_order("{0}") == "Bonuspunkte für Bestellung {0}"


def test_older_field_names_mean_the_same() -> None:
    settings = parse_site_settings({"enable": False, "couponPrefix": "OLD", FACTOR: 1})
    assert (settings.enabled, settings.code_prefix) == (False, "OLD")


def test_an_older_name_in_a_patch_is_not_hidden_by_todays() -> None:
    stored = canonical_content({"enabled": True, FACTOR: 1})
    patched = merge(stored, canonical_content({"enable": False}))
    assert not parse_site_settings(patched).enabled


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (FACTOR, None),
        (FACTOR, "1"),
        (FACTOR, True),
        (FACTOR, Decimal(-1)),
        (FACTOR, Decimal("1e400")),
        (FACTOR, Decimal("1e-400")),
        (FACTOR, Decimal("NaN")),
        (FACTOR, 1_000_001),
        ("enabled", "true"),
        ("enabled", 1),
        ("validityInMonths", 0),
        ("validityInMonths", 1201),
        ("validityInMonths", True),
        ("validityInMonths", Decimal("1.5")),
        ("codePrefix", ""),
        ("codePrefix", "a b"),
        ("codePrefix", "--"),
        ("codePrefix", "ü"),
        ("codePrefix", "A" * 33),
        ("codePrefix", 5),
        ("orderValueBase", "grandTotal"),
        ("orderValueBase", []),
        ("rounding", "UP"),
        ("timeZone", "Mars/Olympus"),
        ("timeZone", "../etc/passwd"),
        ("timeZone", 1),
        ("timeZone", "localtime"),
        ("timeZone", "posix/UTC"),
        ("descriptionTemplate", ""),
        ("descriptionTemplate", "{"),
        ("descriptionTemplate", "{orderId.__class__}"),
        ("descriptionTemplate", "{orderId!r}"),
        ("descriptionTemplate", "{orderId:>999999999}"),
        ("descriptionTemplate", "{other}"),
        ("descriptionTemplate", "{}"),
        ("descriptionTemplate", "a" * 501),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_site_settings({FACTOR: 1, field: value})
    assert refusal.value.field == field


def test_names_that_disagree_are_refused() -> None:
    with pytest.raises(InvalidInput, match="disagrees"):
        canonical_content({"enable": True, "enabled": False})
    assert canonical_content({"enable": True, "enabled": True}) == {"enabled": True}


@pytest.mark.parametrize(
    "template", ["{orderId}", "Order {orderId}", "{{{orderId}}} and {orderId}!", "none", "{{}}", "a}}{{b"]
)
def test_a_description_is_what_the_template_says(template: str) -> None:
    settings = parse_site_settings({"orderValueToRewardPointsFactor": 1, "descriptionTemplate": template})
    for order_id in ("EON1", "{orderId}", "", "{{x}}"):
        assert settings.describe_order(order_id) == template.format(orderId=order_id)
