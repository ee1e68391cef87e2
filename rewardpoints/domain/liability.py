"""Liability: the points customers may still spend at an instant, when they expire, and how they came and went."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from rewardpoints.domain.history import History
from rewardpoints.domain.lots import Lot, LotKind

_RATE_DIGITS: Final = Decimal("0.0001")


class PeriodLength(StrEnum):
    """How long the periods of a report are. They begin and end in UTC."""

    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"

    def of(self, instant: datetime) -> str:
        """The period an instant lies in: ``2026-11``, ``2026-Q4`` or ``2026``. Later periods are greater texts."""
        utc = instant.astimezone(UTC)
        if self is PeriodLength.MONTH:
            return f"{utc.year:04}-{utc.month:02}"
        if self is PeriodLength.QUARTER:
            return f"{utc.year:04}-Q{(utc.month + 2) // 3}"
        return f"{utc.year:04}"


@dataclass(slots=True)
class Flows:
    """Points that came and went in a period.

    ``earned`` by orders, ``given`` by hand (opening entries too), ``given_back`` by chargebacks; ``redeemed``;
    ``expired`` unspent. ``ended`` are all points of the lots whose validity ended in the period, spent or not.
    ``expiring`` is what was outstanding at the report's instant and expires in the period unless it is spent.
    """

    earned: int = 0
    given: int = 0
    given_back: int = 0
    redeemed: int = 0
    expired: int = 0
    ended: int = 0
    expiring: int = 0

    @property
    def net(self) -> int:
        """By how much the outstanding points grew."""
        return self.earned + self.given + self.given_back - self.redeemed - self.expired

    @property
    def breakage(self) -> Decimal | None:
        """See ``Liability.breakage``, of the lots whose validity ended in the period."""
        return _share(self.expired, self.ended)


@dataclass(frozen=True, slots=True)
class Row:
    """A period, and what was outstanding at its end; None for periods after the report's instant."""

    period: str
    flows: Flows
    outstanding: int | None


@dataclass(slots=True)
class Liability:
    """A report as of ``at``, added up account by account; ``site_code`` counts only lots of that site.

    ``accounts`` are those with points outstanding, ``entries`` what was looked at.

    What a redemption takes counts for the site and the lot it was drawn from, so that always
    ``outstanding = Σ earned + given + given_back - redeemed - expired``, and so for every site by itself.
    """

    at: datetime
    by: PeriodLength = PeriodLength.MONTH
    site_code: str | None = None
    outstanding: int = 0
    accounts: int = 0
    entries: int = 0
    flows: dict[str, Flows] = field(default_factory=dict)

    def add(self, history: History) -> None:
        """Count an account, by its entries up to ``at``; the same entries give the same figures whenever this runs.

        A lot counts from its ``created_at``, or from its first draw where that is earlier, as in the history's fold.
        """
        before = self.outstanding
        self.entries += len(history.lots) + len(history.redemptions)
        draws: dict[str, list[tuple[datetime, int]]] = {}
        for redemption in history.redemptions:
            for draw in redemption.draws:
                draws.setdefault(draw.lot, []).append((redemption.created_at, draw.points))
        for lot in history.lots:
            if self.site_code is None or lot.site_code == self.site_code:
                self._add_lot(lot, draws.get(lot.id, []))
        self.accounts += self.outstanding != before

    def _add_lot(self, lot: Lot, draws: list[tuple[datetime, int]]) -> None:
        began = min([lot.created_at, *(at for at, _ in draws)])
        if began > self.at:
            return
        granted = self._flows(began)
        if lot.kind is LotKind.ORDER:
            granted.earned += lot.points
        elif lot.kind is LotKind.CHARGEBACK:
            granted.given_back += lot.points
        else:
            granted.given += lot.points
        left = lot.points
        for at, points in draws:
            if at <= self.at:
                self._flows(at).redeemed += points
                left -= points
        if lot.is_valid_at(self.at):
            self.outstanding += left
            self._flows(lot.valid_until).expiring += left
        else:
            ended = self._flows(max(lot.valid_until, began))  # an import may be older than its own validity
            ended.expired += left
            ended.ended += lot.points

    def _flows(self, instant: datetime) -> Flows:
        return self.flows.setdefault(self.by.of(instant), Flows())

    @property
    def breakage(self) -> Decimal | None:
        """The breakage rate: of the points of all lots whose validity had ended, the share that expired unspent.

        Lots still valid count neither way, however much of them is spent: what will become of the rest is not known
        yet. Between 0 and 1, to four digits; None where no lot's validity had ended.
        """
        flows = self.flows.values()
        return _share(sum(one.expired for one in flows), sum(one.ended for one in flows))

    def rows(self) -> list[Row]:
        """The periods in which anything happened or will expire, in order of time."""
        current, outstanding, rows = self.by.of(self.at), 0, list[Row]()
        for period, flows in sorted(self.flows.items()):
            outstanding += flows.net
            rows.append(Row(period, flows, outstanding if period <= current else None))
        return rows


def _share(part: int, whole: int) -> Decimal | None:
    return (Decimal(part) / whole).quantize(_RATE_DIGITS) if whole else None
