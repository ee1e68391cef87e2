"""Explanation: why an account has the balance it has at an instant, and when it expires."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.history import History, in_order
from rewardpoints.domain.lots import Lot, spend_order
from rewardpoints.domain.redemptions import Redemption


class MomentKind(StrEnum):
    """What happened at a moment."""

    ADDED = "added"
    REDEEMED = "redeemed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Something that changed the balance, or could have: by how much, and the balance right after it.

    Its entry is the lot that was added or expired, or the redemption.
    """

    at: datetime
    kind: MomentKind
    entry: Lot | Redemption
    change: int
    balance: int


@dataclass(frozen=True, slots=True)
class DrawTaken:
    """Points that a redemption took of a lot."""

    redemption: Redemption
    points: int


class LotState(StrEnum):
    """What has become of a lot at an instant."""

    OPEN = "open"
    USED_UP = "used_up"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedLot:
    """A lot at an instant: what draws had taken of it by then, oldest first, and what of it had expired."""

    lot: Lot
    state: LotState
    remaining: int
    expired: int
    draws: tuple[DrawTaken, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """Points that expire at one instant unless they are spent before, and the balance then left."""

    at: datetime
    points: int
    balance_after: int
    lots: tuple[Lot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """An account at an instant: its balance, how it came about, what it consists of and when that expires.

    ``timeline`` is in order of time; ``lots`` in the order they are spent, those with points first.
    """

    account: Account
    at: datetime
    balance: int
    timeline: tuple[Moment, ...]
    lots: tuple[ExplainedLot, ...]
    expiries: tuple[Expiry, ...]


def timeline(history: History) -> Iterator[Moment]:
    """Every moment of an account in order of time, those to come included: points expire as if none were spent.

    At one instant points expire first, then lots are added, then redeemed. A lot that was added when it had expired
    already changes nothing.
    """
    remaining: dict[str, int] = {}
    to_expire: list[tuple[datetime, str]] = []
    lots = {lot.id: lot for lot in history.lots}
    balance = 0

    def expire(until: datetime | None) -> Iterator[Moment]:
        nonlocal balance
        while to_expire and (until is None or to_expire[0][0] <= until):
            at, lot_id = heapq.heappop(to_expire)
            points = remaining.pop(lot_id, 0)
            if points:
                balance -= points
                yield Moment(at=at, kind=MomentKind.EXPIRED, entry=lots[lot_id], change=-points, balance=balance)

    for at, _, _, entry in in_order(history.lots, history.redemptions):
        yield from expire(at)
        change = 0
        if isinstance(entry, Lot):
            if entry.is_valid_at(at):
                remaining[entry.id] = change = entry.points
                heapq.heappush(to_expire, (entry.valid_until, entry.id))
        else:
            for draw in entry.draws:
                if draw.lot in remaining:
                    remaining[draw.lot] -= draw.points
                    change -= draw.points
        balance += change
        kind = MomentKind.ADDED if isinstance(entry, Lot) else MomentKind.REDEEMED
        yield Moment(at=at, kind=kind, entry=entry, change=change, balance=balance)
    yield from expire(None)


def explain(history: History, at: datetime) -> Explanation:
    """The account at ``at``, of the past, the present or the time to come, as its entries give it.

    The balance is the history's own, as ``balance_at`` has it; a redemption's state is today's.
    """
    moments = tuple(moment for moment in timeline(history) if moment.at <= at)
    entries = [moment.entry for moment in moments if moment.kind is not MomentKind.EXPIRED]
    draws: dict[str, list[DrawTaken]] = {}
    for entry in entries:
        if isinstance(entry, Redemption):
            for draw in entry.draws:
                draws.setdefault(draw.lot, []).append(DrawTaken(entry, draw.points))
    lots = [_explained(entry, tuple(draws.get(entry.id, ())), at) for entry in entries if isinstance(entry, Lot)]
    lots.sort(key=lambda one: (one.state is not LotState.OPEN, spend_order(one.lot)))
    balance = sum(one.remaining for one in lots)
    return Explanation(
        account=history.account,
        at=at,
        balance=balance,
        timeline=moments,
        lots=tuple(lots),
        expiries=tuple(_expiries(lots, balance)),
    )


def _explained(lot: Lot, draws: tuple[DrawTaken, ...], at: datetime) -> ExplainedLot:
    left = lot.points - sum(draw.points for draw in draws)
    if left == 0:
        return ExplainedLot(lot=lot, state=LotState.USED_UP, remaining=0, expired=0, draws=draws)
    if lot.is_valid_at(at):
        return ExplainedLot(lot=lot, state=LotState.OPEN, remaining=left, expired=0, draws=draws)
    return ExplainedLot(lot=lot, state=LotState.EXPIRED, remaining=0, expired=left, draws=draws)


def _expiries(lots: list[ExplainedLot], balance: int) -> Iterator[Expiry]:
    """``lots`` are in the order they are spent, and that is the order they expire in."""
    at_once: dict[datetime, list[ExplainedLot]] = {}
    for one in lots:
        if one.remaining:
            at_once.setdefault(one.lot.valid_until, []).append(one)
    for at, expiring in at_once.items():
        points = sum(one.remaining for one in expiring)
        balance -= points
        yield Expiry(at=at, points=points, balance_after=balance, lots=tuple(one.lot for one in expiring))
