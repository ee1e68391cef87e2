"""Orders as a commerce platform writes them: the shape, the times and the sums of two real ones."""

from typing import Any

ONE_LINE_ORDER: dict[str, Any] = {
    "checkout": True,
    "status": "IN_CHECKOUT",
    "entries": [
        {
            "id": "BC10033--BC10033-43",
            "amount": 3,
            "unitPrice": 100,
            "totalPrice": 300,
            "product": {"sku": "8033546091234", "localizedName": {"de": "Schuhe, schwarz", "en": "Shoes, black"}},
            "tax": {"lines": [{"amount": 57, "currency": "EUR", "code": "STANDARD", "rate": 19, "inclusive": False}]},
            "calculatedPrice": {"finalPrice": {"netValue": 300, "grossValue": 357, "taxValue": 57}},
        }
    ],
    "customer": {"id": "61443563", "name": "Test name", "email": "test@example.org"},
    "siteCode": "DE",
    "payments": [{"status": "PENDING", "method": "invoice", "authorizedAmount": 373.12}],
    "shipping": {"total": {"amount": 39.2, "currency": "EUR"}},
    "subTotalPrice": 300,
    "totalPrice": 333.92,
    "totalAuthorizedAmount": 373.12,
    "currency": "EUR",
    "metadata": {"version": 1},
    "calculatedPrice": {"finalPrice": {"netValue": 368.5, "grossValue": 433.72, "taxValue": 65.22}},
    "created": "2025-01-30T13:45:34.406Z",
    "lastStatusChange": "2025-01-30T13:45:34.406Z",
    "id": "EON2076",
}

THREE_LINE_ORDER: dict[str, Any] = {
    "id": "EON1200",
    "createdBy": "45620894",
    "checkout": True,
    "status": "CREATED",
    "lastStatusChange": "2025-06-10 12:31:39.614000+00:00",
    "created": "2025-06-10 12:31:39.614000+00:00",
    "channel": {"name": "storefront"},
    "entries": [
        {"id": "a", "amount": 2, "unitPrice": 110.0, "totalPrice": 220.0, "product": {"name": "Regal, weiß"}},
        {"id": "b", "amount": 1, "unitPrice": 500, "totalPrice": 500, "product": {"name": "Sofa"}},
        {"id": "c", "amount": 4, "unitPrice": 25, "totalPrice": 100, "product": {"name": "Kissen"}},
    ],
    "discounts": [{"id": "d", "amount": 150.171}],
    "customer": {"id": "45620894", "name": "Test name", "email": "test@example.org"},
    "siteCode": "GrossSite",
    "countryCode": "DE",
    "subTotalPrice": 820,
    "totalPrice": 812.79,
    "totalAuthorizedAmount": 534.829,
    "currency": "EUR",
}
