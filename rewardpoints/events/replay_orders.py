"""What a replay does with the records it reads: adds what is missing, or says what it would add."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from rewardpoints.domain.differences import Difference, difference
from rewardpoints.domain.earning import Skipped, SkipReason
from rewardpoints.domain.errors import RecordRejected
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.ports import Clock, LotBatches, SettingsReader, TombstoneWatch
from rewardpoints.domain.replays import ReplayCounts, StoredLots
from rewardpoints.events.order_batches import OrderBatches, derive
from rewardpoints.events.range_reader import offsets_of
from rewardpoints.events.records import Record

MOST_IDS_REMEMBERED: Final = 500_000
"""Orders that a dry run remembers as missing, so that a second record of one is not a second lot."""


class ReplayLots(LotBatches, StoredLots, Protocol):
    """What a replay needs of the ledger's lots."""


class Ports(NamedTuple):
    """What a replay works on."""

    lots: ReplayLots
    tombstones: TombstoneWatch
    settings: SettingsReader
    clock: Clock


@dataclass(slots=True)
class Tally:
    """What one batch came to."""

    counts: ReplayCounts
    differences: list[Difference]


class ReplayOrders(Protocol):
    """What is done with the records of a replay."""

    async def __call__(self, records: Sequence[Record], tally: Tally) -> None:
        """Apply or judge a batch and count it."""
        ...


class AppliedReplay:
    """Adds what is missing, as a worker does, and counts."""

    def __init__(self, replay_id: str, ports: Ports) -> None:
        self._id = replay_id
        self._lots = ports.lots
        self._batches = OrderBatches(
            ports.lots, ports.tombstones, ports.settings, clock=ports.clock, replay=replay_id, compare=False
        )

    async def __call__(self, records: Sequence[Record], tally: Tally) -> None:
        """Apply a batch. Applied again it counts the same.

        Raises:
            LedgerUnavailable: nothing was counted; call again.
        """
        applied = await self._batches.apply(records)
        duplicates = [applied.lots[position] for position in applied.added.already_there]
        stored = await self._lots.find_all([lot.id for lot in duplicates])
        counts = tally.counts
        added = set(applied.added.added)
        for position, lot in enumerate(applied.lots):
            if position in applied.added.rejected:
                continue
            if position in applied.erased:
                counts.skipped[SkipReason.ERASED.value] += 1
            elif position in added or _added_by_this_record(stored.get(lot.id), lot):
                counts.added += 1
            else:
                _count_existing(tally, stored.get(lot.id), lot)
        for reason, count in applied.skipped.items():
            counts.skipped[reason.value] += count
        for rejection in applied.rejections:
            counts.rejected[rejection.error.reason.value] += offsets_of(rejection.record)


class DryReplay:
    """Says what a replay would add, and writes nothing."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._missing: set[bytes] = set()

    async def __call__(self, records: Sequence[Record], tally: Tally) -> None:
        """Judge a batch.

        Raises:
            LedgerUnavailable: nothing was counted; call again.
        """
        ports, counts = self._ports, tally.counts
        outcomes = await derive(records, ports.settings, recorded_at=ports.clock())
        await ports.tombstones.refresh()
        stored = await ports.lots.find_all([outcome.id for outcome in outcomes if isinstance(outcome, Lot)])
        for record, outcome in zip(records, outcomes, strict=True):
            if isinstance(outcome, Skipped):
                counts.skipped[outcome.reason.value] += 1
            elif isinstance(outcome, RecordRejected):
                counts.rejected[outcome.reason.value] += offsets_of(record)
            elif _is_erased(outcome, ports.tombstones):
                counts.skipped[SkipReason.ERASED.value] += 1
            elif outcome.id in stored or self._was_missing(outcome):
                _count_existing(tally, stored.get(outcome.id), outcome)
            else:
                counts.added += 1

    def _was_missing(self, lot: Lot) -> bool:
        key = bytes.fromhex(lot.id)[:16]
        if key in self._missing:
            return True
        if len(self._missing) < MOST_IDS_REMEMBERED:
            self._missing.add(key)
        return False


def _is_erased(lot: Lot, tombstones: TombstoneWatch) -> bool:
    erased_at = tombstones.erased_at(lot.account)
    return erased_at is not None and lot.created_at <= erased_at


def _added_by_this_record(stored: Lot | None, lot: Lot) -> bool:
    return stored is not None and stored.origin == lot.origin and stored.origin is not None


def _count_existing(tally: Tally, stored: Lot | None, lot: Lot) -> None:
    """``stored`` is None where it went in this moment, erased: there is nothing to differ from."""
    tally.counts.already_there += 1
    if stored is not None and not stored.same_grant(lot):
        tally.counts.differing += 1
        tally.differences.append(difference(stored, lot))
