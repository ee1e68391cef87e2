"""The reference: what everybody outside the service did and was told, and what the ledger must therefore hold.

Written without the product's rules: points and validity are computed here a second time.
"""

import json
from calendar import monthrange
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.lots import Lot, LotKind
from rewardpoints.domain.redemptions import Redemption, RedemptionState
from tests.simulation.broker import LogRecord


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the site's settings, and from when it applies."""

    number: int
    effective_at: datetime
    factor: Decimal
    months: int
    zone: str

    def expiry(self, instant: datetime) -> datetime:
        """The same wall clock so many months later; the month's last day where it is too short."""
        local = instant.astimezone(ZoneInfo(self.zone))
        year, month = divmod(local.year * 12 + local.month - 1 + self.months, 12)
        day = min(local.day, monthrange(year, month + 1)[1])
        return local.replace(year=year, month=month + 1, day=day, fold=0).astimezone(UTC)


@dataclass(slots=True)
class Order:
    """An order that was published, at least once."""

    account: Account
    number: str
    value: Decimal
    completed_at: datetime


@dataclass(slots=True)
class Redeeming:
    """A customer's wish for a coupon. ``identity``: of the redemption, where a key fixes it."""

    account: Account
    points: int
    identity: str | None
    began: datetime
    code: str | None = None
    refused: bool = False
    unknown: bool = False


@dataclass(slots=True)
class Grant:
    """Points given by hand."""

    account: Account
    number: str
    points: int
    began: datetime
    acknowledged: bool = False


@dataclass(slots=True)
class Reference:
    """Everything known outside."""

    versions: list[Version]
    orders_topic: str
    orders: dict[tuple[Account, str], Order] = field(default_factory=dict)
    redeemings: list[Redeeming] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    created: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    charged_back: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    must_be_dead: list[LogRecord] = field(default_factory=list)

    def version_at(self, instant: datetime) -> Version:
        """What applies at an instant; before the first, the first."""
        return max(
            (one for one in self.versions if one.effective_at <= instant),
            key=lambda one: one.number,
            default=self.versions[0],
        )

    def disagreements(
        self,
        lots: list[Lot],
        redemptions: list[Redemption],
        erased: Mapping[Account, datetime],
        requests: list[LogRecord],
        dead: list[LogRecord],
    ) -> Iterator[str]:
        """Everything in which the ledger and the topics, at rest, are not as they must be."""
        yield from self._orders(lots, erased)
        yield from self._grants(lots, erased)
        yield from self._redemptions(redemptions, erased)
        # A key used again after an erasure names the same redemption, of which the coupon service has heard before
        twice = {
            wish.identity for wish in self.redeemings if wish.account in erased and wish.began <= erased[wish.account]
        }
        yield from self._answers(lots, [one for one in redemptions if one.id not in twice])
        yield from _requests(redemptions, requests, twice)
        yield from self._dead(dead)

    def _orders(self, lots: list[Lot], erased: Mapping[Account, datetime]) -> Iterator[str]:
        stored = {(lot.account, lot.source_id): lot for lot in lots if lot.kind is LotKind.ORDER}
        for key, order in self.orders.items():
            lot = stored.pop(key, None)
            version = self.version_at(order.completed_at)
            points = int(order.value * version.factor)
            gone = order.account in erased and order.completed_at <= erased[order.account]
            if lot is None and points and not gone:
                yield f"order {order.number} of {order.account} is lost"
            if lot is None:
                continue
            if gone:
                yield f"order {order.number} of {order.account} is from before its erasure"
            expected = (points, order.completed_at, version.expiry(order.completed_at))
            if (lot.points, lot.created_at, lot.valid_until) != expected:
                yield f"order {order.number} gave {lot.points, lot.created_at, lot.valid_until}, expected {expected}"
        for account, number in stored:
            yield f"order {number} of {account} was never sent"

    def _grants(self, lots: list[Lot], erased: Mapping[Account, datetime]) -> Iterator[str]:
        stored = {(lot.account, lot.source_id): lot for lot in lots if lot.kind is LotKind.MANUAL}
        for grant in self.grants:
            lot = stored.pop((grant.account, grant.number), None)
            gone = grant.account in erased and grant.began <= erased[grant.account]
            if lot is None and grant.acknowledged and not gone:
                yield f"grant {grant.number} of {grant.account} was acknowledged and is lost"
            if lot is not None and lot.points != grant.points:
                yield f"grant {grant.number} has {lot.points} points, expected {grant.points}"
        for account, number in stored:
            yield f"grant {number} of {account} was never asked for"

    def _redemptions(self, redemptions: list[Redemption], erased: Mapping[Account, datetime]) -> Iterator[str]:
        stored = {one.id: one for one in redemptions}
        by_code = {one.coupon.code: one for one in redemptions if one.coupon}
        doubtful: dict[Account, int] = defaultdict(int)
        for wish in self.redeemings:
            found = stored.get(wish.identity) if wish.identity else by_code.get(wish.code or "")
            if found is not None:
                stored.pop(found.id, None)
            gone = wish.account in erased and wish.began <= erased[wish.account]
            yield from _redeeming(wish, found, gone=gone)
            if wish.identity is None and wish.unknown:
                doubtful[wish.account] += 1
        for redemption in stored.values():
            doubtful[redemption.account] -= 1
            if doubtful[redemption.account] < 0:
                yield f"redemption {redemption.id} of {redemption.account} was not asked for"

    def _answers(self, lots: list[Lot], redemptions: list[Redemption]) -> Iterator[str]:
        given_back = {lot.source_id: lot for lot in lots if lot.kind is LotKind.CHARGEBACK}
        for redemption in redemptions:
            created, failed = self.created.get(redemption.id, []), self.charged_back.get(redemption.id, [])
            possible = set()
            if created:
                possible.add(RedemptionState.ISSUED)
            if failed:
                possible.add(RedemptionState.CHARGED_BACK)
            if redemption.state not in (possible or {RedemptionState.REQUESTED}):
                yield f"redemption {redemption.id} is {redemption.state}, answered were {sorted(possible)}"
            lot = given_back.get(redemption.id)
            if lot is not None and lot.created_at not in failed:
                yield f"redemption {redemption.id} was given back at {lot.created_at}, no chargeback is of then"
            if lot is not None and lot.valid_until != self.version_at(lot.created_at).expiry(lot.created_at):
                yield f"what redemption {redemption.id} gave back is valid until {lot.valid_until}"

    def _dead(self, dead: list[LogRecord]) -> Iterator[str]:
        sources = {_source(record) for record in dead}
        for record in self.must_be_dead:
            if (record.topic, record.partition, record.offset) not in sources:
                yield f"malformed record {record.topic}/{record.partition}/{record.offset} is not a dead letter"
        malformed = {(record.topic, record.partition, record.offset) for record in self.must_be_dead}
        for topic, partition, offset in sorted(sources - malformed):
            if topic == self.orders_topic:  # answers of the coupon service may come too late for any redemption
                yield f"good record {topic}/{partition}/{offset} is a dead letter"


def _redeeming(wish: Redeeming, found: Redemption | None, *, gone: bool) -> Iterator[str]:
    """What was answered, against what is there."""
    if found is None:
        if wish.code is not None and not gone:
            yield f"code {wish.code} was answered, its redemption does not exist"
        return
    if wish.code is not None and not gone and (found.coupon is None or found.coupon.code != wish.code):
        yield f"code {wish.code} was answered, redemption {found.id} has another"
    if wish.refused:
        yield f"redemption {found.id} was refused and exists"
    if (found.points, found.account) != (wish.points, wish.account):
        yield f"redemption {found.id} took {found.points} of {found.account}, not what was asked for"


def _source(record: LogRecord) -> tuple[str, int, int]:
    headers = {name.removeprefix("rewardpoints-dead-letter-source-"): value for name, value in record.headers}
    topic, partition, offset = (headers[name] or b"" for name in ("topic", "partition", "offset"))
    return topic.decode(), int(partition), int(offset)


def _requests(redemptions: list[Redemption], requests: list[LogRecord], twice: Container[str | None]) -> Iterator[str]:
    published: dict[str, set[bytes]] = defaultdict(set)
    for record in requests:
        content = json.loads(record.value or b"")
        published[content["id"]].add(record.value or b"")
    for redemption in redemptions:
        if redemption.coupon is None:
            continue
        if redemption.publish_at is not None:
            yield f"redemption {redemption.id}: its coupon request is still due"
        contents = published.get(redemption.id)
        if not contents:
            yield f"redemption {redemption.id}: its coupon request was never published"
        elif redemption.id not in twice and redemption.coupon.code not in {json.loads(one)["code"] for one in contents}:
            yield f"redemption {redemption.id}: its coupon request has another code"
    for identity, contents in published.items():
        if len(contents) > 1 and identity not in twice:
            yield f"redemption {identity}: its coupon request was published in {len(contents)} forms"
