"""Adjustments: entries by which an operator sets right what a customer has. They add to the ledger, never edit it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rewardpoints.domain.accounts import Account, check_id, check_text
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.lots import MAX_POINTS, Lot, LotKind
from rewardpoints.domain.manual_entries import ManualGrant, manual_lot
from rewardpoints.domain.redemptions import Redemption, RedemptionIntent, fingerprint, redemption_id
from rewardpoints.domain.site_settings import SiteSettings

PREFIX: Final = "adjust:"
"""What an adjustment's public id and source begin with, followed by its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """Points to add (or to take, where negative), why, and the key that makes a repetition change nothing.

    ``valid_until`` is for added points; without it they are valid for the site's months from now.

    Raises:
        InvalidInput: the points are 0 or too many, the key is no id, the reason is missing.
    """

    account: Account
    points: int
    key: str
    reason: str
    site_code: str
    valid_until: datetime | None = None

    def __post_init__(self) -> None:
        if not 0 < abs(self.points) <= MAX_POINTS:
            raise InvalidInput("points", f"must be a whole number other than 0, at most {MAX_POINTS}")
        check_id("key", f"{PREFIX}{self.key}")
        if not self.key or not self.reason.strip():
            raise InvalidInput("reason" if self.key else "key", "must not be empty")
        check_text("reason", self.reason)
        check_id("site", self.site_code)
        if self.valid_until is not None and self.points < 0:
            raise InvalidInput("validUntil", "is for points that are added")

    @property
    def public_id(self) -> str:
        """The id its entry is shown with."""
        return f"{PREFIX}{self.key}"

    @property
    def fingerprint(self) -> str:
        """Tells another try of this adjustment from another adjustment under its key."""
        until = self.valid_until and format_instant(self.valid_until)
        return fingerprint(
            "adjust", self.site_code, {"points": self.points, "reason": self.reason, "validUntil": until}
        )


def adjusting_lot(adjustment: Adjustment, settings: SiteSettings, *, now: datetime) -> Lot:
    """The lot that adds an adjustment's points.

    Raises:
        InvalidInput: ``valid_until`` is not in the future, or the points are not positive.
    """
    grant = ManualGrant(
        id=adjustment.public_id,
        source_id=adjustment.public_id,
        points=adjustment.points,
        fingerprint=adjustment.fingerprint,
        description=adjustment.reason,
        valid_until=adjustment.valid_until,
    )
    return manual_lot(adjustment.account, grant, settings, site_code=adjustment.site_code, now=now)


def adjusting_intent(adjustment: Adjustment) -> RedemptionIntent:
    """The redemption, without a coupon, that takes an adjustment's points."""
    return RedemptionIntent(
        id=redemption_id(adjustment.account, PREFIX, adjustment.key),
        public_id=adjustment.public_id,
        account=adjustment.account,
        points=-adjustment.points,
        description=adjustment.reason,
        site_code=adjustment.site_code,
        fingerprint=adjustment.fingerprint,
    )


def adjustment_of(
    account: Account, key: str, lots: Iterable[Lot], redemptions: Iterable[Redemption]
) -> Lot | Redemption | None:
    """The entry that an adjustment of this key made, if there is one."""
    source, taken = f"{PREFIX}{key}", redemption_id(account, PREFIX, key)
    for lot in lots:
        if lot.kind is LotKind.MANUAL and lot.source_id == source:
            return lot
    return next((redemption for redemption in redemptions if redemption.id == taken), None)
