"""Differences: the lot that stands and the one its order would earn now, side by side, and why they differ."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.lots import Lot, Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class LotFacts:
    """What of a lot is compared, and what it follows from. Nothing of it names the customer."""

    points: int
    created_at: datetime
    valid_until: datetime
    rule: str | None
    settings_version: int | None
    base: str | None
    factor: Decimal | None
    value: Decimal | None
    currency: str | None
    origin: Origin | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A lot that stands and grants something else than the derivation of the same order; ``lot`` is their id.

    ``account`` and ``order_id`` are there where the difference is shown as it is found; they are not stored.
    """

    lot: str
    stored: LotFacts
    derived: LotFacts
    reasons: tuple[str, ...]
    account: str | None = None
    order_id: str | None = None


def facts_of(lot: Lot) -> LotFacts:
    """The facts of a lot."""
    earned = lot.earned
    return LotFacts(
        points=lot.points,
        created_at=lot.created_at,
        valid_until=lot.valid_until,
        rule=earned.rule if earned else None,
        settings_version=earned.settings_version if earned else None,
        base=earned.base if earned else None,
        factor=earned.factor if earned else None,
        value=earned.value if earned else None,
        currency=earned.currency if earned else None,
        origin=lot.origin,
    )


def difference(stored: Lot, derived: Lot) -> Difference:
    """How two lots of one order differ; call it where ``same_grant`` says that they do."""
    left, right = facts_of(stored), facts_of(derived)
    return Difference(
        lot=stored.id,
        stored=left,
        derived=right,
        reasons=tuple(_reasons(left, right)),
        account=derived.account,
        order_id=derived.source_id,
    )


def _reasons(stored: LotFacts, derived: LotFacts) -> list[str]:
    """The causes first; where there is none, the stored lot itself is wrong."""
    causes: list[str] = []
    if stored.rule != derived.rule:
        causes.append(f"rule {stored.rule} stands, {derived.rule} applies")
    if stored.settings_version != derived.settings_version:
        causes.append(
            f"settings version {stored.settings_version} (factor {stored.factor}) stands, "
            f"version {derived.settings_version} (factor {derived.factor}) is in force at {_at(derived.created_at)}"
        )
    if (stored.base, stored.value) != (derived.base, derived.value):
        causes.append(
            f"{_place(stored)} says {stored.base} {stored.value}, {_place(derived)} says {derived.base} {derived.value}"
        )
    if stored.created_at != derived.created_at:
        causes.append(
            f"{_place(stored)} is of {_at(stored.created_at)}, {_place(derived)} of {_at(derived.created_at)}"
        )
    if causes:
        return causes
    effects: list[str] = []
    if stored.points != derived.points:
        effects.append(
            f"{stored.points} points stand, but {stored.base} {stored.value} x factor {stored.factor} "
            f"gives {derived.points}: the stored lot was changed, or written by another rule"
        )
    if stored.valid_until != derived.valid_until:
        effects.append(
            f"valid until {_at(stored.valid_until)} stands, settings version {derived.settings_version} gives "
            f"{_at(derived.valid_until)}: the stored lot, or the version's content, was changed"
        )
    return effects


def _place(facts: LotFacts) -> str:
    origin = facts.origin
    return f"{origin.topic}/{origin.partition}/{origin.offset}" if origin else "the stored lot"


def _at(instant: datetime) -> str:
    return format_instant(instant)
