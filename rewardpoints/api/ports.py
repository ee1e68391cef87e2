"""What the API needs of the other rooms."""

from dataclasses import dataclass

from rewardpoints.domain.ports import (
    Accounts,
    CouponRequests,
    RedeemOptions,
    Redemptions,
    SettingsReader,
    SettingsStore,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The implementations the API works on."""

    accounts: Accounts
    redemptions: Redemptions
    redeem_options: RedeemOptions
    settings_store: SettingsStore
    settings_reader: SettingsReader
    coupon_requests: CouponRequests
