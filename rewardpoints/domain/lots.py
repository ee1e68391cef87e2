"""Lots: grants of points, and the draws that spend them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from operator import attrgetter
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from rewardpoints.domain.accounts import Account, entry_id
from rewardpoints.domain.errors import TooFewPoints, TooManyLots

MAX_POINTS: Final = 1_000_000_000
"""Most points of one lot or one redemption."""

MAX_LOTS_PER_REDEMPTION: Final = 1000


class LotKind(StrEnum):
    """What granted a lot."""

    ORDER = "order"
    MANUAL = "manual"
    OPENING = "opening"
    CHARGEBACK = "chargeback"


class Earned(Struct, frozen=True, kw_only=True, gc=False):
    """Why an order's lot has its points: ``points = rounding(value x factor)`` by one settings version."""

    rule: str
    base: str
    factor: Decimal
    value: Decimal
    currency: str | None
    settings_version: int


class Origin(Struct, frozen=True, kw_only=True, gc=False):
    """The Kafka record a lot came from. Kept for explaining, never compared.

    ``replay`` is the id of the replay that added the lot; None where a worker did.
    """

    topic: str
    partition: int
    offset: int
    replay: str | None = None


class LotSummary(Struct, frozen=True, kw_only=True, gc=False):
    """What a summary shows of a lot; reading no more than this is half the price for an account of many lots."""

    id: str
    public_id: str
    reference_id: str | None
    description: str
    points: int
    remaining: int
    created_at: datetime
    valid_until: datetime

    @property
    def used(self) -> int:
        """Points drawn so far."""
        return self.points - self.remaining

    @property
    def open(self) -> bool:
        """Whether points remain, expired or not."""
        return self.remaining > 0

    def is_valid_at(self, instant: datetime) -> bool:
        """Whether its points can be spent at ``instant``; at ``valid_until`` itself they no longer can."""
        return self.valid_until > instant


class Lot(LotSummary, frozen=True, kw_only=True, eq=False, gc=False):
    """One grant of points. ``points - remaining`` is what draws have taken; it is open while points remain.

    ``source_id`` names what granted it within its kind (the order, the redemption charged back, the caller's id);
    ``public_id`` is the id clients see. ``recorded_at`` is when the ledger took it, ``created_at`` when it was earned.
    Two are equal whatever ``recorded_at``, ``origin`` and ``fingerprint`` say.
    """

    account: Account
    kind: LotKind
    source_id: str
    site_code: str
    recorded_at: datetime
    earned: Earned | None = None
    origin: Origin | None = None
    fingerprint: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lot) and _compared(self) == _compared(other)

    def __ne__(self, other: object) -> bool:
        return not self == other  # the Struct's own asks nobody

    def __hash__(self) -> int:
        return hash(self.id)

    def same_grant(self, other: "Lot") -> bool:
        """Whether both grant the same: points, instants, rule and settings version; not where they came from."""
        return (self.points, self.created_at, self.valid_until, self.earned and _rule(self.earned)) == (
            other.points,
            other.created_at,
            other.valid_until,
            other.earned and _rule(other.earned),
        )


_compared: Final = attrgetter(
    *("id", "account", "kind", "source_id", "public_id", "reference_id", "description", "points", "remaining"),
    *("created_at", "valid_until", "site_code", "earned"),
)


def _rule(earned: Earned) -> tuple[str, int]:
    return earned.rule, earned.settings_version


@dataclass(frozen=True, slots=True)
class Draw:
    """Points one redemption took from one lot."""

    lot: str
    points: int


def lot_id(account: Account, kind: LotKind, source_id: str) -> str:
    """The id of the one lot that ``source_id`` may grant to the account."""
    return entry_id(account, kind, source_id)


def spend_order(lot: LotSummary) -> tuple[datetime, datetime, str]:
    """Sort key: the points that expire first are spent first."""
    return lot.valid_until, lot.created_at, lot.id


def active_points(lots: Iterable[LotSummary], now: datetime) -> int:
    """The balance: what remains of the lots still valid at ``now``."""
    return sum(lot.remaining for lot in lots if lot.is_valid_at(now))


def plan_draws(lots: Sequence[LotSummary], points: int, now: datetime) -> tuple[Draw, ...]:
    """The draws that take ``points`` (> 0) from the lots valid at ``now``, earliest expiry first.

    Raises:
        TooFewPoints: they do not cover it.
        TooManyLots: more than ``MAX_LOTS_PER_REDEMPTION`` lots would be drawn.
    """
    if points <= 0:
        raise ValueError("a redemption draws at least one point")
    draws: list[Draw] = []
    missing = points
    for lot in sorted((lot for lot in lots if lot.open and lot.is_valid_at(now)), key=spend_order):
        taken = min(lot.remaining, missing)
        draws.append(Draw(lot.id, taken))
        missing -= taken
        if missing == 0:
            break
    if missing:
        raise TooFewPoints(wanted=points, available=points - missing)
    if len(draws) > MAX_LOTS_PER_REDEMPTION:
        raise TooManyLots(f"{len(draws)} lots would be drawn, {MAX_LOTS_PER_REDEMPTION} may be")
    return tuple(draws)


def drawn(lot: Lot, draw: Draw) -> Lot:
    """The lot after the draw.

    Raises:
        ValueError: the draw is of another lot, or takes more than remains.
    """
    if draw.lot != lot.id or not 0 < draw.points <= lot.remaining:
        raise ValueError(f"{draw} cannot be taken from lot {lot.id} with {lot.remaining} remaining")
    return replace(lot, remaining=lot.remaining - draw.points)
