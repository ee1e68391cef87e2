"""Chargebacks: the coupon service could not create a coupon, so the points come back as a new lot."""

from datetime import datetime
from typing import Final

from rewardpoints.domain.instants import add_months
from rewardpoints.domain.lots import Lot, LotKind, lot_id
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.domain.site_settings import SiteSettings

DESCRIPTION: Final = "Chargeback - redeemed voucher could not be created."


def chargeback_lot(redemption: Redemption, settings: SiteSettings, *, at: datetime, recorded_at: datetime) -> Lot:
    """The lot that gives a redemption's points back, valid for the site's months from ``at``.

    The amount is the stored redemption's. The lots it drew stay drawn: their validity may long have passed.
    """
    identity = lot_id(redemption.account, LotKind.CHARGEBACK, redemption.id)
    return Lot(
        id=identity,
        account=redemption.account,
        kind=LotKind.CHARGEBACK,
        source_id=redemption.id,
        public_id=identity,
        reference_id=None,
        description=DESCRIPTION,
        points=redemption.points,
        remaining=redemption.points,
        created_at=at,
        valid_until=add_months(at, settings.validity_months, settings.zone),
        site_code=redemption.site_code,
        recorded_at=recorded_at,
    )
