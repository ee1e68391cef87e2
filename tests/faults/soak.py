"""Soak: half load for an hour, a fault every half minute, and then the ledger has to be the model's.

Two workers and two APIs; of each one is killed again and again and the other never, so that an hour of memory of one
process can be judged. A fault is one of: worker killed, API killed, MongoDB-wire server killed, a worker frozen; and on
Apache Kafka broker killed. (The embedded broker loses acknowledged records when it is killed, and after a restart it
was seen to give two members of a group the same partitions.)
"""

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rewardpoints.embedded import Server as EmbeddedServer
from tests.e2e.stack import Server
from tests.faults.coupons import CouponService
from tests.faults.environment import Environment, Outcome, Say, pause, redeem_option, running_environment
from tests.faults.faults import Fault, freeze, kill_process, kill_server, strike
from tests.faults.load import OrderLoad, Orders
from tests.faults.model import compare
from tests.faults.pace import pace
from tests.faults.redeeming import Storefront
from tests.faults.sampler import Pid, Sampler
from tests.faults.shop import Shop
from tests.faults.soak_report import LOAD_ENDS, drawing, report

OPTION_POINTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakOptions:
    """``orders_per_second`` at most half of what was measured first with ``full_rate_orders`` orders.

    ``results`` is where ``soak.jsonl`` and ``soak.svg`` go; the scenario's own folder where it is not given.
    """

    seconds: float = 3600
    fault_seconds: float = 30
    orders_per_second: float = 200
    redemptions_per_second: float = 3
    balances_per_second: float = 5
    duplicate_share: float = 0.05
    customers: int = 10_000
    full_rate_orders: int = 20_000
    sample_seconds: float = 5
    balance_sample: int = 200
    seed: int = 1
    results: Path | None = None


async def soak(options: SoakOptions, folder: Path, say: Say) -> Outcome:
    """Run it; the figures and every violation."""
    outcome = Outcome()
    results = options.results or folder
    results.mkdir(parents=True, exist_ok=True)
    async with running_environment(folder) as environment:
        shop, full_rate = await _open_shop(options, environment)
        rate = min(options.orders_per_second, full_rate / 2)
        outcome.figures |= {"full rate of one worker, orders/s": round(full_rate), "offered, orders/s": round(rate, 1)}
        say(f"one worker takes {full_rate:.0f} orders/s; the load is {rate:.0f}")
        sampler = _sampler(shop, results / "soak.jsonl", options)

        def note(fault: str) -> None:
            sampler.note(fault)
            answered = len(shop.storefront.answers.codes)
            say(f"{sampler.faults[-1][0]:.0f} s: {fault}; {shop.load.accepted} orders, {answered} redemptions so far")

        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sampler.run(over))
            rates = (rate, options.redemptions_per_second, options.balances_per_second)
            async with shop.open(*rates, outcome.problems) as enough:
                striking = strike(_faults(shop), random.Random(options.seed), options.fault_seconds, enough, note)
                faults = tasks.create_task(striking)
                await pause(options.seconds, enough)
                enough.set()
                outcome.problems += await faults  # the last one is over: everything is there again
                note(LOAD_ENDS)
            over.set()
        outcome.figures |= report(sampler) | {
            "duplicates published": shop.load.duplicates,
            "published again after a fault": shop.load.republished,
        }
        title = f"{options.seconds / 60:g} minutes at {rate:.0f} orders/s, a fault every {options.fault_seconds:g} s"
        (results / "soak.svg").write_text(drawing(sampler, title))
        say(f"drained; comparing with the model {json.dumps(outcome.figures)}")
        await compare(shop, outcome, balance_sample=options.balance_sample)
    return outcome


async def _open_shop(options: SoakOptions, environment: Environment) -> tuple[Shop, float]:
    """The shop with its processes, and the orders a second that one worker takes at most."""
    stack, chance = environment.stack, random.Random(options.seed)
    orders = Orders(options.customers)
    load = OrderLoad(stack, orders, chance, duplicate_share=options.duplicate_share)
    workers = [await (await stack.worker("w1")).ready()]
    full = await pace(stack, workers[0], load.publish(options.full_rate_orders))
    workers.append(await (await stack.worker("w2")).ready())
    apis = [await (await stack.api(slot)).ready() for slot in ("a1", "a2")]
    option = await redeem_option(stack, apis[0].url, OPTION_POINTS)
    customers = [orders.customer(number) for number in range(options.customers)]
    shop = Shop(
        environment=environment,
        workers=workers,
        apis=apis,
        load=load,
        storefront=Storefront(stack, apis, option, customers, chance),
        coupons=CouponService(stack),
        option_points=OPTION_POINTS,
    )
    return shop, options.full_rate_orders * (1 + options.duplicate_share) / full.seconds


def _faults(shop: Shop) -> Mapping[str, Fault]:
    of_apache = {"Kafka killed": kill_server(shop.environment.kafka)} if shop.environment.apache else {}
    return {
        "worker killed": kill_process(shop.workers[0]),
        "API killed": kill_process(shop.apis[0]),
        "MongoDB killed": kill_server(shop.environment.mongodb),
        "worker frozen": freeze(shop.workers),
        **of_apache,
    }


def _sampler(shop: Shop, file: Path, options: SoakOptions) -> Sampler:
    file.write_text("")
    return Sampler(
        shop.stack,
        {
            **_pids("worker", shop.workers),
            **_pids("api", shop.apis),
            "MongoDB-wire server": _pid(shop.environment.mongodb),
            "Kafka-wire broker": _pid(shop.environment.kafka),
        },
        lambda: {"orders": shop.load.accepted, "codes": len(shop.storefront.answers.codes)},
        file,
        options.sample_seconds,
    )


def _pids(kind: str, servers: Sequence[Server]) -> dict[str, Pid]:
    def pid_of(server: Server) -> Pid:
        return lambda: server.process.pid

    return {f"{kind} {number}": pid_of(server) for number, server in enumerate(servers, 1)}


def _pid(server: EmbeddedServer) -> Pid:
    return lambda: server.pid if server.running else None
