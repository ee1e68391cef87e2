"""Verify: what must hold in the ledger whatever happened, checked account by account."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

from rewardpoints.domain.accounts import Account, tenant_range
from rewardpoints.domain.history import balance_at
from rewardpoints.domain.lots import Lot, LotKind, active_points, lot_id
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.redemptions import Redemption, RedemptionState
from rewardpoints.ledger.account_pages import AccountPages, Entries
from rewardpoints.ledger.documents import lot_from, redemption_from
from rewardpoints.ledger.driver import Database
from rewardpoints.ledger.tombstones import TombstoneCache, Tombstones

_EVERY_ACCOUNT: Final = ("", "\U0010ffff")


async def violations(
    database: Database, clock: Clock, *, tenant: str | None = None, pages: AccountPages | None = None
) -> AsyncIterator[str]:
    """Each broken invariant as one line that names the account and the entry; nothing where all hold.

    Every account is judged by one snapshot, so it may run beside the service. What only Kafka knows (whether a request
    was published, whether an order is missing) is not checked here. An account being erased at this moment may be
    reported; it is gone in the next run.

    Raises:
        LedgerUnavailable: at any step.
    """
    tombstones = TombstoneCache(Tombstones(database))
    await tombstones.refresh()
    accounts = tenant_range(tenant) if tenant is not None else _EVERY_ACCOUNT
    async with aclosing((pages or AccountPages(database)).entries(accounts)) as walk:
        async for entries in walk:
            for problem in account_violations(entries, tombstones.erased_at(Account(entries.account)), clock()):
                yield f"{entries.account}: {problem}"


def account_violations(entries: Entries, erased_at: datetime | None, now: datetime) -> Iterator[str]:
    """The broken invariants of one account, by its documents as they are stored."""
    try:
        lots = [lot_from(document) for document in entries.lots]
        redemptions = [redemption_from(document) for document in entries.redemptions]
    except (KeyError, ValueError, TypeError, ArithmeticError) as error:
        yield f"an entry cannot be read: {error!r}"
        return
    yield from _lots(entries.lots, lots, redemptions)
    for document, redemption in zip(entries.redemptions, redemptions, strict=True):
        yield from _redemption(document, redemption)
    yield from _balance(lots, redemptions, now)
    yield from _identities(lots, redemptions)
    if erased_at is not None:
        yield from _survivors(lots, redemptions, erased_at)


def _lots(
    documents: Sequence[Mapping[str, Any]], lots: Sequence[Lot], redemptions: Sequence[Redemption]
) -> Iterator[str]:
    drawn: Counter[str] = Counter()
    for redemption in redemptions:
        for draw in redemption.draws:
            drawn[draw.lot] += draw.points
    for document, lot in zip(documents, lots, strict=True):
        if not 0 <= lot.remaining <= lot.points:
            yield f"lot {lot.id}: {lot.remaining} of {lot.points} points remain"
        if document["open"] is not lot.open:
            yield f"lot {lot.id}: open is {document['open']} with {lot.remaining} points remaining"
        if drawn[lot.id] != lot.used:
            yield f"lot {lot.id}: {lot.used} points used, but its draws are {drawn[lot.id]}"
    for missing in drawn.keys() - {lot.id for lot in lots}:
        yield f"lot {missing}: was drawn on, but does not exist"


def _redemption(document: Mapping[str, Any], redemption: Redemption) -> Iterator[str]:
    name = f"redemption {redemption.id}"
    total = sum(draw.points for draw in redemption.draws)
    if total != redemption.points:
        yield f"{name}: {redemption.points} points, but its draws are {total}"
    if any(draw.points <= 0 for draw in redemption.draws):
        yield f"{name}: a draw takes no points"
    if len({draw.lot for draw in redemption.draws}) != len(redemption.draws):
        yield f"{name}: draws on one lot twice"
    if (redemption.coupon is None) != (redemption.state is RedemptionState.DONE):
        yield f"{name}: is {redemption.state.value} {'with' if redemption.coupon else 'without'} a coupon"
    if redemption.publish_at is not None and redemption.state is not RedemptionState.REQUESTED:
        yield f"{name}: is {redemption.state.value}, but its coupon request is due"
    answered = {RedemptionState.ISSUED: "issuedAt", RedemptionState.CHARGED_BACK: "chargedBackAt"}
    for state, when in answered.items():
        if (when in document) != (redemption.state is state):
            yield f"{name}: is {redemption.state.value}, {when} is {'' if when in document else 'not '}set"


def _balance(lots: Sequence[Lot], redemptions: Sequence[Redemption], now: datetime) -> Iterator[str]:
    # Not before the last entry: clocks differ, and the fold leaves out what is yet to come
    instant = max(now, *(lot.created_at for lot in lots), *(redemption.created_at for redemption in redemptions))
    folded, stored = balance_at(lots, redemptions, instant), active_points(lots, instant)
    if folded != stored:
        yield f"the balance is {stored}, but the history gives {folded}"


def _identities(lots: Sequence[Lot], redemptions: Sequence[Redemption]) -> Iterator[str]:
    states = {redemption.id: redemption for redemption in redemptions}
    charged_back = {lot.source_id: lot for lot in lots if lot.kind is LotKind.CHARGEBACK}
    for lot in lots:
        if lot.id != lot_id(lot.account, lot.kind, lot.source_id):
            yield f"lot {lot.id}: is not the one of {lot.kind.value} {lot.source_id!r}"
    for redemption_id, lot in charged_back.items():
        source = states.get(redemption_id)
        if source is None or source.state is not RedemptionState.CHARGED_BACK:
            yield f"lot {lot.id}: gives back redemption {redemption_id}, which is not charged back"
        elif source.points != lot.points:
            yield f"lot {lot.id}: gives back {lot.points} of {source.points} points"
    for redemption in redemptions:
        if redemption.state is RedemptionState.CHARGED_BACK and redemption.id not in charged_back:
            yield f"redemption {redemption.id}: is charged back, but its points were not given back"


def _survivors(lots: Sequence[Lot], redemptions: Sequence[Redemption], erased_at: datetime) -> Iterator[str]:
    for lot in lots:
        # An order is as old as itself; what was given by hand or given back is as old as its entry here
        recorded = lot.created_at if lot.kind is LotKind.ORDER else lot.recorded_at
        if recorded <= erased_at:
            yield f"lot {lot.id}: is from before the customer was erased"
    for redemption in redemptions:
        if redemption.created_at <= erased_at:
            yield f"redemption {redemption.id}: is from before the customer was erased"
