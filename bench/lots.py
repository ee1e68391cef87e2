"""Lots put into a ledger before anybody is timed."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice

from rewardpoints.domain.accounts import Account, account_of
from rewardpoints.domain.lots import Earned, Lot, LotKind, Origin, lot_id
from rewardpoints.ledger.documents import lot_document
from rewardpoints.ledger.ledger import Ledger
from tests.e2e.stack import TENANT

INSERTED_AT_ONCE = 1_000
VALID_FOR = timedelta(days=3 * 365)


def account(customer_id: str) -> Account:
    """A customer's account."""
    return account_of(TENANT, customer_id)


def an_order_lot(
    owner: Account, order_id: str, at: datetime, *, points: int = 119, remaining: int | None = None
) -> Lot:
    """A lot as an order leaves it, with everything that explains it."""
    identity = lot_id(owner, LotKind.ORDER, order_id)
    return Lot(
        id=identity,
        account=owner,
        kind=LotKind.ORDER,
        source_id=order_id,
        public_id=identity,
        reference_id=order_id,
        description=f"Reward points for order {order_id}",
        points=points,
        remaining=points if remaining is None else remaining,
        created_at=at,
        valid_until=at + VALID_FOR,
        site_code="main",
        recorded_at=at,
        earned=Earned(
            rule="order-value",
            base="totalPrice",
            factor=Decimal(1),
            value=Decimal("119.95"),
            currency="EUR",
            settings_version=1,
        ),
        origin=Origin(topic="order-completed", partition=0, offset=1),
    )


def customer_lots(customer_id: str, count: int, at: datetime, *, open_lots: int | None = None) -> Iterator[Lot]:
    """Lots of one customer, a minute apart; the last ``open_lots`` of them (all by default) have their points left."""
    owner, spent = account(customer_id), count - (count if open_lots is None else open_lots)
    for number in range(count):
        remaining = 0 if number < spent else None
        instant = at - timedelta(minutes=count - number)
        yield an_order_lot(owner, f"{customer_id}-{number}", instant, remaining=remaining)


async def insert(ledger: Ledger, lots: Iterable[Lot]) -> int:
    """Insert lots, a thousand at once; returns how many."""
    waiting, count = iter(lots), 0
    while chunk := [lot_document(lot) for lot in islice(waiting, INSERTED_AT_ONCE)]:
        await ledger.database.lots.insert_many(chunk, ordered=False)
        count += len(chunk)
    return count
