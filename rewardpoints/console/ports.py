"""What the console needs of the rest of the service, as protocols. ``app`` joins an implementation to each.

Every method may raise ``LedgerUnavailable``, and ``ServiceUnavailable`` where it asks somebody else than the ledger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.dead_letters import Chosen, Handled, LetterAction, LetterFilter, LetterId, LetterState
from rewardpoints.domain.differences import Difference
from rewardpoints.domain.errors import RewardPointsError
from rewardpoints.domain.lag import State
from rewardpoints.domain.liability import Liability, PeriodLength
from rewardpoints.domain.ports import RedeemOptions, SettingsStore
from rewardpoints.domain.reasons import ExplainedAccount
from rewardpoints.domain.replays import Replay, ReplayRequest


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter, payload and headers readable; what is missing of it is None."""

    id: LetterId
    state: LetterState
    at: datetime | None
    reason: str | None
    error: str | None
    source: str | None
    attempts: int
    first_seen: str | None
    omitted: bool
    action: LetterAction | None
    key: str | None
    headers: Mapping[str, str | None]
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """The newest dead letters that match, newest first, and how many match in all."""

    letters: Sequence[Letter]
    by_reason: Mapping[str, int]
    by_state: Mapping[LetterState, int]

    @property
    def total(self) -> int:
        """How many match."""
        return sum(self.by_reason.values())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of letters; ``complete`` is False where time ran out before all were dealt with."""

    handled: Handled
    complete: bool


class LetterDesk(Protocol):
    """Dead letters. The tenant of every filter is the visitor's, so that nobody sees another's."""

    async def list(self, wanted: LetterFilter, *, last: int) -> Letters:
        """The newest ``last`` letters that match. Reads the whole topic."""
        ...

    async def show(self, tenant: str, letter_id: LetterId) -> Letter:
        """One letter.

        Raises:
            NotFound: the tenant has none of this id.
        """
        ...

    async def retry(self, chosen: Chosen, *, dry_run: bool) -> Outcome:
        """Publish letters again where they came from, for some seconds at most.

        Raises:
            NotFound: one of the ids is none of the tenant's; nothing was done.
        """
        ...

    async def discard(self, chosen: Chosen, *, note: str | None, dry_run: bool) -> Outcome:
        """Record that nothing will be done about letters, for some seconds at most.

        Raises:
            NotFound: one of the ids is none of the tenant's; nothing was done.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayView:
    """A replay as far as it is known here. ``differences`` name orders only while this process has them."""

    replay: Replay
    dry_run: bool
    differences: Sequence[Difference]


class ReplayDesk(Protocol):
    """Replays of a tenant's orders. Dry runs are known to the process alone that runs them, and forgotten with it."""

    async def recent(self, tenant: str, *, limit: int) -> Sequence[ReplayView]:
        """The tenant's replays that moved last, newest first."""
        ...

    async def find(self, tenant: str, replay_id: str) -> ReplayView:
        """One replay.

        Raises:
            NotFound: the tenant has none of this id, or it was a dry run of another process.
        """
        ...

    async def start(self, request: ReplayRequest, *, dry_run: bool) -> str:
        """Start a replay that goes on behind the page; answers its id. The request names the visitor's tenant.

        Raises:
            InvalidInput: the request makes no sense.
            ServiceUnavailable: as many replays as may run at once are running in this process.
        """
        ...

    async def resume(self, tenant: str, replay_id: str) -> None:
        """Go on with a replay that was stopped, failed or killed.

        Raises:
            NotFound, ReplayFinished, ServiceUnavailable
        """
        ...

    async def stop(self, tenant: str, replay_id: str) -> None:
        """Have a replay stop after its next batch, wherever it runs; nothing happens where it has ended.

        Raises:
            NotFound
        """
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
    letters: LetterDesk
    replays: ReplayDesk
    redeem_options: RedeemOptions
    site_settings: SiteSettings
