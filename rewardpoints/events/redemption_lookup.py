"""Finding the redemption a message of the coupon service speaks of."""

from rewardpoints.domain.accounts import customer_of, tenant_of
from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.ports import Redemptions
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.events.messages import Chargeback, CouponResult


async def named_redemption(redemptions: Redemptions, message: Chargeback | CouponResult) -> Redemption:
    """The redemption with a coupon that ``message`` names, of the tenant and, where it says so, the customer it names.

    Raises:
        RecordRejected: there is none.
        LedgerUnavailable: it cannot be read now.
    """
    redemption = await redemptions.find(message.redemption_id)
    if redemption is None:
        raise RecordRejected(RejectReason.UNKNOWN_REDEMPTION, "no redemption has this id")
    if tenant_of(redemption.account) != message.tenant:
        raise RecordRejected(RejectReason.WRONG_TENANT, "the redemption belongs to another tenant")
    if message.customer_id is not None and customer_of(redemption.account) != message.customer_id:
        raise RecordRejected(RejectReason.WRONG_CUSTOMER, "the redemption belongs to another customer")
    if redemption.coupon is None:
        raise RecordRejected(RejectReason.NO_COUPON, "the redemption asked for no coupon")
    return redemption
