"""What the console needs of the rest of the service, as protocols. ``app`` joins an implementation to each.

Every method may raise ``LedgerUnavailable``, and ``ServiceUnavailable`` where it asks somebody else than the ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.errors import RewardPointsError
from rewardpoints.domain.lag import State
from rewardpoints.domain.liability import Liability, PeriodLength
from rewardpoints.domain.ports import RedeemOptions, SettingsStore
from rewardpoints.domain.reasons import ExplainedAccount


class TokenRefused(RewardPointsError):
    """The token is none this service accepts."""


class ServiceUnavailable(RewardPointsError):
    """Something the page asks cannot answer now; the message says what, without secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whom a token speaks for. ``customer_id`` is set for a customer's; ``expires_at`` in seconds since 1970."""

    tenant: str
    scopes: frozenset[str]
    subject: str
    customer_id: str | None
    expires_at: float


class Tokens(Protocol):
    """Checks access tokens."""

    async def caller(self, token: str) -> Caller:
        """Whom the token speaks for.

        Raises:
            TokenRefused, ServiceUnavailable
        """
        ...


class Watch(Protocol):
    """The state of the whole service, all tenants together: counts, no customers."""

    async def state(self) -> State:
        """The state as of the last look, a few seconds old at most; the first look takes some seconds."""
        ...


class Explainer(Protocol):
    """Accounts explained."""

    async def explain(self, account: Account) -> ExplainedAccount:
        """The account as it is now.

        Raises:
            NoAccount: the customer has none, or was erased.
        """
        ...


class LiabilityReports(Protocol):
    """What customers may still spend."""

    async def report(self, tenant: str, *, site_code: str | None, by: PeriodLength) -> Liability:
        """The tenant's liability now. Reads all its accounts: takes seconds for each hundred thousand entries."""
        ...


class SiteSettings(SettingsStore, Protocol):
    """Site settings as they are managed, and which sites there are."""

    async def site_codes(self, tenant: str) -> Sequence[str]:
        """The sites of the tenant that have settings."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The implementations the console works on."""

    tokens: Tokens
    watch: Watch
    explainer: Explainer
    liability: LiabilityReports
    redeem_options: RedeemOptions
    site_settings: SiteSettings
