"""Replays: reading a part of a topic once more, and what it came to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, Protocol

from rewardpoints.domain.accounts import Account, account_of, entry_id
from rewardpoints.domain.differences import Difference
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.instants import parse_instant
from rewardpoints.domain.lots import Lot

MOST_DIFFERENCES_KEPT: Final = 100
"""Differences a replay keeps; all are counted, and all are shown while it runs."""

Bound = Literal["beginning", "end"] | datetime | int
"""Where a replay begins or ends: an end of the topic, a record's timestamp, or an offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """What to replay; ``rate`` is the most records a second. Times are the records' own timestamps."""

    topic: str
    begin: Bound
    end: Bound = "end"
    partition: int | None = None
    tenant: str | None = None
    customer_id: str | None = None
    rate: float | None = None


class ReplayState(StrEnum):
    """What has become of a replay. One that was killed stays ``running``; resuming it is always safe."""

    RUNNING = "running"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"


class Told(StrEnum):
    """What whoever runs a replay is told when it saves its progress."""

    GO_ON = "go_on"
    STOP = "stop"
    TAKEN_OVER = "taken_over"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayScope:
    """Which records of a topic are replayed: ``since`` <= timestamp < ``before``, of one tenant, of one account.

    ``account`` is a digest (see ``account_digest``), so that a stored replay names no customer.
    """

    topic: str
    since: datetime | None = None
    before: datetime | None = None
    tenant: str | None = None
    account: str | None = None

    @property
    def selects_accounts(self) -> bool:
        """Whether a record's tenant and customer matter."""
        return self.tenant is not None or self.account is not None

    def selects(self, tenant: str | None, customer_id: str | None) -> bool:
        """Whether a record of this tenant and customer belongs to it; None where the record does not tell."""
        if self.tenant is not None and tenant != self.tenant:
            return False
        if self.account is None:
            return True
        return (
            tenant is not None
            and customer_id is not None
            and account_digest(account_of(tenant, customer_id)) == self.account
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionProgress:
    """Offsets ``first`` <= offset < ``end`` of a partition, of which those below ``position`` are done."""

    partition: int
    first: int
    end: int
    position: int


@dataclass(slots=True, kw_only=True)
class ReplayCounts:
    """What became of the records read: ``read`` = not selected + added + already there + skipped + rejected.

    ``differing`` is the part of ``already_there`` whose stored lot grants something else. ``gone`` are offsets that
    were deleted by the topic's retention before they were read.
    """

    read: int = 0
    not_selected: int = 0
    added: int = 0
    already_there: int = 0
    differing: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    gone: int = 0

    def copy(self) -> "ReplayCounts":
        """An independent copy."""
        return replace(self, skipped=Counter(self.skipped), rejected=Counter(self.rejected))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A run and its progress, saved together after each batch. ``attempt`` grows each time somebody takes it on.

    ``rate`` is the most records a second, None for no limit. ``active_seconds``: how long it ran, over all attempts.
    """

    id: str
    scope: ReplayScope
    partitions: tuple[PartitionProgress, ...]
    started_at: datetime
    updated_at: datetime
    rate: float | None = None
    state: ReplayState = ReplayState.RUNNING
    attempt: int = 1
    active_seconds: float = 0.0
    counts: ReplayCounts = field(default_factory=ReplayCounts)
    differences: tuple[Difference, ...] = ()
    problem: str | None = None

    @property
    def total(self) -> int:
        """Offsets in its ranges."""
        return sum(one.end - one.first for one in self.partitions)

    @property
    def done(self) -> int:
        """Offsets of its ranges that are done."""
        return sum(one.position - one.first for one in self.partitions)


class Replays(Protocol):
    """Where replays are kept."""

    async def create(self, replay: Replay) -> None:
        """Store a new replay."""
        ...

    async def find(self, replay_id: str) -> Replay | None:
        """One replay."""
        ...

    async def recent(self, limit: int, *, tenant: str | None = None) -> Sequence[Replay]:
        """The replays that moved last, newest first; where a tenant is named, those of its orders only."""
        ...

    async def take_over(self, replay_id: str, at: datetime) -> Replay:
        """Run it from here: its attempt grows by one, and whoever ran it before is told so at its next save.

        Raises:
            NotFound: there is none of this id.
            ReplayFinished: there is nothing left to do.
        """
        ...

    async def save(self, replay: Replay) -> Told:
        """Store progress, counts and state in one write, unless a later attempt has taken over. Repeatable."""
        ...

    async def ask_to_stop(self, replay_id: str) -> bool:
        """Have a running replay stop after its next batch; False where none of this id is running."""
        ...


class StoredLots(Protocol):
    """What a replay needs of the ledger beyond adding lots."""

    async def find_all(self, lot_ids: Sequence[str]) -> Mapping[str, Lot]:
        """Those of the lots that exist, by id."""
        ...


def account_digest(account: Account) -> str:
    """Stands for an account where its name must not be stored."""
    return entry_id("replay", account)


def parse_bound(field_name: str, text: str) -> Bound:
    """``beginning``, ``end``, an offset, or an ISO 8601 instant with a UTC offset (or a day: its beginning in UTC).

    Raises:
        InvalidInput: none of them.
    """
    given = text.strip()
    if given == "beginning":
        return "beginning"
    if given == "end":
        return "end"
    if given.isascii() and given.isdigit() and len(given) <= 18:  # noqa: PLR2004 - fits 64 bits
        return int(given)
    try:
        return parse_instant(f"{given}T00:00:00+00:00" if len(given) == len("2025-06-10") else given)
    except ValueError as error:
        raise InvalidInput(
            field_name, "must be beginning, end, an offset, or a time as 2025-06-10T12:31:39Z"
        ) from error
