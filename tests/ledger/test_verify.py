"""Every broken invariant is found: planted one at a time into an account where all hold."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from rewardpoints.domain.lots import Draw, drawn, plan_draws
from rewardpoints.domain.redemptions import RedemptionState, redemption_from
from rewardpoints.ledger.account_pages import Entries
from rewardpoints.ledger.documents import lot_document, redemption_document
from rewardpoints.ledger.verify import account_violations
from tests.altered import altered
from tests.contracts.ledgers import ACCOUNT, an_intent, lot_back, manual_lot, now, order_lot

Plant = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], None]
AT = now()


def sound() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """An order's lot of 100 with 30 drawn, the charged-back redemption that drew them, and the lot given back."""
    lot = order_lot("o1", 100)
    redemption = redemption_from(an_intent(30, coupon=True), plan_draws([lot], 30, AT), AT)
    redemption = altered(redemption, state=RedemptionState.CHARGED_BACK, publish_at=None)
    document = redemption_document(redemption) | {"chargedBackAt": AT, "chargebackReason": ""}
    return lot_document(drawn(lot, Draw(lot.id, 30))), document, lot_document(lot_back(redemption))


def found(plant: Plant, *, erased_at: Any = None) -> list[str]:
    lot, redemption, returned = sound()
    plant(lot, redemption, returned)
    lots = [one for one in (lot, returned) if one]
    account = lots[0]["account"] if lots else ACCOUNT
    entries = Entries(account, lots, [redemption] if redemption else [])
    return [str(violation) for violation in account_violations(entries, erased_at, now())]


def unanswered(redemption: dict[str, Any], returned: dict[str, Any]) -> None:
    redemption.update(state="requested")
    del redemption["chargedBackAt"]
    returned.clear()


def spelt_otherwise(*documents: dict[str, Any]) -> None:
    for document in documents:
        document["account"] = "sh%6fp/c1"


def test_a_sound_account_has_no_violation() -> None:
    assert found(lambda *_: None) == []
    assert found(lambda *_: None, erased_at=AT - timedelta(days=1)) == []


PLANTED: dict[str, tuple[Plant, str]] = {
    "more than there was": (lambda lot, *_: lot.update(remaining=101), "101 of 100 points remain"),
    "less than nothing": (lambda lot, *_: lot.update(remaining=-1), "-1 of 100 points remain"),
    "closed with points": (lambda lot, *_: lot.update(open=False), "open is False with 70"),
    "drawn without a draw": (lambda lot, *_: lot.update(remaining=60), "40 points used, but its draws are 30"),
    "a draw on nothing": (lambda lot, *_: lot.clear(), "was drawn on, but does not exist"),
    "draws of another sum": (lambda _, one, __: one.update(points=31), "31 points, but its draws are 30"),
    "a lot drawn twice": (lambda _, one, __: one["draws"].append(dict(one["draws"][0])), "draws on one lot twice"),
    "done with a coupon": (lambda _, one, __: one.update(state="done"), "is done with a coupon"),
    "due though answered": (
        lambda _, one, __: one.update(publishAt=AT),
        "is charged_back, but its coupon request is due",
    ),
    "answered without a time": (lambda _, one, __: one.pop("chargedBackAt"), "chargedBackAt is not set"),
    "issued and charged back": (lambda _, one, __: one.update(issuedAt=AT), "issuedAt is set"),
    "not given back": (lambda _, __, back: back.clear(), "its points were not given back"),
    "given back without a chargeback": (lambda _, one, __: one.update(state="requested"), "which is not charged back"),
    "given back too much": (lambda _, __, back: back.update(points=50, remaining=50), "gives back 50 of 30 points"),
    "another order's id": (lambda lot, *_: lot.update(sourceId="o2"), "is not the one of order 'o2'"),
    "a field missing": (lambda lot, *_: lot.pop("kind"), "cannot be read"),
    "an unknown state": (lambda _, one, __: one.update(state="lost"), "cannot be read"),
    "drawn after it expired": (
        lambda lot, *_: lot.update(validUntil=AT - timedelta(minutes=1)),
        "which had expired",
    ),
    "a draw that took nothing": (
        lambda lot, *_: lot.update(remaining=100),
        "the balance is 130, but the history gives 100",
    ),
    "a request nobody published": (
        lambda _, one, back: unanswered(one, back),
        "was never published and is not due",
    ),
    "a key spelt otherwise": (
        spelt_otherwise,
        "is not spelt as this service spells it",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_broken_invariant_is_found(name: str) -> None:
    plant, expected = PLANTED[name]
    assert any(expected in problem for problem in found(plant)), found(plant)


def test_what_is_older_than_a_tombstone_is_found() -> None:
    problems = found(lambda *_: None, erased_at=now() + timedelta(seconds=1))  # the entries are made in the call
    assert sum("from before the customer was erased" in problem for problem in problems) == 3


def test_an_imported_lot_of_the_past_is_no_survivor() -> None:
    lot = manual_lot("m1", created_at=AT - timedelta(days=900))
    entries = Entries(ACCOUNT, [lot_document(lot)])
    assert list(account_violations(entries, AT - timedelta(hours=1), now())) == []
