"""Coupons: codes, and the request that asks the coupon service for one."""

from typing import Any, Final

from rewardpoints.domain.accounts import customer_of, tenant_of
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.redemptions import Redemption

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's 32 symbols: no I, L, O or U, so that a code survives being read aloud or typed from paper."""

CODE_SYMBOLS: Final = 14
CODE_BYTES: Final = 9
"""Random bytes a code is made of: 72 bits, of which its 14 symbols carry 70."""


def coupon_code(prefix: str, randomness: bytes) -> str:
    """``PREFIX-`` and 14 symbols of ``randomness`` (``CODE_BYTES`` bytes of a cryptographic source)."""
    if len(randomness) != CODE_BYTES:
        raise ValueError(f"a code is made of {CODE_BYTES} bytes")
    number = int.from_bytes(randomness)
    symbols = [ALPHABET[(number >> (5 * place)) & 31] for place in range(CODE_SYMBOLS)]
    return f"{prefix}-{''.join(symbols)}"


def coupon_request(redemption: Redemption) -> dict[str, Any]:
    """The message that asks for a redemption's coupon; the same for the same redemption, however often it is published.

    Raises:
        ValueError: the redemption has no coupon.
    """
    if redemption.coupon is None:
        raise ValueError(f"redemption {redemption.id} asks for no coupon")
    customer_id = customer_of(redemption.account)
    option = dict(redemption.coupon.option)
    template = option.get("coupon") or {}
    return {
        "id": redemption.id,
        "tenant": tenant_of(redemption.account),
        "siteCode": redemption.site_code,
        "customerId": customer_id,
        "code": redemption.coupon.code,
        "points": redemption.points,
        "draws": [{"lot": draw.lot, "points": draw.points} for draw in redemption.draws],
        "option": {name: value for name, value in option.items() if name != "coupon"},
        "coupon": {**template, "code": redemption.coupon.code, "issuedTo": customer_id},
        "requestedAt": format_instant(redemption.created_at),
    }
