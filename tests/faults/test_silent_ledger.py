"""A ledger whose MongoDB has fallen silent: what has a bound keeps it."""

import asyncio

import pytest

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.settings import MongodbDriver
from tests.contracts.ledgers import ACCOUNT, an_intent, now, open_ledger, order_lot
from tests.faults.proxy import Proxy, Way

LONG_SECONDS = 60
"""Time-outs of the client that must not be what ends the wait."""

BOUND_SECONDS = 30.0


@pytest.mark.parametrize("ways", [frozenset(Way), frozenset({Way.TO_CLIENT})], ids=["both ways", "to the client"])
@pytest.mark.parametrize("driver", list(MongodbDriver), ids=str)
async def test_redeeming_and_closing_end_in_time(
    mongodb_uri: str, database_name: str, driver: MongodbDriver, ways: frozenset[Way]
) -> None:
    address = mongodb_uri.removeprefix("mongodb://").partition("/")[0]
    if "," in address or "@" in address:
        pytest.skip("a proxy stands in front of one server that asks for no password")
    patient = {"operation_timeout_seconds": LONG_SECONDS, "server_selection_timeout_seconds": LONG_SECONDS}
    async with Proxy(address) as proxy:
        uri = mongodb_uri.replace(address, proxy.address)
        ledger = open_ledger(uri, database_name, driver, mongodb=patient, redeem_timeout_seconds=5)
        try:
            await ledger.lots.add_batch([order_lot(f"o{number}") for number in range(3)])
            await asyncio.gather(*(ledger.redemptions.redeem(an_intent(5)) for _ in range(3)))
            assert await ledger.accounts.balance(ACCOUNT, now()) == 285
            proxy.swallow(ways)
            async with asyncio.timeout(BOUND_SECONDS):
                with pytest.raises(LedgerUnavailable):
                    await ledger.redemptions.redeem(an_intent(5))
        finally:
            async with asyncio.timeout(BOUND_SECONDS):
                await ledger.close()
