"""Order consumer: batches of records become lots, and what can never become one a dead letter."""

from collections.abc import Sequence

from rewardpoints.domain.earning import SkipReason
from rewardpoints.domain.ports import Clock, LotBatches, SettingsReader, TombstoneWatch
from rewardpoints.events.dead_letters import DeadLetters
from rewardpoints.events.flood_guard import FloodGuard
from rewardpoints.events.order_batches import PART_RECORDS, OrderBatches
from rewardpoints.events.records import Record
from rewardpoints.telemetry import Metrics


class OrderConsumer(OrderBatches):
    """Turns batches of order records into lots. Handling a batch again changes nothing."""

    def __init__(
        self,
        lots: LotBatches,
        tombstones: TombstoneWatch,
        settings: SettingsReader,
        *,
        dead_letters: DeadLetters,
        flood_guard: FloodGuard,
        metrics: Metrics,
        clock: Clock,
        part_records: int = PART_RECORDS,
    ) -> None:
        super().__init__(lots, tombstones, settings, clock=clock, part_records=part_records)
        self._dead_letters = dead_letters
        self._flood_guard = flood_guard
        self._metrics = metrics

    async def handle(self, records: Sequence[Record]) -> None:
        """Apply a batch. When this returns, each record is in the ledger, skipped and counted, or a dead letter.

        Raises:
            LedgerUnavailable, KafkaError: handle the same batch again.
            FloodOfBadRecords: the same, but no dead letter was published; what is good of it is in the ledger.
        """
        applied = await self.apply(records)
        judged = len(records) - applied.skipped[SkipReason.STATUS]
        self._flood_guard.judge(applied.rejections, judged=judged)
        await self._dead_letters.publish_all(applied.rejections)
        self._flood_guard.passed(applied.rejections, judged=judged)

        metrics = self._metrics
        metrics.lots_added.inc(len(applied.added.added))
        metrics.lots_already_there.inc(len(applied.added.already_there))
        metrics.lots_differing.inc(len(applied.added.differing))
        metrics.erased_lots_removed.inc(applied.removed)
        for skip_reason, count in applied.skipped.items():
            metrics.orders_skipped.labels(skip_reason.value).inc(count)
