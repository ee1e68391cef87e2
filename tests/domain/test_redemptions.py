from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardpoints.domain.chargebacks import chargeback_lot
from rewardpoints.domain.coupons import ALPHABET, CODE_BYTES, CODE_SYMBOLS, coupon_code, coupon_request
from rewardpoints.domain.lots import LotKind, lot_id
from rewardpoints.domain.redemptions import CouponOrder, Redemption, RedemptionState, fingerprint, redemption_id
from rewardpoints.domain.site_settings import SiteSettings
from tests.domain.builders import ACCOUNT, NOON, a_lot, a_redemption

OPTION = {
    "id": "opt1",
    "type": "coupon",
    "name": "10 Euro",
    "points": 90,
    "version": 1,
    "coupon": {"name": "Gutschein", "discountType": "ABSOLUTE", "code": "READ-ONLY"},
}


def redeemed() -> Redemption:
    plain = a_redemption("r", [(a_lot("a", 50), 50), (a_lot("b", 100), 40)], at=NOON)
    return replace(plain, state=RedemptionState.REQUESTED, coupon=CouponOrder(code="RP-ABC", option=OPTION))


def test_a_coupon_request_carries_the_template_the_code_and_the_customer() -> None:
    redemption = redeemed()
    request = coupon_request(redemption)
    assert request == {
        "id": redemption.id,
        "tenant": "shop",
        "siteCode": "main",
        "customerId": "c1",
        "code": "RP-ABC",
        "points": 90,
        "draws": [{"lot": draw.lot, "points": draw.points} for draw in redemption.draws],
        "option": {"id": "opt1", "type": "coupon", "name": "10 Euro", "points": 90, "version": 1},
        "coupon": {"name": "Gutschein", "discountType": "ABSOLUTE", "code": "RP-ABC", "issuedTo": "c1"},
        "requestedAt": "2025-06-10T12:00:00.000+00:00",
    }
    assert coupon_request(redemption) == request


def test_a_redemption_without_a_coupon_asks_for_none() -> None:
    with pytest.raises(ValueError, match="no coupon"):
        coupon_request(replace(redeemed(), coupon=None))


@given(st.binary(min_size=CODE_BYTES, max_size=CODE_BYTES))
def test_codes_are_easy_to_read(randomness: bytes) -> None:
    prefix, _, symbols = coupon_code("SHOP", randomness).partition("-")
    assert prefix == "SHOP"
    assert len(symbols) == CODE_SYMBOLS
    assert not set(symbols) - set(ALPHABET)
    assert not set(symbols) & set("ILOU")


def test_codes_carry_at_least_64_bits() -> None:
    assert CODE_SYMBOLS * (len(ALPHABET) - 1).bit_length() >= 64
    # each single bit that is used changes the code
    zero = coupon_code("P", bytes(CODE_BYTES))
    flipped = {coupon_code("P", (1 << bit).to_bytes(CODE_BYTES)) for bit in range(CODE_SYMBOLS * 5)}
    assert len(flipped - {zero}) == CODE_SYMBOLS * 5


@pytest.mark.parametrize("length", [0, CODE_BYTES - 1, CODE_BYTES + 1])
def test_codes_want_their_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        coupon_code("P", bytes(length))


def test_a_chargeback_is_a_new_lot_valid_from_its_own_instant() -> None:
    redemption = redeemed()
    at = datetime(2026, 1, 31, 10, tzinfo=UTC)
    lot = chargeback_lot(redemption, SiteSettings(validity_months=1), at=at, recorded_at=at + timedelta(seconds=1))
    assert (lot.points, lot.remaining, lot.kind) == (90, 90, LotKind.CHARGEBACK)
    assert lot.id == lot_id(ACCOUNT, LotKind.CHARGEBACK, redemption.id)
    assert (lot.created_at, lot.valid_until) == (at, datetime(2026, 2, 28, 10, tzinfo=UTC))
    assert lot.description == "Chargeback - redeemed voucher could not be created."
    assert lot.reference_id is None
    assert lot.earned is None


def test_ids_of_redemptions_depend_on_account_and_source() -> None:
    ids = {
        redemption_id(ACCOUNT, "key", "k1"),
        redemption_id(ACCOUNT, "key", "k2"),
        redemption_id(ACCOUNT, "id", "k1"),
        redemption_id(ACCOUNT, "keyk1"),
    }
    assert len(ids) == 4
    assert redemption_id(ACCOUNT, "key", "k1") in ids


def test_fingerprints_ignore_the_order_of_fields_only() -> None:
    first = fingerprint("redeem", "main", {"id": "a", "points": Decimal("1.0")})
    assert first == fingerprint("redeem", "main", {"points": Decimal("1.0"), "id": "a"})
    assert first != fingerprint("redeem", "main", {"id": "b", "points": Decimal("1.0")})
    assert first != fingerprint("redeem", "other", {"id": "a", "points": Decimal("1.0")})
    assert first != fingerprint("add", "main", {"id": "a", "points": Decimal("1.0")})
