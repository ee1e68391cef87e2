"""Rebuild and compare: the lots that the topics' orders earn, against those that stand."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from rewardpoints.app.clock import utc_now
from rewardpoints.app.commands import kafka_errors
from rewardpoints.domain.accounts import tenant_of
from rewardpoints.domain.differences import LotFacts, difference, facts_of
from rewardpoints.domain.earning import Skipped
from rewardpoints.domain.errors import RecordRejected
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.replays import PartitionProgress
from rewardpoints.events.committed import committed_orders
from rewardpoints.events.dead_letter_desk import record_at
from rewardpoints.events.order_batches import derive
from rewardpoints.events.range_reader import RangeReader, offsets_of
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.order_lots import order_lots
from rewardpoints.ledger.tombstones import TombstoneCache
from rewardpoints.operate.derived_lots import DerivedLots
from rewardpoints.operate.replay import check_order_topic
from rewardpoints.settings import Settings

MOST_RECORDS_READ_AGAIN: Final = 100
"""Extra lots whose record is looked up for the reason; a lookup is a connection of its own."""


class FindingKind(StrEnum):
    """How the ledger and the topics disagree about a lot."""

    MISSING = "missing"
    EXTRA = "extra"
    DIFFERING = "differing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One disagreement; ``stored`` is None for a missing lot, ``derived`` for an extra one."""

    kind: FindingKind
    lot: str
    account: str
    order_id: str
    stored: LotFacts | None
    derived: LotFacts | None
    reasons: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Check:
    """How a check stands, or ended. ``unchecked``: lots that these topics cannot speak for, by reason."""

    offsets: int = 0
    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    equal: int = 0
    erased: int = 0
    unchecked: Counter[str] = field(default_factory=Counter)
    found: Counter[FindingKind] = field(default_factory=Counter)
    finished: bool = False

    @property
    def clean(self) -> bool:
        """Whether all was compared and everything agrees."""
        return self.finished and not self.found


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """Which topics hold the orders (the configured one where none is named), and of which tenant."""

    topics: Sequence[str] = ()
    tenant: str | None = None


class Checker:
    """Derives and compares once. ``check`` is up to date while ``findings`` is read; ``stopping`` ends it early.

    It may run beside the service: of the order topic it reads what the workers have committed, which the ledger must
    have; lots of later records are not judged. Nothing is written or published.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        request: CheckRequest,
        *,
        stopping: asyncio.Event,
        on_progress: Callable[[Check], None],
    ) -> None:
        self.check = Check()
        self._settings = settings
        self._ledger = ledger
        self._tenant = request.tenant
        self._topics = tuple(dict.fromkeys(request.topics)) or (settings.kafka.topic_order_completed,)
        self._stopping = stopping
        self._on_progress = on_progress
        self._ranges: dict[tuple[str, int], PartitionProgress] = {}
        self._tombstones = TombstoneCache(ledger.tombstones)
        self._lookups = 0

    async def findings(self) -> AsyncGenerator[Finding]:
        """Every disagreement, in the order of the lots' ids, each with its reasons.

        Raises:
            InvalidInput: a topic holds no orders.
            LedgerUnavailable, ServerRefused: a server cannot be reached; check again.
        """
        for topic in self._topics:
            check_order_topic(self._settings.kafka, topic)
        with DerivedLots() as derived:
            with kafka_errors():
                for topic in self._topics:
                    await self._derive(topic, derived)
            if self._stopping.is_set():
                return
            async with aclosing(self._compare(derived)) as found:
                async for one in found:
                    if self._stopping.is_set():
                        return
                    self.check.found[one.kind] += 1
                    yield one
        self.check.finished = True
        self._on_progress(self.check)

    async def _derive(self, topic: str, derived: DerivedLots) -> None:
        kafka, check = self._settings.kafka, self.check
        async with RangeReader(kafka, topic) as reader:
            ranges = await reader.ranges("beginning", "end")
            if topic == kafka.topic_order_completed:
                committed = await committed_orders(kafka)
                ranges = tuple(
                    _up_to(one, committed.get(one.partition, one.end if not committed else one.first)) for one in ranges
                )
            self._ranges |= {(topic, one.partition): one for one in ranges}
            check.offsets += sum(one.end - one.first for one in ranges)
            reader.assign(ranges)
            while not self._stopping.is_set() and (records := await reader.read(kafka.max_batch_records)):
                outcomes = await derive(records, self._ledger.settings_reader, recorded_at=utc_now())
                for record, outcome in zip(records, outcomes, strict=True):
                    check.read += offsets_of(record)
                    if isinstance(outcome, Skipped):
                        check.skipped[outcome.reason.value] += 1
                    elif isinstance(outcome, RecordRejected):
                        check.rejected[outcome.reason.value] += offsets_of(record)
                await derived.add([one for one in outcomes if isinstance(one, Lot) and self._is_wanted(one)])
                self._on_progress(check)

    async def _compare(self, derived: DerivedLots) -> AsyncGenerator[Finding]:
        """Both sides in the order of their ids, side by side."""
        async with (
            aclosing(derived.by_id()) as derivations,
            aclosing(_one_by_one(order_lots(self._ledger.database))) as stored_lots,
        ):
            candidates, stored = await anext(derivations, None), await anext(stored_lots, None)
            while candidates or stored:
                if stored is not None and (candidates is None or stored.id <= candidates[0].id):
                    matching = candidates if candidates and candidates[0].id == stored.id else ()
                    if self._is_wanted(stored):
                        self._count()
                        found = await self._judge(stored, matching)
                        if found is not None:
                            yield found
                    stored = await anext(stored_lots, None)
                    if not matching:
                        continue
                elif candidates:
                    self._count()
                    found = await self._judge_missing(candidates)
                    if found is not None:
                        yield found
                candidates = await anext(derivations, None)

    def _count(self) -> None:
        self.check.compared += 1
        if self.check.compared % 1000 == 0:
            self._on_progress(self.check)

    async def _judge(self, stored: Lot, derivations: Sequence[Lot]) -> Finding | None:
        if not derivations:
            return await self._judge_extra(stored)
        # Of several records of an order whichever was applied first stands, and only the ledger knows which that was
        if any(one.same_grant(stored) for one in derivations):
            self.check.equal += 1
            return None
        derived = next((one for one in derivations if _same_place(one, stored)), derivations[0])
        reasons = difference(stored, derived).reasons
        if len(derivations) > 1:
            reasons += (f"none of the order's {len(derivations)} records gives what stands",)
        return _finding(FindingKind.DIFFERING, stored, derived, reasons)

    async def _judge_missing(self, derivations: Sequence[Lot]) -> Finding | None:
        derived = derivations[0]
        now_there = (await self._ledger.lots.find_all([derived.id])).get(derived.id)
        if now_there is not None:  # added by a replay while this was running
            return await self._judge(now_there, derivations)
        await self._tombstones.refresh()
        alive = [one for one in derivations if not self._is_erased(one)]
        if not alive:
            self.check.erased += 1
            return None
        reason = f"{_place(alive[0])} earns {alive[0].points} points and no lot is there: `rewardpoints replay` adds it"
        return _finding(FindingKind.MISSING, None, alive[0], (reason,))

    async def _judge_extra(self, stored: Lot) -> Finding | None:
        origin = stored.origin
        if origin is None:
            return _finding(FindingKind.EXTRA, stored, None, ("it was not written from a record of a topic",))
        known = self._ranges.get((origin.topic, origin.partition))
        if known is None:
            self.check.unchecked[f"from topic {origin.topic}, which was not read"] += 1
            return None
        if origin.offset >= known.end:
            self.check.unchecked["newer than this check"] += 1
            return None
        if origin.offset < known.first:
            self.check.unchecked["its record has left the topic"] += 1
            return None
        return _finding(FindingKind.EXTRA, stored, None, (await self._what_its_record_says(stored),))

    async def _what_its_record_says(self, stored: Lot) -> str:
        origin = stored.origin
        if origin is None or self._lookups >= MOST_RECORDS_READ_AGAIN:
            return f"{_place(stored)} does not earn it"
        self._lookups += 1
        with kafka_errors():
            record = await record_at(self._settings.kafka, origin.topic, origin.partition, origin.offset)
        if record is None:
            return f"there is no record at {_place(stored)}"
        (outcome,) = await derive([record], self._ledger.settings_reader, recorded_at=utc_now())
        if isinstance(outcome, Skipped):
            return f"{_place(stored)} earns nothing: {outcome.reason.value}"
        if isinstance(outcome, RecordRejected):
            return f"{_place(stored)} cannot be applied: {outcome}"
        return f"{_place(stored)} is order {outcome.source_id} of {outcome.account}, not this one"

    def _is_wanted(self, lot: Lot) -> bool:
        return self._tenant is None or tenant_of(lot.account) == self._tenant

    def _is_erased(self, lot: Lot) -> bool:
        erased_at = self._tombstones.erased_at(lot.account)
        return erased_at is not None and lot.created_at <= erased_at


async def _one_by_one(pages: AsyncGenerator[Sequence[Lot]]) -> AsyncGenerator[Lot]:
    async with aclosing(pages):
        async for page in pages:
            for lot in page:
                yield lot


def _up_to(one: PartitionProgress, offset: int) -> PartitionProgress:
    return replace(one, end=max(one.first, min(one.end, offset)))


def _same_place(one: Lot, other: Lot) -> bool:
    left, right = one.origin, other.origin
    return (
        left is not None
        and right is not None
        and (left.topic, left.partition, left.offset) == (right.topic, right.partition, right.offset)
    )


def _place(lot: Lot) -> str:
    origin = lot.origin
    return f"{origin.topic}/{origin.partition}/{origin.offset}" if origin else "no record"


def _finding(kind: FindingKind, stored: Lot | None, derived: Lot | None, reasons: tuple[str, ...]) -> Finding:
    lot = stored or derived
    if lot is None:
        raise ValueError("a finding is about a lot")
    return Finding(
        kind=kind,
        lot=lot.id,
        account=lot.account,
        order_id=lot.source_id,
        stored=facts_of(stored) if stored else None,
        derived=facts_of(derived) if derived else None,
        reasons=reasons,
    )
