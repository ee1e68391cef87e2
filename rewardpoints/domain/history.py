"""History: an account's lots and redemptions folded into the balance after each entry and at any instant."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Final, TypeVar

from msgspec import Struct

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.lots import Lot, LotSummary, active_points
from rewardpoints.domain.redemptions import Redemption

AnyLot = TypeVar("AnyLot", bound=LotSummary)


@dataclass(frozen=True, slots=True)
class SummaryHistory:
    """What a summary needs of one account, read in one snapshot."""

    account: Account
    lots: Sequence[LotSummary]
    redemptions: Sequence[Redemption]


@dataclass(frozen=True, slots=True)
class History(SummaryHistory):
    """Everything the ledger holds of one account, read in one snapshot."""

    lots: Sequence[Lot]


class Step(Struct, frozen=True, gc=False):
    """One entry at its place in time, and the active balance right after it."""

    at: datetime
    entry: LotSummary | Redemption
    balance_after: int


class AddedPoints(Struct, frozen=True, gc=False):
    """A lot as a summary shows it; ``used_with``: public ids of the redemptions that drew on it, oldest first."""

    lot: LotSummary
    balance_after: int
    used_with: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RedeemedPoints:
    """A redemption as a summary shows it."""

    redemption: Redemption
    balance_after: int


@dataclass(frozen=True, slots=True)
class Summary:
    """An account's entries, oldest first, and its balance from the same read."""

    account: Account
    active_points: int
    added: tuple[AddedPoints, ...]
    redeemed: tuple[RedeemedPoints, ...]


def fold(lots: Iterable[LotSummary], redemptions: Iterable[Redemption]) -> list[Step]:
    """The entries in order of their instants, each with the active balance right after it.

    A lot stands at its ``created_at``, but never after its first draw: an order that arrived late, or from a clock
    ahead of ours, was there when it was drawn. Points expire at ``valid_until``, before any entry of that instant.
    """
    all_lots = list(lots)
    all_redemptions = list(redemptions)
    entries = in_order(all_lots, all_redemptions)
    remaining: dict[str, int] = {}
    expiries: list[tuple[datetime, str]] = []
    balance = 0
    steps: list[Step] = []
    for at, _, _, entry in entries:
        while expiries and expiries[0][0] <= at:
            _, expired = heapq.heappop(expiries)
            balance -= remaining.pop(expired, 0)
        if isinstance(entry, LotSummary):
            if entry.is_valid_at(at):
                remaining[entry.id] = entry.points
                balance += entry.points
                heapq.heappush(expiries, (entry.valid_until, entry.id))
        else:
            for draw in entry.draws:
                if draw.lot in remaining:
                    remaining[draw.lot] -= draw.points
                    balance -= draw.points
        steps.append(Step(at, entry, balance))
    return steps


def balance_at(lots: Iterable[LotSummary], redemptions: Iterable[Redemption], instant: datetime) -> int:
    """The active balance at ``instant``: what the entries up to it leave of the lots still valid then."""
    all_lots = list(lots)
    left: dict[str, int] = {}
    for at, _, _, entry in in_order(all_lots, list(redemptions)):
        if at > instant:
            break
        if isinstance(entry, LotSummary):
            left[entry.id] = entry.points
        else:
            for draw in entry.draws:
                left[draw.lot] = left.get(draw.lot, 0) - draw.points
    return sum(left.get(lot.id, 0) for lot in all_lots if lot.is_valid_at(instant))


def summarize(history: SummaryHistory, now: datetime) -> Summary:
    """What a customer sees of an account at ``now``."""
    used_with: dict[str, list[str]] = {}
    added: list[tuple[LotSummary, int]] = []
    redeemed: list[RedeemedPoints] = []
    for step in fold(history.lots, history.redemptions):
        if isinstance(step.entry, LotSummary):
            added.append((step.entry, step.balance_after))
        else:
            redeemed.append(RedeemedPoints(step.entry, step.balance_after))
            for draw in step.entry.draws:
                used_with.setdefault(draw.lot, []).append(step.entry.public_id)
    return Summary(
        account=history.account,
        active_points=active_points(history.lots, now),
        added=tuple(AddedPoints(lot, after, tuple(used_with.get(lot.id, ()))) for lot, after in added),
        redeemed=tuple(redeemed),
    )


_PLACE: Final = itemgetter(0, 1, 2)


def in_order(
    lots: Sequence[AnyLot], redemptions: Sequence[Redemption]
) -> list[tuple[datetime, int, str, AnyLot | Redemption]]:
    """The entries at their instants (see ``fold``), sorted: instant, lots before redemptions, id."""
    first_draw: dict[str, datetime] = {}
    for redemption in redemptions:
        for draw in redemption.draws:
            known = first_draw.get(draw.lot)
            if known is None or redemption.created_at < known:
                first_draw[draw.lot] = redemption.created_at
    entries: list[tuple[datetime, int, str, AnyLot | Redemption]] = [
        (min(lot.created_at, first_draw.get(lot.id, lot.created_at)), 0, lot.id, lot) for lot in lots
    ]
    entries += [(redemption.created_at, 1, redemption.id, redemption) for redemption in redemptions]
    entries.sort(key=_PLACE)
    return entries
