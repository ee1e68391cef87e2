"""Bugs to plant in the product, each a mistake somebody could make. A simulation blind to them proves nothing."""

import dataclasses
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from pymongo.errors import BulkWriteError

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.errors import LedgerBusy, LedgerUnavailable
from rewardpoints.domain.lots import Draw, Lot, LotSummary
from rewardpoints.domain.redemptions import Redemption, RedemptionIntent
from rewardpoints.events.dead_letters import DeadLetters, Rejection
from rewardpoints.events.order_consumer import OrderConsumer
from rewardpoints.events.raw_subscriber import RawSubscriber
from rewardpoints.events.records import Record
from rewardpoints.events.relay import CouponRequestPublisher
from rewardpoints.ledger import redemptions, spending
from rewardpoints.ledger.accounts import Accounts
from rewardpoints.ledger.documents import lot_document
from rewardpoints.ledger.driver import Document, driver_errors
from rewardpoints.ledger.redemptions import Redemptions
from rewardpoints.ledger.spending import Spending
from rewardpoints.ledger.tombstones import Look
from tests.simulation.collection import SimulatedCollection

Mutant = Callable[[pytest.MonkeyPatch], None]


def reads_outside_the_transaction(patch: pytest.MonkeyPatch) -> None:
    """A redemption looks at the lots without the transaction's session."""
    original = SimulatedCollection.find

    def find(self: SimulatedCollection, condition: Any, projection: Any = None, *, session: Any = None) -> Any:
        return original(self, condition, projection, session=None if self.name in ("lots", "redemptions") else session)

    patch.setattr(SimulatedCollection, "find", find)


def draw_without_condition(patch: pytest.MonkeyPatch) -> None:
    """A draw writes what it computed whatever the lot has become; reads outside its snapshot make that matter."""
    reads_outside_the_transaction(patch)

    def update(account: Account, lot: LotSummary, draw: Draw) -> tuple[Document, Document]:
        left = lot.remaining - draw.points
        return {"_id": lot.id, "account": account}, {"$set": {"remaining": left, "open": left > 0}}

    patch.setattr(spending, "_update", update)


def commit_before_write(patch: pytest.MonkeyPatch) -> None:
    """Offsets are committed when a batch is taken, not when it is in the ledger."""
    handled = RawSubscriber._handled

    async def early(self: RawSubscriber, records: Sequence[Record]) -> bool:
        await self._commits.begin(self._consumer, records)
        await self._commits.settled()
        return await handled(self, records)

    patch.setattr(RawSubscriber, "_handled", early)


def published_before_ack(patch: pytest.MonkeyPatch) -> None:
    """A coupon request is cleared before the broker has it."""
    publish = CouponRequestPublisher.publish

    async def early(self: CouponRequestPublisher, due: Sequence[Redemption]) -> int:
        for redemption in due:
            await self._redemptions.mark_published(redemption.id)
        return await publish(self, due)

    patch.setattr(CouponRequestPublisher, "publish", early)


def id_inside_the_transaction(patch: pytest.MonkeyPatch) -> None:
    """Each attempt at a redemption makes an id of its own."""
    spend = Spending._spend

    async def fresh(self: Spending, intent: RedemptionIntent, session: Any) -> Any:
        return await spend(self, dataclasses.replace(intent, id=secrets.token_hex(32)), session)

    patch.setattr(Spending, "_spend", fresh)


def _without_late_looks(patch: pytest.MonkeyPatch) -> None:
    """The looks at erasures some time later mend what a planted bug leaves: here that is to be seen."""

    async def look(self: Accounts, look: Look) -> None:
        if look.unfinished:
            await self.erase(look.tombstone.account)
        else:
            await self._tombstones.settle(look.tombstone)

    patch.setattr(Accounts, "_look_again", look)


def tombstones_before_insert_only(patch: pytest.MonkeyPatch) -> None:
    """A batch looks for erased customers before it inserts, and not after."""
    handle = OrderConsumer.handle

    async def early(self: OrderConsumer, records: Sequence[Record]) -> None:
        await self._tombstones.refresh()
        await handle(self, records)

    async def nothing(_: OrderConsumer, __: Sequence[Lot]) -> int:
        return 0

    _without_late_looks(patch)
    patch.setattr(OrderConsumer, "handle", early)
    patch.setattr(OrderConsumer, "_remove", nothing)


def chargeback_in_any_state(patch: pytest.MonkeyPatch) -> None:
    """A redemption is charged back, or issued, whatever its state."""
    patch.setattr(redemptions, "_requested", redemptions._key)


def unknown_commit_is_a_failure(patch: pytest.MonkeyPatch) -> None:
    """Where nobody said whether a commit happened, nothing is looked up and nothing is said to have changed."""

    async def give_up(_: Spending, __: RedemptionIntent, ___: Exception) -> Any:
        raise LedgerBusy("try again")

    patch.setattr(Spending, "_find_out", give_up)


def erase_without_second_look(patch: pytest.MonkeyPatch) -> None:
    """An erasure deletes what it finds once."""

    async def erase(self: Accounts, account: Account) -> None:
        erased_at = await self._tombstones.write(account)
        with driver_errors(writing=True):
            await self._guard(account)
            await self._delete_all(self._database.lots, account)
            await self._delete_all(self._database.redemptions, account)
        await self._tombstones.finish(account, erased_at)

    _without_late_looks(patch)
    patch.setattr(Accounts, "erase", erase)


def one_tombstone_for_a_long_erasure(patch: pytest.MonkeyPatch) -> None:
    """An erasure deletes until nothing is left, also what is newer than its tombstone."""

    async def erase(self: Accounts, account: Account) -> None:
        erased_at = await self._tombstones.write(account)
        with driver_errors(writing=True):
            await self._guard(account)
            while await self._exists(account):
                await self._delete_all(self._database.redemptions, account)
                await self._delete_all(self._database.lots, account)
        await self._tombstones.finish(account, erased_at)

    patch.setattr(Accounts, "erase", erase)


def batch_stops_at_a_duplicate(patch: pytest.MonkeyPatch) -> None:
    """A batch is inserted in order: what follows a duplicate is not, and nobody notices."""
    insert_many = SimulatedCollection.insert_many

    async def in_order(self: SimulatedCollection, documents: Any, *, ordered: bool) -> None:
        del ordered
        try:
            await insert_many(self, documents, ordered=True)
        except BulkWriteError as error:
            raise error from None

    patch.setattr(SimulatedCollection, "insert_many", in_order)


def chargeback_in_two_writes(patch: pytest.MonkeyPatch) -> None:
    """The state of a chargeback and its lot are written one after the other."""

    async def charge_back(self: Redemptions, redemption: Redemption, lot: Lot, *, reason: str) -> bool:
        update = {
            "$set": {"state": "charged_back", "chargedBackAt": lot.created_at, "chargebackReason": reason},
            "$unset": {"publishAt": ""},
        }
        changed = await self._redemptions.update_one(redemptions._requested(redemption), update)
        if not changed.matched_count:
            return False
        await self._database.lots.insert_one(lot_document(lot))
        return True

    patch.setattr(Redemptions, "charge_back", charge_back)


def outage_swallowed(patch: pytest.MonkeyPatch) -> None:
    """A batch that the ledger could not take is passed over."""
    handle = OrderConsumer.handle

    async def careless(self: OrderConsumer, records: Sequence[Record]) -> None:
        try:
            await handle(self, records)
        except LedgerUnavailable:
            return

    patch.setattr(OrderConsumer, "handle", careless)


def dead_letter_dropped(patch: pytest.MonkeyPatch) -> None:
    """A dead letter that cannot be published is let go."""
    publish_all = DeadLetters.publish_all

    async def careless(self: DeadLetters, rejections: list[Rejection]) -> None:
        try:
            await publish_all(self, rejections)
        except KafkaError:
            return

    patch.setattr(DeadLetters, "publish_all", careless)


MUTANTS: dict[str, Mutant] = {
    mutant.__name__: mutant
    for mutant in (
        draw_without_condition,
        commit_before_write,
        published_before_ack,
        id_inside_the_transaction,
        tombstones_before_insert_only,
        chargeback_in_any_state,
        unknown_commit_is_a_failure,
        erase_without_second_look,
        one_tombstone_for_a_long_erasure,
        batch_stops_at_a_duplicate,
        chargeback_in_two_writes,
        outage_swallowed,
        dead_letter_dropped,
    )
}
