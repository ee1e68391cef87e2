"""Invariants: what must hold of an account whatever happened, and what is wrong where it does not."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rewardpoints.domain.accounts import Account, account_of, customer_of, entry_id, tenant_of
from rewardpoints.domain.history import balance_at
from rewardpoints.domain.lots import Draw, Lot, LotKind, active_points, lot_id
from rewardpoints.domain.redemptions import Redemption, RedemptionState


class Invariant(StrEnum):
    """What was broken; the value is the word it is reported by."""

    READABLE = "readable"
    """Every entry can be read, and lies in an account whose key is spelt as this service spells it."""
    LOT = "lot"
    """0 <= remaining <= points, and open while points remain."""
    DRAWS = "draws"
    """What is used of a lot is the sum of the draws on it, all taken while it was valid."""
    REDEMPTION = "redemption"
    """A redemption's draws add up to its points, and its state is one that its entry can have."""
    BALANCE = "balance"
    """The balance is what the fold of the history gives."""
    ONE_LOT = "one_lot"
    """An order, or a request by hand, has one lot, under the id derived from it."""
    EARNING = "earning"
    """An order's lot is what the order earns under the site settings in force at its instant."""
    CHARGEBACK = "chargeback"
    """A charged-back redemption has one lot that gives back its points; no other redemption has any."""
    COUPON_REQUEST = "coupon_request"
    """A coupon request was published, always with the same id and code, or is due."""
    ISSUED_AFTER_CHARGEBACK = "issued_after_chargeback"
    """Nobody has both the coupon and the points it was redeemed for."""
    ERASED = "erased"
    """Nothing of an erased customer from before the tombstone is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Points to add (or to take, where negative) so that the customer has what is right. For an ``Adjustment``."""

    points: int
    site_code: str
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A broken invariant. ``entry`` is the lot or redemption it was found at, empty for the account as a whole.

    ``points`` are what it gave the customer too few (or, negative, too many), if that can be told; there is a
    ``correction`` as long as they have not expired. ``corrected`` where the account has an adjustment under the
    ``key``. ``publish_again`` where publishing the redemption's coupon request once more sets it right.
    """

    account: Account
    invariant: Invariant
    problem: str
    entry: str = ""
    points: int = 0
    correction: Correction | None = None
    corrected: bool = False
    publish_again: bool = False

    @property
    def key(self) -> str:
        """The key of the adjustment that corrects this violation; the same in every run that finds it."""
        identity = entry_id("violation", self.account, self.invariant, self.entry, str(self.points))
        return f"verify-{identity[:20]}"

    def __str__(self) -> str:
        return f"{self.account}: {self.problem}"


@dataclass(frozen=True, slots=True)
class AccountUnderTest:
    """An account's entries as one snapshot has them, the present instant, and since when the customer is erased."""

    account: Account
    lots: Sequence[Lot]
    redemptions: Sequence[Redemption]
    at: datetime
    erased_at: datetime | None = None

    def violation(
        self, invariant: Invariant, entry: str, problem: str, *, points: int = 0, lot: Lot | None = None, site: str = ""
    ) -> Violation:
        """One violation. ``points`` correct it, valid as long as ``lot``; there is no correction when that expired."""
        correction = None
        if points and (lot is None or lot.is_valid_at(self.at)):
            until = lot.valid_until if lot and points > 0 else None
            correction = Correction(points=points, site_code=lot.site_code if lot else site, valid_until=until)
        return Violation(
            account=self.account,
            invariant=invariant,
            entry=entry,
            problem=problem,
            points=points,
            correction=correction,
        )


def broken(case: AccountUnderTest) -> Iterator[Violation]:
    """The invariants that the account's entries alone can break; what needs the site settings is in ``misearned``."""
    if account_of(tenant_of(case.account), customer_of(case.account)) != case.account:
        yield case.violation(Invariant.READABLE, "", "the account's key is not spelt as this service spells it")
    yield from _draws(case)
    for redemption in case.redemptions:
        yield from _redemption(case, redemption)
    yield from _balance(case)
    yield from _identities(case)
    yield from _chargebacks(case)
    yield from _survivors(case)


def _draws(case: AccountUnderTest) -> Iterator[Violation]:
    drawn: Counter[str] = Counter()
    due: Counter[str] = Counter()  # what the redemptions' own points say
    by_lot: dict[str, list[Redemption]] = {}
    for redemption in case.redemptions:
        for draw in redemption.draws:
            drawn[draw.lot] += draw.points
            by_lot.setdefault(draw.lot, []).append(redemption)
        for draw in _paid(redemption):
            due[draw.lot] += draw.points
    for lot in case.lots:
        if not 0 <= lot.remaining <= lot.points:
            problem = f"lot {lot.id}: {lot.remaining} of {lot.points} points remain"
            yield case.violation(Invariant.LOT, lot.id, problem)
        if drawn[lot.id] != lot.used:
            problem = f"lot {lot.id}: {lot.used} points used, but its draws are {drawn[lot.id]}"
            yield case.violation(Invariant.DRAWS, lot.id, problem, points=lot.used - due[lot.id], lot=lot)
        for redemption in by_lot.get(lot.id, ()):
            if not lot.is_valid_at(redemption.created_at):
                problem = f"redemption {redemption.id}: draws on lot {lot.id}, which had expired"
                yield case.violation(Invariant.DRAWS, redemption.id, problem)
    for missing in sorted(drawn.keys() - {lot.id for lot in case.lots}):
        yield case.violation(Invariant.DRAWS, missing, f"lot {missing}: was drawn on, but does not exist")


def _paid(redemption: Redemption) -> Sequence[Draw]:
    """A redemption's draws; where they are too many and one of each lot is right, a doubled one is left out."""
    once = tuple({draw.lot: draw for draw in redemption.draws}.values())
    doubled = len(once) != len(redemption.draws) and sum(draw.points for draw in once) == redemption.points
    return once if doubled else redemption.draws


def _redemption(case: AccountUnderTest, redemption: Redemption) -> Iterator[Violation]:
    name, total = f"redemption {redemption.id}", sum(draw.points for draw in redemption.draws)

    def wrong(problem: str, points: int = 0) -> Violation:
        site = redemption.site_code
        return case.violation(Invariant.REDEMPTION, redemption.id, f"{name}: {problem}", points=points, site=site)

    if total != redemption.points:
        owed = sum(draw.points for draw in _paid(redemption)) - redemption.points
        yield wrong(f"{redemption.points} points, but its draws are {total}", owed)
    if any(draw.points <= 0 for draw in redemption.draws):
        yield wrong("a draw takes no points")
    if len({draw.lot for draw in redemption.draws}) != len(redemption.draws):
        yield wrong("draws on one lot twice")
    if (redemption.coupon is None) != (redemption.state is RedemptionState.DONE):
        yield wrong(f"is {redemption.state.value} {'with' if redemption.coupon else 'without'} a coupon")
    if redemption.publish_at is not None and redemption.state is not RedemptionState.REQUESTED:
        yield wrong(f"is {redemption.state.value}, but its coupon request is due")


def _balance(case: AccountUnderTest) -> Iterator[Violation]:
    # Not before the last entry: clocks differ, and the fold leaves out what is yet to come
    instants = [entry.created_at for entries in (case.lots, case.redemptions) for entry in entries]
    instant = max(case.at, *instants) if instants else case.at
    folded, stored = balance_at(case.lots, case.redemptions, instant), active_points(case.lots, instant)
    if folded != stored:
        problem = f"the balance is {stored}, but the history gives {folded}"
        yield case.violation(Invariant.BALANCE, "", problem)


def _identities(case: AccountUnderTest) -> Iterator[Violation]:
    ids = {lot.id for lot in case.lots}
    for lot in case.lots:
        if lot.kind is LotKind.CHARGEBACK:
            continue
        right = lot_id(lot.account, lot.kind, lot.source_id)
        if lot.id != right:
            second = right in ids
            what = f"a second lot of {lot.kind.value}" if second else f"is not the one of {lot.kind.value}"
            problem = f"lot {lot.id}: {what} {lot.source_id!r}"
            yield case.violation(Invariant.ONE_LOT, lot.id, problem, points=-lot.points if second else 0, lot=lot)


def _chargebacks(case: AccountUnderTest) -> Iterator[Violation]:
    by_id = {redemption.id: redemption for redemption in case.redemptions}
    given_back: dict[str, Lot] = {}
    # The one under the derived id first: another is then the second
    lots = [lot for lot in case.lots if lot.kind is LotKind.CHARGEBACK]
    for lot in sorted(lots, key=lambda lot: (lot.id != lot_id(lot.account, lot.kind, lot.source_id), lot.id)):
        name, source = f"lot {lot.id}", by_id.get(lot.source_id)
        if lot.source_id in given_back:
            problem = f"{name}: gives back redemption {lot.source_id} a second time"
            yield case.violation(Invariant.CHARGEBACK, lot.id, problem, points=-lot.points, lot=lot)
            continue
        given_back[lot.source_id] = lot
        if lot.id != lot_id(lot.account, lot.kind, lot.source_id):
            problem = f"{name}: is not the one of chargeback {lot.source_id!r}"
            yield case.violation(Invariant.CHARGEBACK, lot.id, problem)
        if source is None or source.state is not RedemptionState.CHARGED_BACK:
            problem = f"{name}: gives back redemption {lot.source_id}, which is not charged back"
            yield case.violation(Invariant.CHARGEBACK, lot.id, problem, points=-lot.points, lot=lot)
        elif source.points != lot.points:
            problem = f"{name}: gives back {lot.points} of {source.points} points"
            yield case.violation(Invariant.CHARGEBACK, lot.id, problem, points=source.points - lot.points, lot=lot)
    for redemption in case.redemptions:
        if redemption.state is RedemptionState.CHARGED_BACK and redemption.id not in given_back:
            problem = f"redemption {redemption.id}: is charged back, but its points were not given back"
            yield case.violation(
                Invariant.CHARGEBACK, redemption.id, problem, points=redemption.points, site=redemption.site_code
            )


def _survivors(case: AccountUnderTest) -> Iterator[Violation]:
    if case.erased_at is None:
        return
    for lot in case.lots:
        # An order is as old as itself; what was given by hand or given back is as old as its entry here
        recorded = lot.created_at if lot.kind is LotKind.ORDER else lot.recorded_at
        if recorded <= case.erased_at:
            problem = f"lot {lot.id}: is from before the customer was erased"
            yield case.violation(Invariant.ERASED, lot.id, problem)
    for redemption in case.redemptions:
        if redemption.created_at <= case.erased_at:
            problem = f"redemption {redemption.id}: is from before the customer was erased"
            yield case.violation(Invariant.ERASED, redemption.id, problem)
