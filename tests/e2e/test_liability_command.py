"""``rewardpoints liability`` as an operator types it."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.lots import Lot
from tests.altered import altered
from tests.contracts.ledgers import an_intent, order_lot
from tests.e2e.stack import OTHER_TENANT, TENANT, Stack
from tests.typed import typed

PAST, LATER = datetime(2024, 3, 31, 23, tzinfo=UTC), datetime(2099, 6, 1, tzinfo=UTC)


def a_lot(order: str, points: int, *, tenant: str = TENANT, site: str = "main", until: datetime = LATER) -> Lot:
    lot = order_lot(order, points, account=account_of(tenant, "c1"), created_at=PAST, site_code=site)
    return altered(lot, valid_until=until)


async def test_as_a_table_as_csv_and_as_json(stack: Stack) -> None:
    await stack.ledger.lots.add_batch(
        [
            a_lot("o1", 1000),
            a_lot("o2", 300, until=PAST + timedelta(days=45)),
            a_lot("o3", 50, site="other", until=LATER + timedelta(days=1)),
            a_lot("o4", 7, tenant=OTHER_TENANT),
        ]
    )
    await stack.ledger.redemptions.redeem(an_intent(200, account=account_of(TENANT, "c1")))
    month = f"{datetime.now(UTC):%Y-%m}"
    environment = stack.environment()

    answer = await typed(environment, "liability", "--tenant", TENANT, "--json")
    report = json.loads(answer.out)
    assert (answer.status, report["outstanding"], report["accounts"], report["breakage"]) == (0, 850, 1, 1.0)
    shown = ("earned", "redeemed", "expired", "expiring")
    assert {row["period"]: tuple(row[name] for name in shown) for row in report["periods"]} == {
        "2024-03": (1350, 0, 0, 0),
        "2024-05": (0, 0, 300, 0),
        month: (0, 200, 0, 0),
        "2099-06": (0, 0, 0, 850),
    }
    assert [row["outstanding"] for row in report["periods"]] == [1350, 1050, 850, None]

    everything = json.loads((await typed(environment, "liability", "--json", "--by", "year")).out)
    assert (everything["outstanding"], everything["periods"][0]["period"]) == (857, "2024")
    other = json.loads((await typed(environment, "liability", "--json", "--site", "other")).out)
    assert (other["outstanding"], other["siteCode"]) == (50, "other")
    then = json.loads((await typed(environment, "liability", "--json", "--tenant", TENANT, "--at", "2024-04-01")).out)
    assert (then["outstanding"], then["totals"]["redeemed"], then["breakage"]) == (1350, 0, None)

    answer = await typed(environment, "liability", "--csv", "--by", "quarter", "--tenant", OTHER_TENANT)
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert [(row["quarter"], row["earned"], row["outstanding"], row["expiring"]) for row in rows] == [
        ("2024-Q1", "7", "7", "0"),
        ("2099-Q2", "0", "", "7"),
    ]
    answer = await typed(environment, "liability", "--tenant", TENANT)
    assert answer.out.startswith("850 points outstanding in 1 accounts at 20")
    assert "100.00% had expired unspent (breakage)" in answer.out
    assert ["2024-03", "1,350", "1,350"] in [line.split() for line in answer.out.splitlines()]


async def test_what_is_refused(stack: Stack) -> None:
    environment = stack.environment()
    assert (await typed(environment, "liability", "--csv", "--json")).status == 2
    assert (await typed(environment, "liability", "--by", "week")).status == 2
    assert (await typed(environment, "liability", "--at", "soon")).status == 2
