"""The ports of the API in memory, with the ledger's semantics by the domain's own functions."""

import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rewardpoints.domain.accounts import Account, tenant_of
from rewardpoints.domain.errors import AccountExists, IdempotencyConflict, LedgerUnavailable, NoAccount
from rewardpoints.domain.history import History, SummaryHistory
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.lots import Lot, active_points, drawn, plan_draws
from rewardpoints.domain.ports import Clock, RedemptionCounts, SiteKey
from rewardpoints.domain.redeem_options import RedeemOption
from rewardpoints.domain.redemptions import Redemption, RedemptionIntent, redemption_from
from rewardpoints.domain.site_settings import SettingsHistory, SettingsVersion


class TestClock:
    """The real time, in the ledger's precision, moved ahead by what a test needs."""

    __test__ = False

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return to_milliseconds(datetime.now(UTC)) + self.ahead


class FakeAccounts:
    def __init__(self) -> None:
        self.lots: dict[str, Lot] = {}
        self.redemptions: dict[str, Redemption] = {}

    def entries(self, account: Account) -> History | None:
        lots = [lot for lot in self.lots.values() if lot.account == account]
        redemptions = [redemption for redemption in self.redemptions.values() if redemption.account == account]
        return History(account, lots, redemptions) if lots or redemptions else None

    def accounts(self, tenant: str) -> list[Account]:
        entries: list[Lot | Redemption] = [*self.lots.values(), *self.redemptions.values()]
        return sorted({entry.account for entry in entries if tenant_of(entry.account) == tenant})

    async def balance(self, account: Account, now: datetime) -> int | None:
        history = self.entries(account)
        return active_points(history.lots, now) if history else None

    async def history(self, account: Account) -> History | None:
        return self.entries(account)

    async def summary_history(self, account: Account) -> SummaryHistory | None:
        return self.entries(account)

    async def summary_histories(
        self, tenant: str, *, skip: int = 0, limit: int | None = None
    ) -> AsyncIterator[SummaryHistory]:
        for account in self.accounts(tenant)[skip : None if limit is None else skip + limit]:
            history = self.entries(account)
            assert history is not None
            yield history

    async def count(self, tenant: str) -> int:
        return len(self.accounts(tenant))

    async def open(self, lot: Lot) -> None:
        if self.entries(lot.account):
            raise AccountExists
        self.lots[lot.id] = lot

    async def add(self, lot: Lot) -> bool:
        stored = self.lots.setdefault(lot.id, lot)
        if stored is not lot and stored.fingerprint != lot.fingerprint:
            raise IdempotencyConflict
        return stored is lot

    async def erase(self, account: Account) -> None:
        self.lots = {key: lot for key, lot in self.lots.items() if lot.account != account}
        self.redemptions = {key: entry for key, entry in self.redemptions.items() if entry.account != account}


class FakeRedemptions:
    def __init__(self, accounts: FakeAccounts, clock: Clock) -> None:
        self._accounts = accounts
        self._clock = clock

    async def redeem(self, intent: RedemptionIntent, *, within_seconds: float | None = None) -> Redemption:
        del within_seconds  # it answers at once
        stored = self._accounts.redemptions.get(intent.id)
        if stored is not None:
            if stored.fingerprint != intent.fingerprint:
                raise IdempotencyConflict
            return stored
        history = self._accounts.entries(intent.account)
        if history is None:
            raise NoAccount
        now = self._clock()
        draws = plan_draws(history.lots, intent.points, now)
        for draw in draws:
            self._accounts.lots[draw.lot] = drawn(self._accounts.lots[draw.lot], draw)
        redemption = redemption_from(intent, draws, now)
        self._accounts.redemptions[intent.id] = redemption
        return redemption

    async def find(self, redemption_id: str) -> Redemption | None:
        return self._accounts.redemptions.get(redemption_id)

    async def charge_back(self, redemption: Redemption, lot: Lot, *, reason: str) -> bool:
        raise NotImplementedError

    async def mark_issued(self, redemption: Redemption, *, at: datetime) -> bool:
        raise NotImplementedError

    async def take_due(self, now: datetime, *, lease_seconds: float, limit: int) -> Sequence[Redemption]:
        raise NotImplementedError

    async def unanswered(self, before: datetime, *, limit: int) -> Sequence[Redemption]:
        raise NotImplementedError

    async def counts(self, now: datetime, *, unanswered_after_seconds: float) -> RedemptionCounts:
        raise NotImplementedError

    async def mark_published(self, redemption_id: str) -> None:
        stored = self._accounts.redemptions[redemption_id]
        self._accounts.redemptions[redemption_id] = dataclasses.replace(stored, publish_at=None)


class FakeRedeemOptions:
    def __init__(self) -> None:
        self.options: dict[tuple[str, str], RedeemOption] = {}

    async def all(self, tenant: str) -> Sequence[RedeemOption]:
        return [option for option in self.options.values() if option.tenant == tenant]

    async def find(self, tenant: str, option_id: str) -> RedeemOption | None:
        return self.options.get((tenant, option_id))

    async def create(self, option: RedeemOption) -> None:
        self.options[option.tenant, option.id] = option

    async def replace(self, option: RedeemOption, *, stored_version: int) -> bool:
        stored = self.options.get((option.tenant, option.id))
        if stored is None or stored.version != stored_version:
            return False
        self.options[option.tenant, option.id] = option
        return True

    async def delete(self, tenant: str, option_id: str) -> None:
        self.options.pop((tenant, option_id), None)


class FakeSettings:
    """Both ports of site settings: nothing is cached."""

    def __init__(self) -> None:
        self.versions: dict[SiteKey, list[SettingsVersion]] = {}

    async def history(self, tenant: str, site_code: str) -> SettingsHistory:
        return SettingsHistory(list(self.versions.get((tenant, site_code), ())))

    async def append(self, version: SettingsVersion) -> bool:
        versions = self.versions.setdefault((version.tenant, version.site_code), [])
        if version.version != len(versions) + 1:
            return False
        versions.append(version)
        return True

    async def histories(self, needed: Mapping[SiteKey, datetime]) -> Mapping[SiteKey, SettingsHistory]:
        return {site: await self.history(*site) for site in needed}


class RecordedCouponRequests:
    """Remembers what was to be published."""

    def __init__(self) -> None:
        self.redemptions: list[Redemption] = []

    def publish_soon(self, redemption: Redemption) -> None:
        self.redemptions.append(redemption)

    def of(self, account: Account) -> list[Redemption]:
        return [redemption for redemption in self.redemptions if redemption.account == account]


class FakeCheck:
    """A readiness check that says what it is told to."""

    def __init__(self) -> None:
        self.up = True

    async def check(self) -> Mapping[str, Any]:
        if not self.up:
            raise LedgerUnavailable("down")
        return {"version": "1"}


class Faults:
    """Exceptions to raise in place of what a port does, by ``port.method``."""

    def __init__(self) -> None:
        self._planted: dict[str, Any] = {}

    def plant(self, method: str, fault: Any) -> None:
        """``fault``: an exception to raise at every call, or a function to call in place of the method."""
        self._planted[method] = fault

    def clear(self) -> None:
        self._planted.clear()

    def over(self, name: str, port: Callable[[], Any]) -> Any:
        """The port, looked up at every call, with the faults planted in it."""
        return _Faulty(name, port, self._planted)


class _Faulty:
    def __init__(self, name: str, port: Callable[[], Any], planted: Mapping[str, Any]) -> None:
        self._name = name
        self._port = port
        self._planted = planted

    def __getattr__(self, method: str) -> Any:
        fault = self._planted.get(f"{self._name}.{method}")
        if isinstance(fault, Exception):

            def failing(*_arguments: Any, **_options: Any) -> Any:
                raise fault

            return failing
        return fault or getattr(self._port(), method)
