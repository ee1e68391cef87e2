"""Verify against a ledger: what is planted is found by name in its scope, and an adjustment corrects it."""

from datetime import UTC, timedelta
from decimal import Decimal
from typing import Any

import pytest

from rewardpoints.domain.accounts import Account, account_of
from rewardpoints.domain.adjustments import Adjustment
from rewardpoints.domain.errors import IdempotencyConflict, InvalidInput, LedgerUnavailable, NoAccount, TooFewPoints
from rewardpoints.domain.instants import add_months
from rewardpoints.domain.invariants import Invariant, Violation
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.ledger.account_pages import EVERY_ACCOUNT, AccountPages
from rewardpoints.ledger.documents import lot_document
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.verify import Scope, Verification
from rewardpoints.operate.adjust import adjust
from tests.altered import altered
from tests.contracts.ledgers import ACCOUNT, OTHER, a_version, an_intent, contents, lot_back, now, order_lot

EVERYTHING = Scope()


async def judged(ledger: Ledger, scope: Scope = EVERYTHING, **pages: int) -> list[Violation]:
    reading = AccountPages(ledger.database, **pages)
    verification = Verification(ledger.database, now, settings=ledger.site_settings, pages=reading)
    return [violation async for violation in verification.violations(scope)]


def an_earned_lot(order: str, account: Account = ACCOUNT) -> Lot:
    """Earned an hour ago under ``a_version(1)``: 66.67 x 1.50 = 100, valid for 12 months."""
    lot = order_lot(order, 100, account=account)
    assert lot.earned is not None
    earned = altered(lot.earned, factor=Decimal("1.50"), value=Decimal("66.67"))
    return altered(lot, earned=earned, valid_until=add_months(lot.created_at, 12, UTC))


async def a_busy_account(ledger: Ledger, account: Account = ACCOUNT) -> Redemption:
    """Orders, redemptions of every kind, and a chargeback: all as it should be. Returns the one charged back."""
    if (await ledger.site_settings.history("shop", "main")).latest is None:
        version = a_version(1)
        assert await ledger.site_settings.append(altered(version, effective_at=version.saved_at - timedelta(days=900)))
    await ledger.lots.add_batch([an_earned_lot("o1", account), an_earned_lot("o2", account)])
    first, second, _ = [
        await ledger.redemptions.redeem(an_intent(30, key, coupon=True, account=account)) for key in "abc"
    ]
    await ledger.redemptions.charge_back(first, lot_back(first), reason="out of codes")
    await ledger.redemptions.mark_published(second.id)
    await ledger.redemptions.mark_issued(second, at=now())
    await ledger.redemptions.redeem(an_intent(5, "d", account=account))
    return first


async def plant(ledger: Ledger, what: str, account: Account = ACCOUNT) -> str:
    """Write past the service; returns the id of the entry that is wrong then."""
    database = ledger.database
    lots = await database.lots.find({"account": account}).to_list(None)
    redemptions = await database.redemptions.find({"account": account}).to_list(None)
    lot: dict[str, Any] = next(one for one in lots if one["kind"] == "order" and one["remaining"] == one["points"])
    drawn: dict[str, Any] = next(one for one in lots if one["kind"] == "order" and one["remaining"] < one["points"])
    requested: dict[str, Any] = next(one for one in redemptions if one["state"] == "requested")
    match what:
        case "wrong lot":
            await database.lots.update_one({"_id": lot["_id"]}, {"$set": {"points": 150, "remaining": 150}})
            return str(lot["_id"])
        case "lot that lost too much":
            remaining = drawn["remaining"] - 2
            await database.lots.update_one(
                {"_id": drawn["_id"]}, {"$set": {"remaining": remaining, "open": remaining > 0}}
            )
            return str(drawn["_id"])
        case "doubled draw":
            await database.redemptions.update_one(
                {"_id": requested["_id"]}, {"$set": {"draws": requested["draws"] * 2}}
            )
            return str(requested["_id"])
        case "second chargeback":
            back = next(one for one in lots if one["kind"] == "chargeback")
            await database.lots.insert_one({**back, "_id": f"again-{account}"})
            return f"again-{account}"
        case "unpublished request":
            await database.redemptions.update_one({"_id": requested["_id"]}, {"$unset": {"publishAt": ""}})
            return str(requested["_id"])
    raise AssertionError(what)


async def test_a_ledger_as_the_service_makes_it_has_no_violation(ledger: Ledger) -> None:
    await a_busy_account(ledger)
    await a_busy_account(ledger, OTHER)
    assert await judged(ledger) == []


@pytest.mark.parametrize(
    ("what", "invariant", "points"),
    [
        ("wrong lot", Invariant.EARNING, -50),
        ("lot that lost too much", Invariant.DRAWS, 2),
        ("doubled draw", Invariant.REDEMPTION, None),
        ("second chargeback", Invariant.CHARGEBACK, -30),
        ("unpublished request", Invariant.COUPON_REQUEST, None),
    ],
)
async def test_what_is_planted_is_named(ledger: Ledger, what: str, invariant: Invariant, points: int | None) -> None:
    await a_busy_account(ledger)
    await a_busy_account(ledger, OTHER)
    entry = await plant(ledger, what)
    before = await contents(ledger)
    violations = await judged(ledger)
    assert {violation.account for violation in violations} == {ACCOUNT}
    at_entry = [violation for violation in violations if violation.entry == entry and violation.invariant is invariant]
    assert at_entry, violations
    assert {one.correction.points if one.correction else None for one in at_entry} == {points}
    assert await contents(ledger) == before, "it repairs nothing"


@pytest.mark.parametrize("what", ["wrong lot", "lot that lost too much", "second chargeback"])
async def test_an_adjustment_as_proposed_corrects_it_and_twice_is_once(ledger: Ledger, what: str) -> None:
    await a_busy_account(ledger)
    await plant(ledger, what)
    before = await ledger.accounts.balance(ACCOUNT, now())
    assert before is not None
    (violation,) = [one for one in await judged(ledger) if one.correction]
    correction = violation.correction
    assert correction is not None
    adjustment = Adjustment(
        account=ACCOUNT,
        points=correction.points,
        key=violation.key,
        reason="Correction",
        site_code=correction.site_code,
        valid_until=correction.valid_until,
    )
    done = await adjust(ledger, now, adjustment)
    assert (done.added, done.balance_before, done.balance) == (True, before, before + correction.points)
    after = await contents(ledger)
    again = await adjust(ledger, now, adjustment)
    assert (again.added, again.entry.id, again.balance) == (False, done.entry.id, done.balance)
    assert await contents(ledger) == after
    violations = await judged(ledger)
    assert violations
    assert all(one.corrected for one in violations), violations
    assert await ledger.accounts.balance(ACCOUNT, now()) == before + correction.points


async def test_what_happens_after_a_correction_is_found(ledger: Ledger) -> None:
    await a_busy_account(ledger)
    await plant(ledger, "lot that lost too much")
    (violation,) = [one for one in await judged(ledger) if one.correction]
    assert violation.correction is not None
    points, site = violation.correction.points, violation.correction.site_code
    await adjust(ledger, now, Adjustment(account=ACCOUNT, points=points, key=violation.key, reason="r", site_code=site))
    await plant(ledger, "lot that lost too much")
    uncorrected = [one for one in await judged(ledger) if not one.corrected]
    assert [one.points for one in uncorrected if one.invariant is Invariant.DRAWS] == [4]


async def test_an_adjustment_is_refused_and_changes_nothing(ledger: Ledger) -> None:
    await ledger.lots.add_batch([order_lot("o1", 100)])
    given = Adjustment(account=ACCOUNT, points=10, key="k", reason="why", site_code="main")
    await adjust(ledger, now, given)
    before = await contents(ledger)
    refusals: list[tuple[Adjustment, type[Exception]]] = [
        (altered(given, points=11), IdempotencyConflict),
        (altered(given, points=-10), IdempotencyConflict),
        (altered(given, reason="other"), IdempotencyConflict),
        (altered(given, key="k2", points=-111), TooFewPoints),
        (altered(given, key="k3", valid_until=now() - timedelta(days=1)), InvalidInput),
        (altered(given, account=OTHER), NoAccount),
    ]
    for adjustment, refusal in refusals:
        with pytest.raises(refusal):
            await adjust(ledger, now, adjustment)
    assert await contents(ledger) == before
    opened = await adjust(ledger, now, altered(given, account=OTHER), open_account=True)
    assert (opened.balance_before, opened.balance) == (0, 10)
    assert await judged(ledger, Scope(account=OTHER)) == []


async def test_the_scope_is_all_a_tenant_or_a_customer(ledger: Ledger) -> None:
    rival = account_of("rival", "c1")
    for account in (ACCOUNT, OTHER, rival):
        broken_lot = altered(order_lot("o1", account=account), id=f"odd {account}")
        await ledger.database.lots.insert_one(lot_document(broken_lot))

    async def accounts(scope: Scope, **pages: int) -> list[str]:
        violations = await judged(ledger, scope, **pages)
        return sorted({violation.account for violation in violations if violation.invariant is Invariant.ONE_LOT})

    for pages in ({}, {"keys_per_read": 1, "entries_per_snapshot": 1}):
        assert await accounts(EVERYTHING, **pages) == sorted([ACCOUNT, OTHER, rival])
        assert await accounts(Scope(tenant="shop"), **pages) == [ACCOUNT, OTHER]
        assert await accounts(Scope(tenant="sho"), **pages) == []
        assert await accounts(Scope(tenant="shop", account=OTHER), **pages) == [OTHER]
        assert await accounts(Scope(account=account_of("shop", "c")), **pages) == []


async def test_since_judges_only_accounts_that_gained_an_entry(ledger: Ledger) -> None:
    long_ago = now() - timedelta(days=10)
    for number, account in enumerate((ACCOUNT, OTHER, account_of("shop", "c3"), account_of("shop", "c4"))):
        lot = altered(order_lot("o1", 100, account=account), recorded_at=long_ago)
        await ledger.lots.add_batch([lot])
        if number == 2:
            await ledger.redemptions.redeem(an_intent(5, account=account))
        if number == 3:
            await ledger.lots.add_batch([order_lot("o2", account=account)])
        await ledger.database.lots.update_one({"_id": lot.id}, {"$set": {"sourceId": "other"}})
    for pages in ({}, {"keys_per_read": 1, "entries_per_snapshot": 1}):
        violations = await judged(ledger, Scope(since=now() - timedelta(days=1)), **pages)
        assert sorted({one.account for one in violations}) == ["shop/c3", "shop/c4"]
        violations = await judged(ledger, Scope(since=long_ago), **pages)
        assert len({one.account for one in violations}) == 4


async def test_tombstones_are_merged_in_order(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardpoints.ledger.verify.TOMBSTONES_PER_READ", 2)
    accounts = [account_of("shop", f"c{number}") for number in range(9)]
    for account in accounts[::2]:
        await ledger.tombstones.write(account)
    for account in accounts[1:]:  # half of them as if the erasure had left it
        await ledger.lots.add_batch([order_lot("o1", account=account)])
    violations = [one for one in await judged(ledger) if one.invariant is Invariant.ERASED]
    assert [one.account for one in violations] == accounts[2::2]


async def test_a_run_counts_what_it_judged(ledger: Ledger) -> None:
    await a_busy_account(ledger)
    await ledger.lots.add_batch([order_lot("o1", account=OTHER)])
    verification = Verification(ledger.database, now)
    assert [one async for one in verification.violations(EVERYTHING)] == []
    assert (verification.accounts, verification.entries) == (2, 3 + 4 + 1)


async def test_a_walk_goes_on_after_a_server_that_was_away(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = [account_of("shop", f"c{number}") for number in range(4)]
    await ledger.lots.add_batch([order_lot("o1", account=account) for account in accounts])
    read_keys, calls = AccountPages._read_keys, 0

    async def at_times(self: AccountPages, collection: Any, wanted: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise LedgerUnavailable("away")
        return await read_keys(self, collection, wanted)

    monkeypatch.setattr(AccountPages, "_read_keys", at_times)
    monkeypatch.setattr("rewardpoints.ledger.account_pages.LONGEST_PAUSE_SECONDS", 0.01)

    patient = AccountPages(ledger.database, keys_per_read=2, patience_seconds=60)
    assert [entries.account async for entries in patient.entries(EVERY_ACCOUNT)] == accounts
    hasty = AccountPages(ledger.database, keys_per_read=2)
    calls = 0
    with pytest.raises(LedgerUnavailable):
        await anext(hasty.entries(EVERY_ACCOUNT))
