"""Verify: what must hold in the ledger whatever happened, checked account by account in bounded memory."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol

from rewardpoints.domain.accounts import Account, tenant_of, tenant_range
from rewardpoints.domain.adjustments import adjustment_of
from rewardpoints.domain.earned_lots import misearned
from rewardpoints.domain.invariants import AccountUnderTest, Invariant, Violation, broken
from rewardpoints.domain.lots import LotKind
from rewardpoints.domain.ports import Clock, SiteKey
from rewardpoints.domain.redemptions import RedemptionState
from rewardpoints.domain.site_settings import SettingsHistory
from rewardpoints.ledger.account_pages import EVERY_ACCOUNT, PATIENCE_SECONDS, AccountPages, Entries, about_entries
from rewardpoints.ledger.documents import lot_from, redemption_from
from rewardpoints.ledger.driver import Database, Document, driver_errors

TOMBSTONES_PER_READ: Final = 5000
MOST_SITES: Final = 10_000
"""Sites whose settings are kept during a run; with more, all are read again."""


class Histories(Protocol):
    """Where the site settings are read."""

    async def histories(self, sites: Any) -> Mapping[SiteKey, SettingsHistory]:
        """All versions of each of the sites."""
        ...


class Requests(Protocol):
    """What is known of the coupon requests that were published."""

    def judge(self, case: AccountUnderTest, documents: Sequence[Document]) -> Iterable[Violation]:
        """What is wrong between an account's redemptions, with their documents, and its requests."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which accounts to judge: all, a tenant's, or one; and of these those that gained an entry since an instant."""

    tenant: str | None = None
    account: Account | None = None
    since: datetime | None = None

    @property
    def accounts(self) -> tuple[str, str]:
        """``low <= account < high``."""
        if self.account is not None:
            return self.account, f"{self.account}\x00"
        return tenant_range(self.tenant) if self.tenant is not None else EVERY_ACCOUNT


class Verification:
    """One run. Holds a page of accounts and of tombstones at a time, whatever the size of the ledger.

    ``accounts`` and ``entries`` are what has been judged so far. With ``settings`` every order's lot is also compared
    with what its order earns, with ``requests`` every redemption with what was published for it.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        settings: Histories | None = None,
        requests: Requests | None = None,
        pages: AccountPages | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings
        self._requests = requests
        self._pages = pages or AccountPages(database, patience_seconds=PATIENCE_SECONDS)
        self._sites: dict[SiteKey, SettingsHistory] = {}
        self.accounts = 0
        self.entries = 0

    async def violations(self, scope: Scope) -> AsyncGenerator[Violation]:
        """The broken invariants, account by account in the order of their keys.

        Every account is judged by one snapshot, so it may run beside the service. An account being erased at this
        moment may be reported; it is gone in the next run.

        Raises:
            LedgerUnavailable: at any step.
        """
        began = self._clock()
        tombstones = self._tombstones(scope.accounts)
        tombstone = await anext(tombstones, None)
        async with aclosing(self._pages.entries(scope.accounts, since=scope.since)) as walk, aclosing(tombstones):
            async for entries in walk:
                while tombstone and tombstone[0] < entries.account:
                    tombstone = await anext(tombstones, None)
                erased_at = tombstone[1] if tombstone and tombstone[0] == entries.account else None
                if erased_at is not None and erased_at > began:  # perhaps erased after the snapshot: the next run's
                    erased_at = None
                await self._read_settings(entries)
                now = self._clock()
                for violation in account_violations(entries, erased_at, now, self._histories, self._requests):
                    yield violation
                self.accounts += 1
                self.entries += len(entries.lots) + len(entries.redemptions)

    async def about(self, scope: Scope) -> int | None:
        """About how many entries a run over everything will judge, from the server's statistics; else None.

        Raises:
            LedgerUnavailable
        """
        return await about_entries(self._database) if scope == Scope() else None

    @property
    def _histories(self) -> Mapping[SiteKey, SettingsHistory] | None:
        return self._sites if self._settings else None

    async def _read_settings(self, entries: Entries) -> None:
        if self._settings is None:
            return
        tenant = tenant_of(Account(entries.account))
        sites = {(tenant, lot["siteCode"]) for lot in entries.lots if lot.get("kind") == LotKind.ORDER.value}
        if not all(isinstance(site, str) for _, site in sites):
            return  # the entry will be told to be unreadable
        if sites - self._sites.keys():
            if len(self._sites) > MOST_SITES:
                self._sites = {}
            self._sites |= await self._settings.histories(sites)

    async def _tombstones(self, accounts: tuple[str, str]) -> AsyncGenerator[tuple[str, datetime]]:
        wanted = {"$gte": accounts[0], "$lt": accounts[1]}
        while True:
            with driver_errors():
                found = await (
                    self._database.tombstones.find({"_id": wanted})
                    .sort("_id", 1)
                    .limit(TOMBSTONES_PER_READ)
                    .to_list(None)
                )
            for document in found:
                yield document["_id"], document["erasedAt"]
            if len(found) < TOMBSTONES_PER_READ:
                return
            wanted = {"$gt": found[-1]["_id"], "$lt": accounts[1]}


async def violations(
    database: Database, clock: Clock, *, tenant: str | None = None, pages: AccountPages | None = None
) -> AsyncGenerator[Violation]:
    """What ``Verification`` finds in all accounts, or a tenant's, without looking at site settings.

    Raises:
        LedgerUnavailable: at any step.
    """
    async with aclosing(Verification(database, clock, pages=pages).violations(Scope(tenant=tenant))) as found:
        async for violation in found:
            yield violation


def account_violations(
    entries: Entries,
    erased_at: datetime | None,
    now: datetime,
    settings: Mapping[SiteKey, SettingsHistory] | None = None,
    requests: Requests | None = None,
) -> Iterator[Violation]:
    """The broken invariants of one account, by its documents as they are stored."""
    account = Account(entries.account)
    try:
        lots = [lot_from(document) for document in entries.lots]
        redemptions = [redemption_from(document) for document in entries.redemptions]
    except (KeyError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
        problem = f"an entry cannot be read: {error!r}"
        yield Violation(account=account, invariant=Invariant.READABLE, problem=problem)
        return
    case = AccountUnderTest(account, lots, redemptions, now, erased_at)
    found = [*_stored(case, entries), *broken(case)]
    if settings is not None:
        tenant = tenant_of(account)
        nothing = SettingsHistory(())
        for lot in lots:
            found += misearned(case, lot, settings.get((tenant, lot.site_code), nothing))
    if requests is not None:
        # What the topic has was published, whatever the ledger was told of it
        found = [one for one in found if one.invariant is not Invariant.COUPON_REQUEST]
        found += requests.judge(case, entries.redemptions)
    yield from _with_corrections(case, found)


def _stored(case: AccountUnderTest, entries: Entries) -> Iterator[Violation]:
    """What only the documents show."""
    for document, lot in zip(entries.lots, case.lots, strict=True):
        if document["open"] is not lot.open:
            problem = f"lot {lot.id}: open is {document['open']} with {lot.remaining} points remaining"
            yield case.violation(Invariant.LOT, lot.id, problem)
    answered = {RedemptionState.ISSUED: "issuedAt", RedemptionState.CHARGED_BACK: "chargedBackAt"}
    for document, redemption in zip(entries.redemptions, case.redemptions, strict=True):
        name = f"redemption {redemption.id}"
        for state, when in answered.items():
            if (when in document) != (redemption.state is state):
                problem = f"{name}: is {redemption.state.value}, {when} is {'' if when in document else 'not '}set"
                yield case.violation(Invariant.REDEMPTION, redemption.id, problem)
        waits = redemption.state is RedemptionState.REQUESTED
        if waits and redemption.publish_at is None and "publishedAt" not in document:
            problem = f"{name}: its coupon request was never published and is not due"
            yield replace(case.violation(Invariant.COUPON_REQUEST, redemption.id, problem), publish_again=True)


def _with_corrections(case: AccountUnderTest, found: Iterable[Violation]) -> Iterator[Violation]:
    """The violations, marked where an adjustment corrects them; a wrong balance is where its wrong lots are."""
    marked = [
        replace(one, corrected=adjustment_of(case.account, one.key, case.lots, case.redemptions) is not None)
        for one in found
    ]
    sources = [one for one in marked if one.invariant in {Invariant.DRAWS, Invariant.LOT} and one.correction]
    explained = bool(sources) and all(one.corrected for one in sources)
    for one in marked:
        yield replace(one, corrected=explained) if one.invariant is Invariant.BALANCE and not one.corrected else one
