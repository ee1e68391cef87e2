"""Sample data of the trial environment: a site, two redeem options, and orders as an order service writes them."""

import json
import random
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

TENANT: Final = "demo"
SITE_CODE: Final = "main"
CUSTOMER: Final = "C1001"
TENANT_HEADER: Final = (("tenant", TENANT.encode()),)

SITE_SETTINGS: Final[dict[str, Any]] = {
    "enabled": True,
    "orderValueToRewardPointsFactor": 1,
    "validityInMonths": 36,
    "codePrefix": "DEMO",
}

REDEEM_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "voucher-5-euro": {
        "type": "coupon",
        "name": "5 Euro voucher",
        "description": "A voucher over 5 Euro for 100 points. You may pass it on to friends.",
        "points": 100,
        "coupon": {
            "name": "5 Euro voucher (redeemed points)",
            "discountType": "ABSOLUTE",
            "discountAbsolute": {"amount": 5, "currency": "EUR"},
            "allowAnonymous": True,
            "maxRedemptions": 1,
            "status": "VALID",
        },
    },
    "discount-10-percent": {
        "type": "coupon",
        "name": "10 percent off",
        "description": "10 percent off one order for 250 points.",
        "points": 250,
        "coupon": {
            "name": "10 percent off (redeemed points)",
            "discountType": "PERCENT",
            "discountPercentage": 10,
            "maxRedemptions": 1,
            "maxRedemptionsPerCustomer": 1,
            "status": "VALID",
        },
    },
}

_PRODUCTS: Final = (
    ("8033546091234", "Safety shoes, black", Decimal("119.00")),
    ("4006381333931", "Pencil set, 12 colours", Decimal("14.95")),
    ("5901234123457", "Espresso beans, 1 kg", Decimal("21.49")),
    ("9780201379624", "Field guide to garden birds", Decimal("34.00")),
    ("4056489123453", "LED desk lamp", Decimal("49.90")),
)


@dataclass(frozen=True, slots=True)
class SampleOrder:
    """One order-completed record: its key and value as bytes, and what a correct ledger grants for it (factor 1)."""

    key: bytes
    value: bytes
    customer_id: str
    points: int


def sample_order(order_id: str, customer_id: str, *, completed: datetime, seed: int = 0) -> SampleOrder:
    """A completed order of one to four lines, the same for the same arguments."""
    chance = random.Random(f"{order_id}/{seed}")  # noqa: S311 - sample data, nothing secret
    lines = [(*chance.choice(_PRODUCTS), chance.randint(1, 3)) for _ in range(chance.randint(1, 4))]
    goods = sum((price * amount for _, _, price, amount in lines), Decimal(0))
    shipping = Decimal("4.90")
    address = {"contactName": "Sample Customer", "street": "Sample Street", "zipCode": "70173", "country": "DE"}
    order = {
        "id": order_id,
        "status": "COMPLETED",
        "checkout": True,
        "entries": [
            {
                "id": f"{order_id}-{position}",
                "product": {"sku": sku, "name": name, "published": True, "productType": "BASIC"},
                "amount": amount,
                "unitPrice": str(price),
                "totalPrice": str(price * amount),
                "tax": {"lines": [{"code": "STANDARD", "rate": 19, "inclusive": True}]},
            }
            for position, (sku, name, price, amount) in enumerate(lines)
        ],
        "customer": {"id": customer_id, "name": "Sample Customer", "email": "sample@example.org"},
        "siteCode": SITE_CODE,
        "billingAddress": address,
        "shippingAddress": address,
        "payments": [{"status": "PAID", "method": "invoice", "currency": "EUR"}],
        "shipping": {"total": {"amount": str(shipping), "currency": "EUR"}},
        "subTotalPrice": float(goods),  # two decimals: the shortest form of the float is the sum itself
        "totalPrice": float(goods + shipping),
        "currency": "EUR",
        "created": completed.isoformat(),
        "completed": completed.isoformat(),
        "lastStatusChange": completed.isoformat(),
    }
    return SampleOrder(order_id.encode(), json.dumps(order).encode(), customer_id, int(goods + shipping))
