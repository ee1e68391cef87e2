"""The lots of orders in the order of their ids, for comparing all of them with something else in that order."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from rewardpoints.domain.lots import Lot, LotKind
from rewardpoints.ledger.documents import lot_from
from rewardpoints.ledger.driver import Database, driver_errors

LOTS_PER_READ: Final = 2000


async def order_lots(database: Database) -> AsyncGenerator[Sequence[Lot]]:
    """Every lot of an order, in the order of their ids, some thousand at a time.

    Not one snapshot: a lot that is added while it reads may be left out.

    Raises:
        LedgerUnavailable: at any step.
    """
    wanted: dict[str, Any] = {}
    while True:
        with driver_errors():
            found = await database.lots.find(wanted).sort("_id", 1).limit(LOTS_PER_READ).to_list(None)
        lots = [lot_from(document) for document in found if document["kind"] == LotKind.ORDER.value]
        if lots:
            yield lots
        if len(found) < LOTS_PER_READ:
            return
        wanted = {"_id": {"$gt": found[-1]["_id"]}}
