"""Order consumer: a batch of records becomes lots in one bulk write."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from rewardpoints.domain.earning import Skipped, SkipReason, earn
from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.lots import Lot, Origin
from rewardpoints.domain.orders import Order
from rewardpoints.domain.ports import Clock, LotBatches, SettingsReader, SiteKey, Tombstone, TombstoneWatch
from rewardpoints.events.dead_letters import DeadLetters, Rejection
from rewardpoints.events.messages import Record, decode_order
from rewardpoints.telemetry import Metrics

logger = structlog.get_logger(__name__)

Outcome = Lot | Skipped | RecordRejected
"""What a record comes to."""


async def derive(records: Sequence[Record], settings: SettingsReader, *, recorded_at: datetime) -> list[Outcome]:
    """What each record comes to, in their order. Changes nothing; tombstones are not asked.

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
                    origin=Origin(topic=record.topic, partition=record.partition, offset=record.offset),
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


@dataclass(slots=True)
class _Sorted:
    """A batch's outcomes by what is to be done with them. ``erased``: lots that must not exist any more."""

    lots: list[Lot] = field(default_factory=list)
    sources: list[Record] = field(default_factory=list)
    erased: list[Lot] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    skipped: Counter[SkipReason] = field(default_factory=Counter)


class OrderConsumer:
    """Turns batches of order records into lots. Handling a batch again changes nothing."""

    def __init__(
        self,
        lots: LotBatches,
        tombstones: TombstoneWatch,
        settings: SettingsReader,
        *,
        dead_letters: DeadLetters,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._lots = lots
        self._tombstones = tombstones
        self._settings = settings
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._clock = clock

    async def handle(self, records: Sequence[Record]) -> None:
        """Apply a batch. When this returns, each record is in the ledger, skipped and counted, or a dead letter.

        Raises:
            LedgerUnavailable, KafkaError: handle the same batch again.
        """
        batch = self._sort(records, await derive(records, self._settings, recorded_at=self._clock()))
        added = await self._lots.add_batch(batch.lots)
        # Only a look after the insert sees every tombstone that the insert may have overtaken.
        removed = await self._remove_erased([*batch.lots, *batch.erased])
        for position, reason in added.rejected.items():
            error = RecordRejected(RejectReason.LEDGER_REJECTED, f"the ledger can never take this lot: {reason}")
            batch.rejections.append(Rejection(batch.sources[position], error))
        await self._dead_letters.publish_all(batch.rejections)

        metrics = self._metrics
        metrics.lots_added.inc(len(added.added))
        metrics.lots_already_there.inc(len(added.already_there))
        metrics.lots_differing.inc(len(added.differing))
        metrics.erased_lots_removed.inc(removed)
        for skip_reason, count in batch.skipped.items():
            metrics.orders_skipped.labels(skip_reason.value).inc(count)

    def _sort(self, records: Sequence[Record], outcomes: Sequence[Outcome]) -> _Sorted:
        batch = _Sorted()
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
        return batch

    def _is_erased(self, lot: Lot) -> bool:
        erased_at = self._tombstones.erased_at(lot.account)
        return erased_at is not None and lot.created_at <= erased_at

    async def _remove_erased(self, lots: Sequence[Lot]) -> int:
        """Delete what must not exist; of skipped lots too, since an earlier try of the batch may have inserted them."""
        await self._tombstones.refresh()
        erased = [lot for lot in lots if self._is_erased(lot)]
        if not erased:
            return 0
        tombstones = {
            lot.account: Tombstone(lot.account, erased_at)
            for lot in erased
            if (erased_at := self._tombstones.erased_at(lot.account)) is not None
        }
        return await self._lots.delete_erased(erased, list(tombstones.values()))
