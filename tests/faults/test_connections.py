"""Connections between the service and its servers that are cut, reset, refused, slow, held and half open."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e.stack import Server, Stack, until
from tests.faults.conftest import Figures
from tests.faults.forms import how_many
from tests.faults.proxy import Proxy, Way, kafka_proxy
from tests.faults.traffic import Traffic
from tests.servers import abort_open_transactions

LONG = how_many("CONNECTION_FAULTS", 0) > 0
"""Every fault, with the service's own time-outs; otherwise a few, with shorter ones for Kafka."""

FAULT_SECONDS = 12.0 if LONG else 3.0
NOTICED_SECONDS = 60.0
"""Until readiness says that a server does not answer."""

READY_SECONDS = 120.0
"""From a start, or from the end of a fault, to readiness: the bound is for a broken build."""

RECOVERED_SECONDS = 240.0 if LONG else 120.0
BREAK_EVERY_SECONDS = 0.25

GRACE_SECONDS = 70.0
"""What ``deploy/`` and ``docker-compose.yml`` grant a process to stop."""

MONGODB, KAFKA = "mongodb", "kafka"
Fault = Callable[[Proxy], Awaitable[None]]


async def _again_and_again(break_off: Callable[[], None], seconds: float = FAULT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        break_off()
        await asyncio.sleep(BREAK_EVERY_SECONDS)


async def cut(proxy: Proxy) -> None:
    await _again_and_again(proxy.cut)


async def reset(proxy: Proxy) -> None:
    await _again_and_again(proxy.reset)


async def refused(proxy: Proxy) -> None:
    proxy.refuse()
    await _again_and_again(proxy.reset)


async def slow(proxy: Proxy) -> None:
    proxy.delay(0.15)
    await asyncio.sleep(FAULT_SECONDS)


async def held(proxy: Proxy) -> None:
    proxy.hold()
    await asyncio.sleep(FAULT_SECONDS)


def half_open(*ways: Way) -> Fault:
    async def half_open(proxy: Proxy) -> None:
        proxy.swallow(frozenset(ways))
        await asyncio.sleep(FAULT_SECONDS)

    return half_open


FAULTS: dict[str, Fault] = {
    "reset": reset,
    "half open both ways": half_open(*Way),
    **(
        {
            "refused": refused,
            "cut": cut,
            "slow": slow,
            "held": held,
            "half open to the client": half_open(Way.TO_CLIENT),
            "half open to the server": half_open(Way.TO_SERVER),
        }
        if LONG
        else {}
    ),
}


@dataclass(frozen=True, slots=True)
class Running:
    """A worker and an API, each with both proxies between itself and the servers."""

    stack: Stack
    worker: Server
    api: Server
    proxies: dict[str, Proxy]

    async def ready(self) -> None:
        """Every check of both is up again."""
        for process in (self.worker, self.api):
            for name in (MONGODB, KAFKA):
                await until(
                    lambda process=process, name=name: says(self, process, name, "200 up"),  # type: ignore[misc]  # binds
                    seconds=READY_SECONDS,
                    what=f"{name} up for {process.url}",
                )

    async def check(self, server: Server, name: str) -> str:
        """The state of one check in a process's readiness, and whether the process is ready."""
        answer = await server.readiness()
        if answer is None:
            return "no answer"
        return f"{answer.status_code} {answer.json()['checks'][name]['status']}"


@asynccontextmanager
async def running(stack: Stack, **settings: str) -> AsyncIterator[Running]:
    mongodb = stack.mongodb_uri.removeprefix("mongodb://").partition("/")[0]
    if "," in mongodb + stack.kafka.bootstrap_servers or "@" in mongodb:
        pytest.skip("a proxy stands in front of one server that asks for no password")
    async with Proxy(mongodb) as to_mongodb, kafka_proxy(stack.kafka.bootstrap_servers) as to_kafka:
        changes = {
            "MONGODB_URI": stack.mongodb_uri.replace(mongodb, to_mongodb.address),
            "KAFKA_BOOTSTRAP_SERVERS": to_kafka.address,
            "RELAY_LEASE_SECONDS": "5",
            "RETRY_MAX_SECONDS": "2",
            **({} if LONG else {"KAFKA_REQUEST_TIMEOUT_MS": "5000"}),
            **settings,
        }
        worker, api = await stack.worker(**changes), await stack.api(**changes)
        service = Running(stack, worker, api, {MONGODB: to_mongodb, KAFKA: to_kafka})
        await service.ready()
        assert to_kafka.accepted > 2, "the clients of Kafka go by the proxy"
        yield service
        for process in (worker, api):  # before the proxies go
            if process.process.returncode is None:
                await process.kill()


# Kafka in the long form only, for its time
@pytest.mark.parametrize("server", [MONGODB, *([KAFKA] if LONG else [])])
async def test_events_and_redemptions_go_on_after_every_fault(stack: Stack, server: str, figures: Figures) -> None:
    recovered: list[str] = []
    async with running(stack) as service:
        proxy = service.proxies[server]
        traffic = Traffic(stack, service.api)
        await traffic.prepare()
        async with traffic.flowing():
            for name, fault in FAULTS.items():
                await some_code_more(traffic, f"before {name}")
                await fault(proxy)
                await proxy.heal()
                healed_at = time.monotonic()
                if server == MONGODB and name.startswith("half"):
                    # What a silent connection left open there, the server ends by itself after a minute
                    await abort_open_transactions(stack.mongodb_uri)
                await service.ready()
                orders = traffic.orders
                await until(
                    lambda orders=orders: lots_reach(stack, orders),  # type: ignore[misc]  # binds the loop's value
                    seconds=RECOVERED_SECONDS,
                    what=f"orders after {name}",
                )
                await some_code_more(traffic, f"after {name}")
                recovered.append(f"{name} {time.monotonic() - healed_at:.1f} s")
        await traffic.assert_complete(seconds=RECOVERED_SECONDS)
        assert [await service.worker.stop(), await service.api.stop()] == [0, 0]
    if server == KAFKA:
        assert set(traffic.seen.statuses) == {"200"}, "redemptions do not depend on Kafka"
    figures(
        orders=traffic.orders,
        codes=len(traffic.seen.codes),
        lost_or_doubled=0,
        answers=dict(traffic.seen.statuses),
        slowest_answer=f"{traffic.seen.slowest_seconds:.1f} s",
        recovered_after="; ".join(recovered),
    )


async def some_code_more(traffic: Traffic, what: str) -> None:
    before = len(traffic.seen.codes)

    async def more() -> bool:
        return len(traffic.seen.codes) > before

    await until(more, seconds=RECOVERED_SECONDS, what=f"redemptions {what}")


async def lots_reach(stack: Stack, count: int) -> bool:
    return await stack.ledger.database.lots.count_documents({"kind": "order"}) >= count


@pytest.mark.parametrize(
    "ways",
    [frozenset(Way), *([frozenset({Way.TO_CLIENT})] if LONG else [])],
    ids=["both ways", *(["to the client"] if LONG else [])],
)
async def test_a_silent_mongodb_is_said_in_time_and_the_same_key_heals(stack: Stack, ways: frozenset[Way]) -> None:
    async with running(stack) as service:
        proxy = service.proxies[MONGODB]
        traffic = Traffic(stack, service.api)
        await traffic.prepare()
        async with httpx.AsyncClient(base_url=service.api.url, timeout=30) as client:
            await traffic.redeem(client)
            before = len(await stack.ledger.database.redemptions.find({}).to_list(None))
            proxy.swallow(ways)
            asked = {f"silent{number}": f"r{number}" for number in range(4)}
            answers = await asyncio.gather(*(traffic.ask(client, key, customer) for key, customer in asked.items()))
            assert all(answer.status_code != httpx.codes.OK for answer in answers)
            stored = await stack.ledger.database.redemptions.find({}).to_list(None)
            unknown = sum(answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR for answer in answers)
            assert before <= len(stored) <= before + unknown, "503 says that nothing was changed"
            for process in (service.api, service.worker):
                await until(
                    lambda process=process: says(service, process, MONGODB, "503 down"),  # type: ignore[misc]  # binds
                    seconds=NOTICED_SECONDS,
                    what="not ready",
                )
            await proxy.heal()
            await abort_open_transactions(stack.mongodb_uri)
            await service.ready()
            for key, customer in asked.items():
                answer = await traffic.ask(client, key, customer)
                assert answer.status_code == httpx.codes.OK, answer.text
                again = await traffic.ask(client, key, customer)
                assert again.json() == answer.json()
        stored = await stack.ledger.database.redemptions.find({}).to_list(None)
        assert len(stored) == before + len(asked)
        await stack.assert_true()


async def test_without_kafka_balances_and_codes_stay_up_and_readiness_says_so(stack: Stack) -> None:
    async with running(stack) as service:
        proxy = service.proxies[KAFKA]
        traffic = Traffic(stack, service.api)
        await traffic.prepare()
        proxy.swallow()
        async with httpx.AsyncClient(base_url=service.api.url, timeout=30) as client:
            await until(
                lambda: says(service, service.api, KAFKA, "200 degraded"), seconds=NOTICED_SECONDS, what="degraded"
            )
            await until(
                lambda: says(service, service.worker, KAFKA, "503 down"), seconds=NOTICED_SECONDS, what="not ready"
            )
            for _ in range(5):
                await traffic.redeem(client)
        assert set(traffic.seen.statuses) == {"200"}
        assert traffic.seen.slowest_seconds < ANSWERED_WITHOUT_KAFKA_SECONDS
        await proxy.heal()
        await service.ready()
        await traffic.assert_complete(seconds=RECOVERED_SECONDS)


ANSWERED_WITHOUT_KAFKA_SECONDS = 8.0
"""No answer waits for Kafka: the shortest of its time-outs is longer than this would be on an idle machine."""


async def says(service: Running, process: Server, name: str, state: str) -> bool:
    return await service.check(process, name) == state


async def stopped(server: Server) -> int:
    """SIGTERM; the exit status, in the time that deployments grant."""
    server.process.terminate()
    try:
        return await server.wait(GRACE_SECONDS)
    except TimeoutError:
        raise AssertionError(f"did not end within {GRACE_SECONDS} s of SIGTERM:\n{server.log[-3000:]}") from None


@pytest.mark.parametrize("silent", [(MONGODB,), *([(KAFKA,), (MONGODB, KAFKA)] if LONG else [])], ids=" and ".join)
async def test_a_stop_ends_in_order_while_servers_are_silent(stack: Stack, silent: tuple[str, ...]) -> None:
    async with running(stack) as service:
        traffic = Traffic(stack, service.api)
        await traffic.prepare()
        traffic.may_go_away = True
        async with traffic.flowing():
            await some_code_more(traffic, "at first")
            for server in silent:
                service.proxies[server].swallow()
            await asyncio.sleep(1)  # until work is under way on the silent connections, which nothing tells
            assert set(await asyncio.gather(stopped(service.worker), stopped(service.api))) == {0}
            await abort_open_transactions(stack.mongodb_uri)  # as the server does by itself a minute later
            # Whatever was under way is taken up by those that follow
            await (await stack.worker("w1")).ready()
            api = await (await stack.api("a1")).ready()
            traffic.url = api.url
            await some_code_more(traffic, "by the next one")
        await traffic.assert_complete(seconds=RECOVERED_SECONDS)
