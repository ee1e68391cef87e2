"""The ledger's ports kept in memory, with outages on demand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from aiokafka.errors import KafkaConnectionError, KafkaError

from rewardpoints.domain.accounts import Account, account_of
from rewardpoints.domain.errors import LedgerUnavailable, RecordRejected, RejectReason
from rewardpoints.domain.lots import Draw, Lot
from rewardpoints.domain.ports import AddedLots, RedemptionCounts, SiteKey, Tombstone
from rewardpoints.domain.redemptions import CouponOrder, Redemption, RedemptionIntent, RedemptionState
from rewardpoints.domain.site_settings import SettingsHistory, SettingsVersion, SiteSettings
from rewardpoints.events.producer import EventProducer
from rewardpoints.events.records import Message
from rewardpoints.settings import KafkaSettings

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
TENANT = "acme"
CUSTOMER = "C1"


def history(settings: SiteSettings | None = None) -> SettingsHistory:
    return SettingsHistory(
        [
            SettingsVersion(
                tenant=TENANT,
                site_code="main",
                version=1,
                saved_at=NOW,
                effective_at=datetime(2020, 1, 1, tzinfo=UTC),
                settings=settings or SiteSettings(),
                content={},
            )
        ]
    )


class FakeOutage:
    """Counts calls and fails them while ``down``, or the next ``fail_next`` of them."""

    def __init__(self) -> None:
        self.down = False
        self.fail_next = 0
        self.calls = 0
        self.error: Exception = LedgerUnavailable("the ledger is away")

    def check(self) -> None:
        self.calls += 1
        if self.down or self.fail_next > 0:
            self.fail_next -= 1
            raise self.error


class FakeLots:
    def __init__(self) -> None:
        self.outage = FakeOutage()
        self.delete_outage = FakeOutage()
        self.stored: dict[str, Lot] = {}
        self.batches: list[int] = []
        self.never_taken: set[str] = set()

    async def add_batch(self, lots: Sequence[Lot], *, compare: bool = True) -> AddedLots:
        self.outage.check()
        self.batches.append(len(lots))
        added, already_there, differing = [], [], []
        rejected = {}
        for position, lot in enumerate(lots):
            stored = self.stored.get(lot.id)
            if lot.source_id in self.never_taken:
                rejected[position] = "document is too large"
            elif stored is None:
                self.stored[lot.id] = lot
                added.append(position)
            else:
                already_there.append(position)
                if compare and not stored.same_grant(lot):
                    differing.append(position)
        return AddedLots(added, already_there, differing, rejected)

    async def delete_erased(self, lots: Sequence[Lot], tombstones: Sequence[Tombstone]) -> int:
        self.delete_outage.check()
        erased_at = {tombstone.account: tombstone.erased_at for tombstone in tombstones}
        gone = [lot.id for lot in lots if lot.account in erased_at and lot.created_at <= erased_at[lot.account]]
        return sum(self.stored.pop(identity, None) is not None for identity in gone)

    @property
    def orders(self) -> set[str]:
        return {lot.source_id for lot in self.stored.values()}


class FakeTombstones:
    """``written`` is what the ledger holds; ``erased_at`` knows only what the last look saw.

    ``stale``: the last look was long ago.
    """

    def __init__(self) -> None:
        self.stale = False
        self.written: dict[Account, datetime] = {}
        self._seen: dict[Account, datetime] = {}

    async def refresh(self) -> Sequence[Tombstone]:
        new = {account: at for account, at in self.written.items() if self._seen.get(account) != at}
        self._seen.update(new)
        return [Tombstone(account, at) for account, at in new.items()]

    async def ensure_fresh(self) -> None:
        if self.stale:
            await self.refresh()

    def erased_at(self, account: Account) -> datetime | None:
        return self._seen.get(account)


class FakeSettings:
    """The same settings for every site of the tenant ``acme``; none for others."""

    def __init__(self, settings: SiteSettings | None = None) -> None:
        self.outage = FakeOutage()
        self.settings = settings
        self.asked: list[Mapping[SiteKey, datetime]] = []

    async def histories(self, needed: Mapping[SiteKey, datetime]) -> Mapping[SiteKey, SettingsHistory]:
        self.outage.check()
        self.asked.append(dict(needed))
        return {site: history(self.settings) if site[0] == TENANT else SettingsHistory(()) for site in needed}


def redemption(
    identity: str = "r1", *, coupon: bool = True, tenant: str = TENANT, created_at: datetime = NOW, big: int = 0
) -> Redemption:
    order = CouponOrder(
        code="RP-ABC",
        option={
            "id": "o1",
            "points": 100,
            "coupon": {"discountType": "PERCENT", "discountPercentage": Decimal("10.10"), "filler": "x" * big},
        },
    )
    return Redemption(
        id=identity,
        public_id=identity,
        account=account_of(tenant, CUSTOMER),
        points=100,
        draws=(Draw("l1", 100),),
        description="A coupon",
        site_code="main",
        created_at=created_at,
        state=RedemptionState.REQUESTED if coupon else RedemptionState.DONE,
        fingerprint="f",
        coupon=order if coupon else None,
        publish_at=created_at if coupon else None,
    )


class FakeRedemptions:
    def __init__(self, *redemptions: Redemption) -> None:
        self.outage = FakeOutage()
        self.stored = {one.id: one for one in redemptions}
        self.lots: dict[str, Lot] = {}
        self.reasons: dict[str, str] = {}
        self.issued_at: dict[str, datetime] = {}
        self.counted: list[tuple[datetime, float]] = []

    async def redeem(self, intent: RedemptionIntent, *, within_seconds: float | None = None) -> Redemption:
        raise NotImplementedError

    async def find(self, redemption_id: str) -> Redemption | None:
        self.outage.check()
        return self.stored.get(redemption_id)

    async def charge_back(self, redemption: Redemption, lot: Lot, *, reason: str) -> bool:
        self.outage.check()
        stored = self.stored[redemption.id]
        if stored.state is RedemptionState.ISSUED:
            raise RecordRejected(RejectReason.ALREADY_ISSUED, "the coupon was created")
        if stored.state is RedemptionState.CHARGED_BACK:
            return False
        self.stored[redemption.id] = replace(stored, state=RedemptionState.CHARGED_BACK)
        self.lots[lot.id] = lot
        self.reasons[redemption.id] = reason
        return True

    async def mark_issued(self, redemption: Redemption, *, at: datetime) -> bool:
        self.outage.check()
        stored = self.stored[redemption.id]
        if stored.state is RedemptionState.CHARGED_BACK:
            raise RecordRejected(RejectReason.ISSUED_AFTER_CHARGEBACK, "the points were given back before")
        self.stored[redemption.id] = replace(stored, state=RedemptionState.ISSUED)
        self.issued_at.setdefault(redemption.id, at)
        return stored.state is not RedemptionState.ISSUED

    async def take_due(self, now: datetime, *, lease_seconds: float, limit: int) -> Sequence[Redemption]:
        self.outage.check()
        due = [one for one in self.stored.values() if one.publish_at is not None and one.publish_at <= now][:limit]
        taken = [replace(one, publish_at=now + timedelta(seconds=lease_seconds)) for one in due]
        self.stored.update({one.id: one for one in taken})
        return taken

    async def mark_published(self, redemption_id: str) -> None:
        self.outage.check()
        self.stored[redemption_id] = replace(self.stored[redemption_id], publish_at=None)

    async def unanswered(self, before: datetime, *, limit: int) -> Sequence[Redemption]:
        self.outage.check()
        waiting = [one for one in self.stored.values() if one.state is RedemptionState.REQUESTED]
        return sorted((one for one in waiting if one.created_at < before), key=lambda one: one.created_at)[:limit]

    async def counts(self, now: datetime, *, unanswered_after_seconds: float) -> RedemptionCounts:
        self.outage.check()
        self.counted.append((now, unanswered_after_seconds))
        due = [one.publish_at for one in self.stored.values() if one.publish_at is not None]
        return RedemptionCounts(due=len(due), oldest_due=min(due, default=None), unanswered=0, oldest_unanswered=None)

    @property
    def unpublished(self) -> set[str]:
        return {one.id for one in self.stored.values() if one.publish_at is not None}


class FakeProducer(EventProducer):
    """Keeps what it is given; what ``refuses`` says is not acknowledged."""

    def __init__(self, *, max_message_bytes: int = 1_048_576) -> None:
        super().__init__(KafkaSettings(bootstrap_servers="nowhere:1", max_message_bytes=max_message_bytes))
        self.outage = FakeOutage()
        self.outage.error = KafkaConnectionError("no broker")
        self.published: list[Message] = []
        self.refuses: Callable[[Message], KafkaError | None] = lambda _: None

    async def connect(self) -> None:
        self.outage.check()

    async def publish_all(self, messages: Sequence[Message]) -> list[KafkaError | None]:
        self.outage.check()
        outcomes = [self.refuses(message) for message in messages]
        self.published += [message for message, failure in zip(messages, outcomes, strict=True) if failure is None]
        return outcomes
