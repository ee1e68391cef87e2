"""Rebuilding a database, empty or restored from a backup, from the topics, before anything serves it."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from rewardpoints.app.clock import utc_now
from rewardpoints.app.commands import kafka_errors
from rewardpoints.domain.errors import InvalidInput, RecordRejected
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.ports import Tombstone
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.domain.replays import ReplayCounts
from rewardpoints.events.chargeback_consumer import charge_back
from rewardpoints.events.coupon_requests import decode_coupon_request
from rewardpoints.events.coupon_result_consumer import mark_issued
from rewardpoints.events.messages import decode_chargeback, decode_coupon_result
from rewardpoints.events.range_reader import RangeReader
from rewardpoints.events.records import recorded_at
from rewardpoints.events.replay_orders import AppliedReplay, Ports, Tally
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.tombstones import TombstoneCache
from rewardpoints.operate.replay import check_order_topic
from rewardpoints.operate.timeline import Event, EventKind, Timeline
from rewardpoints.settings import Settings

MOST_LISTED: Final = 10_000
MOST_ROUNDS: Final = 10
REPLAY_ID: Final = "rebuild"
"""What lots that a rebuild added name as their replay."""

_NAMED_FOR_IT: Final = re.compile("rebuild[A-Za-z0-9_-]{0,56}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LostEntry:
    """Something that no topic and no backup holds. ``points``: given (positive) or taken."""

    account: str
    entry: str
    points: int
    why: str


@dataclass(slots=True, kw_only=True)
class Rebuilt:
    """How a rebuild stands, or ended. ``lost`` are the first ten thousand."""

    settings_copied: int = 0
    tombstones: int = 0
    buried: int = 0
    orders: ReplayCounts = field(default_factory=ReplayCounts)
    redemptions_added: int = 0
    redemptions_there: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    lost_count: int = 0
    lost: list[LostEntry] = field(default_factory=list)
    read: int = 0
    finished: bool = False

    def lose(self, entry: LostEntry) -> None:
        """Note something that is lost."""
        self.lost_count += 1
        if len(self.lost) < MOST_LISTED:
            self.lost.append(entry)


def check_target(settings: Settings, database: str) -> None:
    """Refuse a database that is not named for a rebuild, or is the configured one.

    Raises:
        InvalidInput
    """
    if not _NAMED_FOR_IT.fullmatch(database):
        raise InvalidInput("into", "the database's name must begin with rebuild, so that no other is ever written")
    if database == settings.mongodb.database:
        raise InvalidInput("into", f"{database} is the database that the service is configured to use")


class Rebuild:
    """Rebuilds ``target`` once: settings, tombstones, orders, then redemptions and answers in the order of time.

    ``serving`` is the ledger of the configured database: only read, and only what it still has. Every step is
    idempotent: a rebuild that was stopped is started again. Nothing is published.
    """

    def __init__(
        self,
        settings: Settings,
        serving: Ledger,
        target: Ledger,
        *,
        topics: Sequence[str] = (),
        tombstones: Callable[[], AsyncIterator[Tombstone]] | None = None,
        stopping: asyncio.Event,
        on_progress: Callable[[Rebuilt], None],
    ) -> None:
        self.rebuilt = Rebuilt()
        self._settings = settings
        self._serving = serving
        self._target = target
        self._topics = tuple(dict.fromkeys(topics)) or (settings.kafka.topic_order_completed,)
        self._exported = tombstones
        self._stopping = stopping
        self._on_progress = on_progress

    async def run(self) -> Rebuilt:
        """Rebuild; when it returns ``finished``, what ``lost`` lists is all that is not as it was.

        Raises:
            InvalidInput: the target may not be written; nothing was.
            LedgerUnavailable, ServerRefused: a server cannot be reached; run it again.
        """
        check_target(self._settings, self._target.database.name)
        for topic in self._topics:
            check_order_topic(self._settings.kafka, topic)
        if await self._target.restoring.is_serving():
            raise InvalidInput("into", f"a process of the service uses {self._target.database.name}")
        await self._target.ensure_indexes()
        self.rebuilt.settings_copied = await self._target.restoring.take_settings_from(self._serving.database)
        await self._bury()
        with kafka_errors():
            for topic in self._topics:
                await self._orders(topic)
            with Timeline() as timeline:
                await self._collect(timeline)
                await self._play(timeline)
        if not self._stopping.is_set():
            await self._list_lost()
            self.rebuilt.finished = not self._stopping.is_set()
        self._on_progress(self.rebuilt)
        return self.rebuilt

    async def _bury(self) -> None:
        sources: list[AsyncIterator[Tombstone]] = [self._serving.restoring.every_tombstone()]
        if self._exported is not None:
            sources.append(self._exported())
        for source in sources:
            async for tombstone in source:
                self.rebuilt.tombstones += 1
                self.rebuilt.buried += await self._target.restoring.bury(tombstone)

    async def _orders(self, topic: str) -> None:
        target = self._target
        ports = Ports(target.lots, TombstoneCache(target.tombstones), target.settings_reader, utc_now)
        apply = AppliedReplay(REPLAY_ID, ports)
        async with RangeReader(self._settings.kafka, topic) as reader:
            reader.assign(await reader.ranges("beginning", "end"))
            while not self._stopping.is_set():
                records = await reader.read(self._settings.kafka.max_batch_records)
                if not records:
                    return
                tally = Tally(self.rebuilt.orders.copy(), [])
                await apply(records, tally)
                tally.counts.read += len(records)
                self.rebuilt.orders = tally.counts
                self._advance(len(records))

    async def _collect(self, timeline: Timeline) -> None:
        kafka = self._settings.kafka
        for topic, kind in (
            (kafka.topic_coupon_creation_requests, EventKind.REQUEST),
            (kafka.topic_chargebacks, EventKind.CHARGEBACK),
            (kafka.topic_coupon_creation_results, EventKind.RESULT),
        ):
            if topic is None:
                continue
            async with RangeReader(kafka, topic) as reader:
                reader.assign(await reader.ranges("beginning", "end"))
                while not self._stopping.is_set() and (records := await reader.read(kafka.max_batch_records)):
                    events = []
                    for record in records:
                        try:
                            at = recorded_at(record)
                            if kind is EventKind.REQUEST:
                                at = decode_coupon_request(record).created_at
                        except RecordRejected as rejection:
                            self.rebuilt.rejected[f"{topic}: {rejection.reason.value}"] += 1
                        else:
                            events.append((at, kind, record))
                    await timeline.add(events)
                    self._advance(len(records))

    async def _play(self, timeline: Timeline) -> None:
        """In the order of time, and what could not be applied once more: clocks of several services differ."""
        waiting: dict[int, str] = {}  # why, of the first ten thousand
        for _ in range(MOST_ROUNDS):
            waiting, moved = {}, False
            async for event in timeline.open_events():
                if self._stopping.is_set():
                    return
                why = await self._apply(event)
                if why is None:
                    moved = True
                    await timeline.done(event)
                elif len(waiting) < MOST_LISTED:
                    waiting[event.number] = why
            if not moved or not waiting:
                break
        async for event in timeline.open_events():
            self._give_up(event, waiting.get(event.number, "its lots or its redemption are not there"))

    async def _apply(self, event: Event) -> str | None:
        """None when it is done, else why it may have to wait."""
        record, target, rebuilt = event.record, self._target, self.rebuilt
        try:
            if event.kind is EventKind.REQUEST:
                return await self._redeem(decode_coupon_request(record), event)
            if event.kind is EventKind.CHARGEBACK:
                chargeback = decode_chargeback(record)
                applied = await charge_back(chargeback, target.redemptions, target.settings_reader, utc_now)
                rebuilt.answers["charged_back" if applied else "charged_back_before"] += 1
            else:
                outcome = await mark_issued(decode_coupon_result(record), target.redemptions)
                rebuilt.answers[outcome] += 1
        except RecordRejected as rejection:
            return rejection.reason.value
        return None

    async def _redeem(self, redemption: Redemption, event: Event) -> str | None:
        tombstone = await self._target.tombstones.find(redemption.account)
        if tombstone is not None and redemption.created_at <= tombstone.erased_at:
            self.rebuilt.answers["erased"] += 1
            return None
        restored = await self._target.restoring.redeem(redemption, published_at=recorded_at(event.record))
        if restored.lacking:
            return ", ".join(f"{points} points of lot {lot}" for lot, points in restored.lacking)
        if restored.added:
            self.rebuilt.redemptions_added += 1
        else:
            self.rebuilt.redemptions_there += 1
        return None

    def _give_up(self, event: Event, why: str) -> None:
        if event.kind is not EventKind.REQUEST:
            self.rebuilt.rejected[f"{event.record.topic}: {why}"] += 1
            return
        redemption = decode_coupon_request(event.record)
        self.rebuilt.lose(
            LostEntry(
                account=redemption.account,
                entry=f"redemption {redemption.id}",
                points=-redemption.points,
                why=f"its coupon was asked for, but there is nothing to draw: it lacks {why} (given by hand since?)",
            )
        )

    async def _list_lost(self) -> None:
        """What was done by hand after the backup, as far as the configured database can still be asked."""
        async with aclosing(self._serving.restoring.by_hand()) as pages:
            async for page in pages:
                for entry in await self._target.restoring.missing(page):
                    tombstone = await self._target.tombstones.find(entry.account)
                    if tombstone is not None and entry.created_at <= tombstone.erased_at:
                        continue
                    is_lot = isinstance(entry, Lot)
                    name = f"{entry.kind.value} lot {entry.id}" if isinstance(entry, Lot) else f"redemption {entry.id}"
                    self.rebuilt.lose(
                        LostEntry(
                            account=entry.account,
                            entry=name,
                            points=entry.points if is_lot else -entry.points,
                            why=f"made by hand at {entry.created_at.isoformat()}, after the backup",
                        )
                    )

    def _advance(self, count: int) -> None:
        self.rebuilt.read += count
        self._on_progress(self.rebuilt)
