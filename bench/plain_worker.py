"""A worker as a team would first write it: FastStream and Motor, one message at a time, an account read and written.

``python -m bench.plain_worker MONGODB_URI DATABASE KAFKA TOPIC GROUP EVENTS`` handles so many orders and prints figures
as JSON. It leaves out what the product does beside: settings by instant, dead letters, erasures, exact decimals.
"""

import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import uvloop
from dateutil.relativedelta import relativedelta
from faststream import FastStream
from faststream.kafka import KafkaBroker
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import BaseModel, Field

from bench.processes import Used, most_resident_megabytes, used
from tests.e2e.stack import TENANT

OWN = os.getpid()
IDLE_LIMIT = timedelta(minutes=10)


class Customer(BaseModel):
    """Who ordered."""

    id: str


class Order(BaseModel):
    """What is used of an order."""

    id: str
    status: str
    customer: Customer
    total_price: float = Field(alias="totalPrice")
    completed: datetime = Field(default_factory=lambda: datetime.now(UTC))


async def add_points(client: Any, accounts: Any, order: Order) -> None:
    """Read the account, add the points of the order to it unless they are there, write it back."""
    account_id = f"{TENANT}/{order.customer.id}"
    async with await client.start_session() as session, session.start_transaction():
        account = await accounts.find_one({"_id": account_id}, session=session)
        if account is None:
            account = {"_id": account_id, "balance": 0, "addedPoints": []}
        if any(entry["orderId"] == order.id for entry in account["addedPoints"]):
            return
        points = int(order.total_price)
        account["balance"] += points
        account["addedPoints"].append(
            {
                "orderId": order.id,
                "points": points,
                "description": f"Reward points for order {order.id}",
                "createdAt": order.completed,
                "validUntil": order.completed + relativedelta(months=36),
            }
        )
        await accounts.replace_one({"_id": account_id}, account, upsert=True, session=session)


async def work(uri: str, database: str, kafka: str, *, topic: str, group: str, events: int) -> dict[str, float]:
    """Handle ``events`` orders and answer the figures, from the first one handled on."""
    client: Any = AsyncIOMotorClient(uri, tz_aware=True)
    accounts = client[database]["accounts"]
    await client[database].create_collection("accounts")
    broker = KafkaBroker(kafka)
    app = FastStream(broker, logger=None)
    handled = asyncio.Event()
    times: list[float] = []
    marks: list[Used] = []

    @broker.subscriber(topic, group_id=group, auto_offset_reset="earliest")
    async def on_order(order: Order) -> None:
        if len(times) >= events:
            return
        if order.status == "COMPLETED":
            await add_points(client, accounts, order)
        times.append(time.monotonic())
        if len(times) in {1, events}:
            marks.append(used(OWN))
        if len(times) == events:
            handled.set()

    async with asyncio.timeout(IDLE_LIMIT.total_seconds()):
        running = asyncio.ensure_future(app.run())
        done = asyncio.ensure_future(handled.wait())
        await asyncio.wait((running, done), return_when=asyncio.FIRST_COMPLETED)
    if not handled.is_set():
        await running
        raise RuntimeError("the worker ended before it was done")
    cpu_seconds = marks[-1].cpu_seconds - marks[0].cpu_seconds
    await client.drop_database(database)
    return {
        "per_second": (events - 1) / (times[-1] - times[0]),
        "cpu_us": cpu_seconds / (events - 1) * 1e6,
        "megabytes": most_resident_megabytes(OWN),
    }


async def report(uri: str, database: str, kafka: str, *, topic: str, group: str, events: int) -> None:
    """Print the figures and end at once: FastStream's stop can wait without end for a fetch of aiokafka's."""
    figures = await work(uri, database, kafka, topic=topic, group=group, events=events)
    sys.stdout.write(f"{json.dumps(figures)}\n")
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Run it and print the figures."""
    *where, events = sys.argv[1:]
    uri, database, kafka, topic, group = where
    uvloop.run(report(uri, database, kafka, topic=topic, group=group, events=int(events)))


if __name__ == "__main__":
    main()
