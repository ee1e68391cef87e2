"""No hot query may read more than it needs: explained, and timed for the embedded server, whose plans say little."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import BulkWriteError
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.lots import Lot
from rewardpoints.ledger import driver
from rewardpoints.ledger.account_pages import EVERY_ACCOUNT, AccountPages
from rewardpoints.ledger.coupon_backlog import coupon_backlog
from rewardpoints.ledger.documents import lot_document
from rewardpoints.ledger.driver import Collection
from rewardpoints.ledger.ledger import Ledger
from tests.contracts.ledgers import an_intent, now, open_ledger, order_lot
from tests.servers import chosen_servers

ACCOUNT = account_of("shop", "c00007")
DUPLICATE_KEY = 11000
SMALL, BIG = 40, 1000  # customers, with ten lots and five redemptions each
GENEROUS_RATIO = 5.0
NOISE_SECONDS = 0.004
LOOKS = 5

HotQuery = Callable[[Ledger], Awaitable[Any]]
HOT_QUERIES: dict[str, HotQuery] = {
    "balance": lambda ledger: ledger.accounts.balance(ACCOUNT, now()),
    "balances at once": lambda ledger: asyncio.gather(
        *(ledger.accounts.balance(account_of("shop", f"c{number:05}"), now()) for number in range(12))
    ),
    "balance of nobody": lambda ledger: ledger.accounts.balance(account_of("shop", "nobody"), now()),
    "summary": lambda ledger: ledger.accounts.summary_history(ACCOUNT),
    "some accounts of a tenant": lambda ledger: AccountPages(ledger.database).read(
        ACCOUNT, account_of("shop", "c00009")
    ),
    "redeem": lambda ledger: ledger.redemptions.redeem(an_intent(1, account=ACCOUNT)),
    "find a redemption": lambda ledger: ledger.redemptions.find(an_intent(1, "key", account=ACCOUNT).id),
    "due requests": lambda ledger: ledger.redemptions.take_due(now(), lease_seconds=0.001, limit=5),
    "counts": lambda ledger: ledger.redemptions.counts(now(), unanswered_after_seconds=60),
    "coupon backlog": lambda ledger: coupon_backlog(ledger.database, now(), overdue_after_seconds=60),
    "tombstones since a moment": lambda ledger: ledger.tombstones.since(now()),
    "duplicates of a batch": lambda ledger: ledger.lots.add_batch([order_lot("o1", account=ACCOUNT)]),
}


class Commands(CommandListener):
    """The reading and changing commands a ledger sent."""

    def __init__(self) -> None:
        self.sent: list[Mapping[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name in {"find", "aggregate", "update", "delete"}:
            self.sent.append(event.command)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


def embedded() -> bool:
    return chosen_servers()["mongodb"] == "embedded"


async def fill(ledger: Ledger, customers: int) -> None:
    """Ten lots and five redemptions for each customer; of every collection only a handful is due or unanswered."""
    old = now() - timedelta(days=30)
    lots, redemptions = list[Lot](), list[dict[str, Any]]()
    for number in range(customers):
        account = account_of("shop", f"c{number:05}")
        lots += [order_lot(f"o{n}", account=account) for n in range(10)]
        for n in range(5):
            intent = an_intent(1, f"k{n}", account=account, coupon=True)
            waits = number < 5
            redemptions.append(
                {
                    "_id": intent.id,
                    "account": account,
                    "state": "requested" if waits else "issued",
                    "points": 1,
                    "draws": [],
                    "description": "",
                    "siteCode": "main",
                    "createdAt": old + timedelta(seconds=n),
                    "fingerprint": "f",
                    **({"publishAt": old} if waits else {}),
                }
            )
    for start in range(0, len(lots), 1000):
        await insert(ledger.database.lots, [lot_document(lot) for lot in lots[start : start + 1000]])
    for start in range(0, len(redemptions), 1000):
        await insert(ledger.database.redemptions, redemptions[start : start + 1000])


async def insert(collection: Collection, documents: list[dict[str, Any]]) -> None:
    """All of them, also where the driver sent them twice: the embedded server takes a retried insert for a new one."""
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        if any(one["code"] != DUPLICATE_KEY for one in error.details["writeErrors"]):
            raise


@asynccontextmanager
async def filled(uri: str, database: str, customers: int) -> AsyncIterator[Ledger]:
    ledger = open_ledger(uri, database)
    try:
        await ledger.ensure_indexes()
        await fill(ledger, customers)
        yield ledger
    finally:
        if not embedded():  # which needs 3 ms for each document, and ends with the tests anyway
            await ledger.database.raw.client.drop_database(database)
        await ledger.close()


async def seconds(query: HotQuery, ledger: Ledger) -> float:
    taken = []
    for _ in range(9):
        began = time.perf_counter()
        await query(ledger)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def test_no_hot_query_takes_longer_in_a_bigger_ledger(mongodb_uri: str, database_name: str) -> None:
    async with (
        filled(mongodb_uri, f"{database_name}_small", SMALL) as small,
        filled(mongodb_uri, f"{database_name}_big", BIG) as big,
    ):
        slower = dict.fromkeys(HOT_QUERIES, "")
        for _ in range(LOOKS):  # a query that reads too much is slow at every look, a busy server only for a while
            slower = {name: told for name in slower if (told := await slower_in(big, small, HOT_QUERIES[name]))}
    assert slower == {}


async def slower_in(big: Ledger, small: Ledger, query: HotQuery) -> str:
    """How much longer it takes, where that is more than noise."""
    in_small, in_big = await seconds(query, small), await seconds(query, big)
    if in_big <= GENEROUS_RATIO * in_small + NOISE_SECONDS:
        return ""
    return f"{in_small * 1000:.1f} ms -> {in_big * 1000:.1f} ms"


def stages(plan: object) -> Iterator[str]:
    if isinstance(plan, Mapping):
        if isinstance(plan.get("stage"), str):
            yield plan["stage"]
        for value in plan.values():
            yield from stages(value)
    elif isinstance(plan, list):
        for value in plan:
            yield from stages(value)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    """What ledgers opened from here on send."""
    sent = Commands()

    def observed(_: object) -> Any:
        return lambda uri, **options: AsyncMongoClient(uri, event_listeners=[sent], **options)

    monkeypatch.setattr(driver, "_client_class", observed)
    return sent


@pytest.mark.parametrize("name", HOT_QUERIES)
async def test_no_hot_query_scans_a_collection(
    mongodb_uri: str, database_name: str, name: str, commands: Commands
) -> None:
    async with filled(mongodb_uri, database_name, 3 * 7) as ledger:
        commands.sent.clear()
        await HOT_QUERIES[name](ledger)
        assert commands.sent
        for command in list(commands.sent):
            explained = await ledger.database.raw.command("explain", plain(command), verbosity="queryPlanner")
            found = set(stages(explained))
            assert found
            # The embedded server's plan is not always what runs, above all of a change by ``_id``
            condition = command.get("filter") or command.get("updates") or command.get("deletes")
            if not (embedded() and ("_id" in str(condition) or "$in" in str(condition))):
                assert "COLLSCAN" not in found, command


async def test_a_walk_that_is_given_up_ends_on_the_server_too(
    mongodb_uri: str, database_name: str, commands: Commands
) -> None:
    async with filled(mongodb_uri, database_name, 1) as ledger:
        commands.sent.clear()
        assert len([one async for one in AccountPages(ledger.database).entries(EVERY_ACCOUNT)]) == 1
        walks = [command for command in commands.sent if command.get("sort") == {"account": 1}]
        bounds = {command["find"]: command.get("maxTimeMS") for command in walks}
        assert bounds == dict.fromkeys(("lots", "redemptions"), ledger.database.operation_timeout_seconds * 1000)


def plain(command: Mapping[str, Any]) -> dict[str, Any]:
    """A command without what belonged to its session."""
    session = {"lsid", "txnNumber", "autocommit", "startTransaction", "readConcern", "writeConcern"}
    return {
        field: value
        for field, value in command.items()
        if field not in session and not field.startswith("$") and field != "maxTimeMS"
    }
