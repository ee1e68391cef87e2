"""Order batches: records become lots in a bulk write or two, and nothing of an erased customer stays."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from rewardpoints.domain.earning import Skipped, SkipReason, earn
from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.lots import Lot, Origin
from rewardpoints.domain.orders import Order
from rewardpoints.domain.ports import AddedLots, Clock, LotBatches, SettingsReader, SiteKey, Tombstone, TombstoneWatch
from rewardpoints.events.dead_letters import Rejection
from rewardpoints.events.order_messages import decode_order
from rewardpoints.events.records import Record

PART_RECORDS: Final = 500
"""Of a batch, so many at once: smaller inserts cost both sides more than what they gain by overlapping."""

RECORDS_AT_A_TIME: Final = 50
"""So many are derived before other work of the process gets its turn: above all sending the part before, heartbeats."""

Outcome = Lot | Skipped | RecordRejected
"""What a record comes to."""


async def derive(
    records: Sequence[Record], settings: SettingsReader, *, recorded_at: datetime, replay: str | None = None
) -> list[Outcome]:
    """What each record comes to, in their order. Changes nothing; tombstones are not asked.

    ``replay`` is the id of the replay that reads them, and becomes part of each lot's origin.

    Raises:
        LedgerUnavailable: the settings cannot be read.
    """
    decoded: list[Order | Skipped | RecordRejected] = [_decoded(record) for record in records]
    needed: dict[SiteKey, datetime] = {}
    for order in decoded:
        if isinstance(order, Order):
            site = (order.tenant, order.site_code)
            latest = needed.get(site)
            if latest is None or order.completed_at > latest:
                needed[site] = order.completed_at
    histories = await settings.histories(needed) if needed else {}
    outcomes: list[Outcome] = []
    for record, order in zip(records, decoded, strict=True):
        if not isinstance(order, Order):
            outcomes.append(order)
            continue
        try:
            outcomes.append(
                earn(
                    order,
                    histories[order.tenant, order.site_code],
                    recorded_at=recorded_at,
                    origin=Origin(topic=record.topic, partition=record.partition, offset=record.offset, replay=replay),
                )
            )
        except RecordRejected as rejection:
            outcomes.append(rejection)
    return outcomes


def _decoded(record: Record) -> Order | Skipped | RecordRejected:
    try:
        return decode_order(record)
    except RecordRejected as rejection:
        return rejection


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedOrders:
    """What became of a batch of records. ``added`` speaks of positions in ``lots``.

    ``rejections`` hold what no lot can be made of and what the ledger can never take. ``erased`` are those of ``lots``
    whose customer turned out to be erased only after they were added; they are gone again. ``removed``: how many lots
    of erased customers were deleted.
    """

    lots: Sequence[Lot]
    added: AddedLots
    skipped: Counter[SkipReason]
    rejections: list[Rejection]
    erased: frozenset[int]
    removed: int


@dataclass(slots=True)
class _Sorted:
    """A batch's outcomes by what is to be done with them. ``erased``: lots that must not exist any more."""

    lots: list[Lot] = field(default_factory=list)
    sources: list[Record] = field(default_factory=list)
    erased: list[Lot] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    skipped: Counter[SkipReason] = field(default_factory=Counter)


class OrderBatches:
    """Turns batches of order records into lots. Applying a batch again changes nothing.

    ``replay``: the id of the replay that they are part of; ``compare``: whether duplicates are told from differing
    ones here; ``part_records``: how many records go to the ledger at once.
    """

    def __init__(
        self,
        lots: LotBatches,
        tombstones: TombstoneWatch,
        settings: SettingsReader,
        *,
        clock: Clock,
        replay: str | None = None,
        compare: bool = True,
        part_records: int = PART_RECORDS,
    ) -> None:
        self._lots = lots
        self._tombstones = tombstones
        self._settings = settings
        self._clock = clock
        self._replay = replay
        self._compare = compare
        self._part_records = part_records

    async def apply(self, records: Sequence[Record]) -> AppliedOrders:
        """Add the lots of a batch. What is rejected is only told: the caller decides what becomes of it.

        Raises:
            LedgerUnavailable: apply the same batch again.
        """
        batch, added = await self._add(records)
        # Only a look after the inserts sees every tombstone that one of them may have overtaken.
        await self._tombstones.refresh()
        erased = [position for position, lot in enumerate(batch.lots) if self._is_erased(lot)]
        removed = await self._remove([*(batch.lots[position] for position in erased), *batch.erased])
        for position, reason in added.rejected.items():
            error = RecordRejected(RejectReason.LEDGER_REJECTED, f"the ledger can never take this lot: {reason}")
            batch.rejections.append(Rejection(batch.sources[position], error))
        return AppliedOrders(
            lots=batch.lots,
            added=added,
            skipped=batch.skipped,
            rejections=batch.rejections,
            erased=frozenset(erased),
            removed=removed,
        )

    async def _add(self, records: Sequence[Record]) -> tuple[_Sorted, AddedLots]:
        """Derive a part of the batch while the ledger takes the one before: neither waits for the other.

        Parts are added one after another, so that of two records of one order the first counts.
        """
        batch = _Sorted()
        parts: list[tuple[int, AddedLots]] = []
        before = 0
        adding: asyncio.Task[AddedLots] | None = None
        try:
            for start in range(0, len(records), self._part_records):
                part = records[start : start + self._part_records]
                outcomes: list[Outcome] = []
                recorded_at = self._clock()
                for position in range(0, len(part), RECORDS_AT_A_TIME):
                    await asyncio.sleep(0)
                    some = part[position : position + RECORDS_AT_A_TIME]
                    outcomes += await derive(some, self._settings, recorded_at=recorded_at, replay=self._replay)
                if adding is not None:
                    parts.append((before, await adding))
                # Old records that come once more are not even tried: who tries may die before its look after them
                await self._tombstones.ensure_fresh()
                before = len(batch.lots)
                self._sort(part, outcomes, batch)
                adding = asyncio.create_task(self._lots.add_batch(batch.lots[before:], compare=self._compare))
            if adding is not None:
                parts.append((before, await adding))
        except asyncio.CancelledError:
            if adding is not None:
                adding.cancel()
            raise
        finally:
            if adding is not None:  # nothing of a part may be on its way when the batch is tried again
                await asyncio.gather(adding, return_exceptions=True)
        return batch, _joined(parts)

    def _sort(self, records: Sequence[Record], outcomes: Sequence[Outcome], batch: _Sorted) -> None:
        for record, outcome in zip(records, outcomes, strict=True):
            if isinstance(outcome, Skipped):
                batch.skipped[outcome.reason] += 1
            elif isinstance(outcome, RecordRejected):
                batch.rejections.append(Rejection(record, outcome))
            elif self._is_erased(outcome):
                batch.skipped[SkipReason.ERASED] += 1
                batch.erased.append(outcome)
            else:
                batch.lots.append(outcome)
                batch.sources.append(record)

    def _is_erased(self, lot: Lot) -> bool:
        erased_at = self._tombstones.erased_at(lot.account)
        return erased_at is not None and lot.created_at <= erased_at

    async def _remove(self, lots: Sequence[Lot]) -> int:
        """Delete what must not exist; of skipped lots too, since an earlier try of the batch may have inserted them."""
        if not lots:
            return 0
        tombstones = {
            lot.account: Tombstone(lot.account, erased_at)
            for lot in lots
            if (erased_at := self._tombstones.erased_at(lot.account)) is not None
        }
        return await self._lots.delete_erased(lots, list(tombstones.values()))


def _joined(parts: Sequence[tuple[int, AddedLots]]) -> AddedLots:
    """What became of all parts, by position in the batch; each comes with the position of its first lot."""
    added: list[int] = []
    already_there: list[int] = []
    differing: list[int] = []
    rejected: dict[int, str] = {}
    for start, part in parts:
        added += [start + position for position in part.added]
        already_there += [start + position for position in part.already_there]
        differing += [start + position for position in part.differing]
        rejected |= {start + position: reason for position, reason in part.rejected.items()}
    return AddedLots(added, already_there, differing, rejected)
