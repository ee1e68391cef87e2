"""What the rooms need of each other, as protocols. ``app`` joins an implementation to each.

Every method that reaches a server may raise ``LedgerUnavailable``; after it, a read may be repeated, and so may a
write, since every write here is idempotent under its id.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.history import History, SummaryHistory
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.redeem_options import RedeemOption
from rewardpoints.domain.redemptions import Redemption, RedemptionIntent
from rewardpoints.domain.site_settings import SettingsHistory, SettingsVersion

Clock = Callable[[], datetime]
"""Answers the present instant, UTC."""

SiteKey = tuple[str, str]
"""Tenant and site code."""


@dataclass(frozen=True, slots=True)
class AddedLots:
    """What became of a batch of lots, by position in the batch.

    ``differing`` is the part of ``already_there`` whose stored lot grants something else; the stored one stands.
    ``rejected`` are the lots the ledger can never take, with the server's or the driver's reason.
    """

    added: Sequence[int]
    already_there: Sequence[int]
    differing: Sequence[int]
    rejected: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An erased customer: what was created at or before ``erased_at`` must not exist any more."""

    account: Account
    erased_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RedemptionCounts:
    """The redemptions that wait for something, for metrics and the command line."""

    due: int
    oldest_due: datetime | None
    unanswered: int
    oldest_unanswered: datetime | None


class LotBatches(Protocol):
    """What the order consumer needs of the ledger."""

    async def add_batch(self, lots: Sequence[Lot], *, compare: bool = True) -> AddedLots:
        """Insert lots, each by itself; those whose id exists are left as they are.

        With ``compare`` the stored lots of the duplicates are read to tell the differing ones.
        """
        ...

    async def delete_erased(self, lots: Sequence[Lot], tombstones: Sequence[Tombstone]) -> int:
        """Delete those of ``lots`` that lie at or before their account's tombstone; returns how many were deleted."""
        ...


class Tombstones(Protocol):
    """Erased customers, as the order consumer sees them."""

    async def since(self, instant: datetime | None) -> Sequence[Tombstone]:
        """Tombstones erased at or after ``instant`` (all for None), oldest first."""
        ...


class TombstoneWatch(Protocol):
    """Erased customers as a worker remembers them between its looks."""

    async def refresh(self) -> Sequence[Tombstone]:
        """Look for tombstones written since the last look, and remember them; returns what was read."""
        ...

    async def ensure_fresh(self) -> None:
        """Look where the last look was more than a minute ago, or there was none."""
        ...

    def erased_at(self, account: Account) -> datetime | None:
        """When the account was erased, as far as the last look saw."""
        ...


class Accounts(Protocol):
    """Reading, opening, adding to and erasing accounts."""

    async def balance(self, account: Account, now: datetime) -> int | None:
        """Σ remaining of the lots valid at ``now``; None where the account does not exist."""
        ...

    async def history(self, account: Account) -> History | None:
        """All entries of an account in one snapshot; None where the account does not exist."""
        ...

    async def summary_history(self, account: Account) -> SummaryHistory | None:
        """What a summary needs of an account, in one snapshot; None where the account does not exist."""
        ...

    def summary_histories(
        self, tenant: str, *, skip: int = 0, limit: int | None = None
    ) -> AsyncIterator[SummaryHistory]:
        """The tenant's accounts in account order, in constant memory, each account in one snapshot."""
        ...

    async def count(self, tenant: str) -> int:
        """How many accounts the tenant has."""
        ...

    async def open(self, lot: Lot) -> None:
        """Open an account with its opening lot.

        Raises:
            AccountExists: it has a lot or a redemption already.
        """
        ...

    async def add(self, lot: Lot) -> bool:
        """Add a manual lot. True when it was added now, False when the same request added it before.

        Raises:
            IdempotencyConflict: its id was used for something else.
        """
        ...

    async def erase(self, account: Account) -> None:
        """Write a tombstone and delete everything of the account. Idempotent."""
        ...


class Redemptions(Protocol):
    """Spending points, and the way of the coupon request that follows."""

    async def redeem(self, intent: RedemptionIntent, *, within_seconds: float | None = None) -> Redemption:
        """Draw the points and record the redemption, all or nothing; the stored one when it was carried out before.

        Blocks for at most the configured time (8 seconds) while other redemptions of the account are in the way, and
        a second longer to learn what became of a commit nobody answered; ``within_seconds`` is the time for both where
        the caller has less.

        Raises:
            NoAccount, TooFewPoints, TooManyLots, IdempotencyConflict: refused, nothing changed.
            LedgerBusy: conflicts until the time was over, nothing changed.
        """
        ...

    async def find(self, redemption_id: str) -> Redemption | None:
        """The redemption of this id, read at majority."""
        ...

    async def charge_back(self, redemption: Redemption, lot: Lot, *, reason: str) -> bool:
        """Set the state to charged back and add the lot, both or neither. False when it was charged back before.

        Raises:
            RecordRejected: it was issued, or is unknown by now.
        """
        ...

    async def mark_issued(self, redemption: Redemption, *, at: datetime) -> bool:
        """Set the state to issued. False when it was issued before.

        Raises:
            RecordRejected: ``ISSUED_AFTER_CHARGEBACK``, or it is unknown by now.
        """
        ...

    async def take_due(self, now: datetime, *, lease_seconds: float, limit: int) -> Sequence[Redemption]:
        """Claim up to ``limit`` redemptions whose request is due, pushing ``publish_at`` ``lease_seconds`` ahead."""
        ...

    async def mark_published(self, redemption_id: str) -> None:
        """Record that the broker acknowledged the request. Idempotent."""
        ...

    async def unanswered(self, before: datetime, *, limit: int) -> Sequence[Redemption]:
        """Up to ``limit`` redemptions published before ``before`` and neither issued nor charged back, oldest first."""
        ...

    async def counts(self, now: datetime, *, unanswered_after_seconds: float) -> RedemptionCounts:
        """What is due, and what has been ``requested`` for longer than ``unanswered_after_seconds``."""
        ...


class RedeemOptions(Protocol):
    """The redeem options of a tenant."""

    async def all(self, tenant: str) -> Sequence[RedeemOption]:
        """All options, oldest first."""
        ...

    async def find(self, tenant: str, option_id: str) -> RedeemOption | None:
        """One option."""
        ...

    async def create(self, option: RedeemOption) -> None:
        """Store a new option under its id."""
        ...

    async def replace(self, option: RedeemOption, *, stored_version: int) -> bool:
        """Store ``option`` in place of ``stored_version``; False when the stored version is another by now."""
        ...

    async def delete(self, tenant: str, option_id: str) -> None:
        """Delete an option. Idempotent."""
        ...


class SettingsReader(Protocol):
    """Site settings as earning and redeeming read them, cached."""

    async def histories(self, needed: Mapping[SiteKey, datetime]) -> Mapping[SiteKey, SettingsHistory]:
        """The history of each site, fresh enough to judge the given instant (UTC) of it."""
        ...


class SettingsStore(Protocol):
    """Site settings as they are managed."""

    async def history(self, tenant: str, site_code: str) -> SettingsHistory:
        """All versions of a site, read from the store."""
        ...

    async def append(self, version: SettingsVersion) -> bool:
        """Store the next version; False when that number was taken meanwhile."""
        ...


class CouponRequests(Protocol):
    """Publishing of coupon requests, as the API sees it."""

    def publish_soon(self, redemption: Redemption) -> None:
        """Publish the redemption's request in the background and clear it on the broker's ack; never blocks or raises.

        What fails here is left to the relay.
        """
        ...


class Readiness(Protocol):
    """Whether a server this process depends on answers."""

    async def check(self) -> Mapping[str, Any]:
        """Raises LedgerUnavailable, or returns what to show about it."""
        ...
