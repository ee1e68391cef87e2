"""Orders: the part of an order service's event that earning looks at."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from msgspec import Struct

from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.site_settings import OrderValueBase

COMPLETED_STATUS: Final = "COMPLETED"
ANONYMOUS_CUSTOMER: Final = "ANONYMOUS"
MAX_CLOCK_LEAD: Final = timedelta(minutes=10)
MAX_ORDER_VALUE_DIGITS: Final = 30
MAX_ORDER_VALUE_EXPONENT: Final = 15
MIN_ORDER_VALUE_EXPONENT: Final = -15


class Order(Struct, frozen=True, kw_only=True, gc=False):
    """A completed order of a known customer. Sums are as they were written; ``None`` where the event has none."""

    tenant: str
    id: str
    customer_id: str
    site_code: str
    completed_at: datetime
    total_price: Decimal | None
    sub_total_price: Decimal | None
    currency: str | None

    def value(self, base: OrderValueBase) -> Decimal:
        """The sum that earns.

        Raises:
            RecordRejected: the order has no such sum, or it is negative or beyond any real order's size.
        """
        amount = self.total_price if base is OrderValueBase.TOTAL_PRICE else self.sub_total_price
        if amount is None:
            raise RecordRejected(RejectReason.INVALID_AMOUNT, f"the order has no {base}")
        check_amount(base, amount)
        return amount


def check_amount(name: str, amount: Decimal) -> None:
    """Refuse a sum before any arithmetic is done with it: exponents like 1e400 cost time and memory.

    Raises:
        RecordRejected: not finite, negative, or with too many digits.
    """
    _, digits, exponent = amount.as_tuple()
    if not isinstance(exponent, int):
        raise RecordRejected(RejectReason.INVALID_AMOUNT, f"{name} is not a finite number")
    if (
        len(digits) > MAX_ORDER_VALUE_DIGITS
        or exponent < MIN_ORDER_VALUE_EXPONENT
        or exponent > MAX_ORDER_VALUE_EXPONENT
    ):
        raise RecordRejected(RejectReason.INVALID_AMOUNT, f"{name} has too many digits")
    if amount < 0:
        raise RecordRejected(RejectReason.INVALID_AMOUNT, f"{name} is negative")


def check_not_ahead(completed_at: datetime, recorded_at: datetime) -> None:
    """Refuse an order from the future: it would be judged by settings that are not yet known.

    Raises:
        RecordRejected: ``completed_at`` is more than 10 minutes after the record's own timestamp.
    """
    if completed_at - recorded_at > MAX_CLOCK_LEAD:
        raise RecordRejected(
            RejectReason.FUTURE_TIME,
            f"the order is of {completed_at.isoformat()}, more than 10 minutes after its record",
        )
