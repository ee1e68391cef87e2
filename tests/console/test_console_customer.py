"""The pages of a customer and of the liability."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.domain.history import History
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.redemptions import CouponOrder, RedemptionState
from tests.altered import altered
from tests.console.fakes import TENANT
from tests.console.harness import HOSTILE, Desk, elements_of, scripts_of, text_of
from tests.domain.builders import a_lot, a_redemption


def fill(desk: Desk, customer_id: str = "C1", *, tenant: str = TENANT, **changes: Any) -> datetime:
    """An account with a used, an open and an expired lot."""
    now, account = desk.clock(), account_of(tenant, customer_id)

    def lot(name: str, points: int, began: int, ends: int) -> Lot:
        made = a_lot(name, points, at=now - timedelta(days=began), valid_until=now + timedelta(days=ends))
        return altered(made, account=account, **changes)

    lots = [lot("old", 50, 90, -30), lot("spent", 40, 20, 100), lot("open", 209, 10, 200)]
    redemption = altered(
        a_redemption("r", [(lots[1], 40)], at=now - timedelta(days=5)),
        account=account,
        state=RedemptionState.REQUESTED,
        coupon=CouponOrder(code="CODE-1", option={"id": "o", "name": "Voucher"}),
        description=changes.get("description", "5 Euro voucher"),
    )
    lots[1] = altered(lots[1], remaining=0)
    desk.explainer.histories[account] = History(account, lots, [redemption])
    return now


async def test_it_says_why_a_customer_has_their_points(desk: Desk) -> None:
    fill(desk)
    answer = await (await desk.signed_in()).get("/customer", params={"customer": "C1"})
    assert answer.status_code == 200
    said = text_of(answer.text)
    for words in (
        "Balance 209",
        "Expires next 209",
        "Lots 3",
        "by hand, open",
        "used up",
        "expired",
        "CODE-1",
        "requested",
    ):
        assert words in said
    assert "+209 249" in said
    assert "-40 209" in said
    bars = [one for one in elements_of(answer.text, "svg") if one.get("class") == "bar"]
    assert [one["aria-label"] for one in bars] == [
        "0 used, 209 remaining, 0 expired",
        "0 used, 0 remaining, 50 expired",
        "40 used, 0 remaining, 0 expired",
    ]
    paths = {one["class"] for one in elements_of(answer.text, "path")}
    assert paths == {"balance", "ahead"}
    assert not scripts_of(answer.text)


async def test_without_a_customer_it_asks_for_one(desk: Desk) -> None:
    answer = await (await desk.signed_in()).get("/customer")
    assert answer.status_code == 200
    assert "Name a customer" in answer.text
    assert not elements_of(answer.text, "table")


async def test_no_account_and_bad_ids_are_said(desk: Desk) -> None:
    browser = await desk.signed_in()
    for customer, status, words in [
        ("nobody", 404, "has no account"),
        ("x" * 300, 400, "256"),
        ("a\nb", 400, "control"),
    ]:
        answer = await browser.get("/customer", params={"customer": customer})
        assert answer.status_code == status
        assert words in text_of(answer.text)
    answer = await browser.get("/customer?customer=%ff")
    assert answer.status_code == 400


async def test_another_tenants_customer_is_nobody(desk: Desk) -> None:
    fill(desk, tenant="other")
    answer = await (await desk.signed_in(tenant=TENANT)).get("/customer", params={"customer": "C1"})
    assert answer.status_code == 404
    assert (await (await desk.signed_in(tenant="other")).get("/customer?customer=C1")).status_code == 200
    traversal = await (await desk.signed_in()).get("/customer", params={"customer": "../other/C1", "tenant": "other"})
    assert traversal.status_code == 404


async def test_hostile_ids_are_shown_as_text(desk: Desk) -> None:
    fill(desk, HOSTILE, description=HOSTILE, source_id=HOSTILE, public_id=HOSTILE, site_code=HOSTILE)
    page = (await (await desk.signed_in()).get("/customer", params={"customer": HOSTILE})).text
    assert not scripts_of(page)
    assert "<script>alert" not in page
    said = text_of(page)
    assert f"Customer {HOSTILE}" in said
    assert f"by hand, {HOSTILE}" in said


async def test_a_ledger_that_is_down_is_said(desk: Desk) -> None:
    desk.faults.plant("explainer.explain", LedgerUnavailable("no primary"))
    answer = await (await desk.signed_in()).get("/customer?customer=C1")
    assert answer.status_code == 503
    assert "MongoDB does not answer" in answer.text


async def test_a_balance_the_entries_do_not_make_is_said(desk: Desk) -> None:
    fill(desk)
    account = account_of(TENANT, "C1")
    history = desk.explainer.histories[account]
    wrong = [altered(lot, remaining=208) if lot.remaining == 209 else lot for lot in history.lots]
    desk.explainer.histories[account] = History(account, wrong, history.redemptions)
    said = text_of((await (await desk.signed_in()).get("/customer?customer=C1")).text)
    assert "The API answers 208 points, but the entries make 209" in said


async def test_long_accounts_are_shown_in_part(desk: Desk) -> None:
    account, now = account_of(TENANT, "C1"), desk.clock()
    lots = [
        altered(
            a_lot(str(n), 1, at=now - timedelta(hours=n), valid_until=now + timedelta(days=n + 1)),
            account=account,
        )
        for n in range(1000)
    ]
    desk.explainer.histories[account] = History(account, lots, [])
    page = (await (await desk.signed_in()).get("/customer?customer=C1")).text
    assert "800 more" in text_of(page)
    assert "The newest 200 of 1,000 entries" in text_of(page)
    assert len(page) < 500_000


async def test_liability_is_made_while_the_page_waits(desk: Desk) -> None:
    browser = await desk.signed_in()
    page = (await browser.get("/liability", params={"by": "year", "site": "a&b"})).text
    (part,) = [one for one in elements_of(page, "div") if "data-load" in one]
    assert part["data-load"] == "/console/liability?by=year&site=a%26b&part=1"
    assert "Adding up all accounts" in page
    assert not scripts_of(page)


async def test_liability_shows_what_expires_when(desk: Desk) -> None:
    now = fill(desk)
    fill(desk, "C2")
    fill(desk, "C3", tenant="other")
    browser = await desk.signed_in()
    for answer in (await browser.part("/liability"), await browser.get("/liability?now=1")):
        said = text_of(answer.text)
        assert "Outstanding points 418" in said
        assert "Accounts with points 2" in said
        assert f"{now + timedelta(days=200):%Y-%m}: 418" in said
        assert "Breakage 100.00%" in said
        assert [one["class"] for one in elements_of(answer.text, "rect")] == ["remaining"]


async def test_liability_of_one_site(desk: Desk) -> None:
    fill(desk)
    fill(desk, "C2", site_code="eu")
    said = text_of((await (await desk.signed_in()).part("/liability", site="eu", by="quarter")).text)
    assert "Outstanding points 209" in said
    assert "-Q" in said


async def test_no_liability_is_said(desk: Desk) -> None:
    said = text_of((await (await desk.signed_in()).part("/liability")).text)
    assert "No points are outstanding." in said
    assert "No points have been given yet." in said


@pytest.mark.parametrize("query", [{"by": "week"}, {"site": "x" * 300}, {"by": HOSTILE}])
async def test_liability_refuses_what_it_does_not_know(desk: Desk, query: dict[str, str]) -> None:
    answer = await (await desk.signed_in()).get("/liability", params=query)
    assert answer.status_code == 400
    assert not scripts_of(answer.text)


async def test_liability_says_when_the_ledger_is_down(desk: Desk) -> None:
    desk.faults.plant("liability.report", LedgerUnavailable("no primary"))
    answer = await (await desk.signed_in()).part("/liability")
    assert answer.status_code == 503
    assert "MongoDB does not answer" in answer.text


async def test_a_site_with_a_hostile_name_is_text(desk: Desk) -> None:
    page = (await (await desk.signed_in()).get("/liability", params={"site": HOSTILE, "now": "1"})).text
    assert not scripts_of(page)
    assert [one["value"] for one in elements_of(page, "input") if one["name"] == "site"] == [HOSTILE]
