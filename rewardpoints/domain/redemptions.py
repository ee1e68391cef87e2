"""Redemptions: points spent, with the draws they took and the state of the coupon they were spent on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from rewardpoints.domain.accounts import Account, entry_id
from rewardpoints.domain.lots import Draw

PUBLISH_GRACE: Final = timedelta(seconds=5)
"""How long after its redemption a coupon request is left to the process that took it, which publishes at once."""


class RedemptionState(StrEnum):
    """``requested`` becomes ``issued`` or ``charged_back``, never both; without a coupon a redemption is ``done``."""

    REQUESTED = "requested"
    ISSUED = "issued"
    CHARGED_BACK = "charged_back"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponOrder:
    """What a redemption asks the coupon service for: the code, and the option as it was when it was redeemed."""

    code: str
    option: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedemptionIntent:
    """A redemption to be made. Id and code are fixed before the first attempt, so that every attempt is the same one.

    ``fingerprint`` tells apart two requests under one idempotency key.
    """

    id: str
    public_id: str
    account: Account
    points: int
    description: str
    site_code: str
    fingerprint: str
    coupon: CouponOrder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Redemption:
    """A redemption as the ledger holds it. Its draws add up to its points."""

    id: str
    public_id: str
    account: Account
    points: int
    draws: tuple[Draw, ...]
    description: str
    site_code: str
    created_at: datetime
    state: RedemptionState
    fingerprint: str
    coupon: CouponOrder | None = None
    publish_at: datetime | None = None


def initial_state(intent: RedemptionIntent) -> RedemptionState:
    """The state a redemption starts in."""
    return RedemptionState.REQUESTED if intent.coupon else RedemptionState.DONE


def redemption_from(intent: RedemptionIntent, draws: tuple[Draw, ...], at: datetime) -> Redemption:
    """The redemption an intent becomes when its draws are taken at ``at``.

    A coupon's request becomes due for the relay ``PUBLISH_GRACE`` later, so that as a rule it is published only once.
    """
    return Redemption(
        id=intent.id,
        public_id=intent.public_id,
        account=intent.account,
        points=intent.points,
        draws=draws,
        description=intent.description,
        site_code=intent.site_code,
        created_at=at,
        state=initial_state(intent),
        fingerprint=intent.fingerprint,
        coupon=intent.coupon,
        publish_at=at + PUBLISH_GRACE if intent.coupon else None,
    )


def redemption_id(account: Account, *source: str) -> str:
    """The id of the one redemption ``source`` names: an idempotency key and where it came from, or a random text."""
    return entry_id(account, "redemption", *source)


def fingerprint(operation: str, site_code: str, body: Mapping[str, Any]) -> str:
    """What a request asks for, as 64 hex digits: equal requests have equal fingerprints whatever their field order."""
    text = json.dumps([operation, site_code, body], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
