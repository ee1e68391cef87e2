"""Redemptions and balance reads over HTTP, as a storefront does them: asked again with the same key until answered."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.stack import Server, Stack
from tests.e2e.test_redemptions import REDEEM
from tests.faults.environment import pause

ANSWER_SECONDS = 240.0
"""A redemption not answered by then is a violation: every fault of a scenario is over long before."""

AGAIN_SECONDS = 0.5
MOST_AT_ONCE = 64
_BALANCE = "/reward-points/public/customer"
_FINAL = {httpx.codes.OK, httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND}
_OUTCOME_UNKNOWN = "not known whether the request was carried out"
"""Stands in a 500 that says it does not know: the same key asked again finds out."""


Do = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Answers:
    """What was answered. ``codes``: the key of each redemption that got one, with its customer and code."""

    codes: dict[str, tuple[str, str]] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    balances: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    not_offered: int = 0
    slowest_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class Storefront:
    """Offers requests by the clock to several APIs in turn; one that is away is passed over as a balancer would."""

    def __init__(
        self, stack: Stack, apis: Sequence[Server], option: str, customers: Sequence[str], chance: random.Random
    ) -> None:
        self.answers = Answers()
        self._stack = stack
        self._apis = apis
        self._option = option
        self._customers = customers
        self._chance = chance
        self._tokens: dict[str, dict[str, str]] = {}
        self._number = 0
        self._turn = 0

    async def offer(self, redemptions: float, balances: float, enough: asyncio.Event) -> None:
        """So many of each a second until it is enough; returns when all of them have their answers."""
        async with httpx.AsyncClient(timeout=15) as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._at_rate(redemptions, client, enough, self._redeem))
            tasks.create_task(self._at_rate(balances, client, enough, self._read_balance))

    async def balance(self, client: httpx.AsyncClient, customer: str) -> int | None:
        """The balance of a customer; None where there is no account. Asks again while the service is away."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            answer = await self._request(client, "GET", _BALANCE, customer)
            if answer is not None and answer.status_code == httpx.codes.OK:
                return int(answer.text)
            if answer is not None and answer.status_code == httpx.codes.NOT_FOUND:
                return None
            await asyncio.sleep(AGAIN_SECONDS)
        raise AssertionError(f"no balance within {ANSWER_SECONDS} s")

    async def _at_rate(self, per_second: float, client: httpx.AsyncClient, enough: asyncio.Event, do: Do) -> None:
        if not per_second:
            return
        began, offered, free = time.monotonic(), 0, asyncio.Semaphore(MOST_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            while not enough.is_set():
                for _ in range(int((time.monotonic() - began) * per_second) - offered):
                    offered += 1
                    if free.locked():
                        self.answers.not_offered += 1
                        continue
                    await free.acquire()
                    tasks.create_task(do(client)).add_done_callback(lambda _: free.release())
                await pause(0.5 / per_second, enough)

    async def _read_balance(self, client: httpx.AsyncClient) -> None:
        answer = await self._request(client, "GET", _BALANCE, self._chance.choice(self._customers))
        self.answers.balances[str(answer.status_code) if answer is not None else "no answer"] += 1
        if answer is not None and answer.status_code not in _FINAL and not _ask_again(answer):
            self.answers.problems.append(f"balance answered {answer.status_code}: {answer.text[:200]}")

    async def _redeem(self, client: httpx.AsyncClient) -> None:
        self._number += 1
        key, customer = f"r{self._number}", self._chance.choice(self._customers)
        began = time.monotonic()
        answer = await self._answered(client, key, customer)
        self.answers.slowest_seconds = max(self.answers.slowest_seconds, time.monotonic() - began)
        if answer is None or answer.status_code != httpx.codes.OK:
            return
        code = str(answer.json()["code"])
        self.answers.codes[key] = (customer, code)
        if self._chance.random() < 0.1:
            self.answers.repeated += 1
            again = await self._answered(client, key, customer)
            if again is not None and (again.status_code != httpx.codes.OK or again.json()["code"] != code):
                self.answers.problems.append(f"{key}: {code} at first, then {again.status_code} {again.text[:200]}")

    async def _answered(self, client: httpx.AsyncClient, key: str, customer: str) -> httpx.Response | None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            answer = await self._request(
                client, "POST", REDEEM, customer, json={"id": self._option}, headers={"Idempotency-Key": key}
            )
            self.answers.statuses[str(answer.status_code) if answer is not None else "no answer"] += 1
            if answer is not None:
                if answer.status_code in _FINAL:
                    return answer
                if not _ask_again(answer):
                    self.answers.problems.append(f"{key}: answered {answer.status_code}: {answer.text[:200]}")
            await asyncio.sleep(AGAIN_SECONDS)
        self.answers.problems.append(f"{key}: not answered within {ANSWER_SECONDS} s")
        return None

    async def _request(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        customer: str,
        *,
        headers: dict[str, str] | None = None,
        json: object = None,
    ) -> httpx.Response | None:
        if customer not in self._tokens:
            self._tokens[customer] = self._stack.customer(customer)
        self._turn += 1
        api = self._apis[self._turn % len(self._apis)]
        try:
            return await client.request(
                method, api.url + path, json=json, headers={**self._tokens[customer], **(headers or {})}
            )
        except httpx.HTTPError:
            return None


def _ask_again(answer: httpx.Response) -> bool:
    if answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
        return _OUTCOME_UNKNOWN in answer.text
    return answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
