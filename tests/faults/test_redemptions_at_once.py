"""A crowd of redemptions on one account, over several API processes."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import httpx

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.redemptions import redemption_id
from tests.e2e.stack import TENANT, Server, Stack
from tests.e2e.test_redemptions import OPTION, REDEEM, an_account, an_option, summary
from tests.faults.conftest import Figures
from tests.faults.forms import how_many

REDEMPTIONS = how_many("REDEMPTIONS", 150)
AFFORDABLE = REDEMPTIONS * 7 // 10
POINTS = int(str(OPTION["points"]))
LEFT_OVER = POINTS - 1
LOTS = 25
CUSTOMER = "crowd"
ROUNDS = 40
"""How often what was answered 503 is asked again: the bound is for a broken build."""

PROPER = {httpx.codes.OK, httpx.codes.BAD_REQUEST}
UNCHANGED = httpx.codes.SERVICE_UNAVAILABLE

Answers = dict[str, httpx.Response]


def some_lots(total: int) -> list[int]:
    """``total`` points in ``LOTS`` parts of different sizes."""
    chance = random.Random(3)
    cuts = sorted(chance.sample(range(1, total), LOTS - 1))
    return [high - low for low, high in zip([0, *cuts], [*cuts, total], strict=True)]


async def redeem_at_once(
    apis: Sequence[Server], keys: Sequence[str], option: str, headers: Mapping[str, str]
) -> tuple[Answers, float]:
    """Every key at once, spread over the processes; the answers, and the seconds the slowest took."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:

        async def redeem(position: int, key: str) -> tuple[str, httpx.Response]:
            url = apis[position % len(apis)].url + REDEEM
            return key, await client.post(url, json={"id": option}, headers={**headers, "Idempotency-Key": key})

        started = time.monotonic()
        answers = dict(await asyncio.gather(*(redeem(position, key) for position, key in enumerate(keys))))
        return answers, time.monotonic() - started


async def attempts(apis: Sequence[Server]) -> int:
    """Transactions that all processes together tried."""
    total = 0.0
    async with httpx.AsyncClient(timeout=20) as client:
        for api in apis:
            lines = (await client.get(f"{api.url}/metrics")).text.splitlines()
            total += sum(float(line.split()[-1]) for line in lines if line.startswith(ATTEMPTS))
    return int(total)


ATTEMPTS = "rewardpoints_redemption_attempts_total "


async def stored_ids(stack: Stack) -> set[str]:
    return {str(stored["_id"]) for stored in await stack.ledger.database.redemptions.find({}, {"_id": 1}).to_list(None)}


async def test_a_crowd_on_one_account_never_overspends_and_each_gets_its_answer(stack: Stack, figures: Figures) -> None:
    quiet = {"RUN_CHARGEBACK_CONSUMER": "false"}
    apis = [await stack.api(slot, **quiet) for slot in ("a1", "a2", "a3")]
    for api in apis:
        await api.ready()
    async with httpx.AsyncClient(base_url=apis[0].url, timeout=20) as client:
        option = await an_option(client, stack)
        await an_account(client, stack, CUSTOMER, *some_lots(AFFORDABLE * POINTS + LEFT_OVER))
    headers = stack.customer(CUSTOMER)
    account = account_of(TENANT, CUSTOMER)
    keys = [f"k{number}" for number in range(REDEMPTIONS)]
    ids = {key: redemption_id(account, "key", key) for key in keys}

    answered: Answers = {}
    rounds: list[str] = []
    seconds = 0.0
    for _ in range(ROUNDS):
        open_keys = [key for key in keys if key not in answered]
        if not open_keys:
            break
        answers, took = await redeem_at_once(apis, open_keys, option, headers)
        seconds += took
        statuses = Counter(answer.status_code for answer in answers.values())
        rounds.append(f"{'/'.join(f'{count}x{status}' for status, count in sorted(statuses.items()))} in {took:.1f} s")
        assert set(statuses) <= {*PROPER, UNCHANGED}, [
            answer.text for answer in answers.values() if answer.status_code not in {*PROPER, UNCHANGED}
        ]
        assert all("retry-after" in answer.headers for answer in answers.values() if answer.status_code == UNCHANGED)
        answered.update((key, answer) for key, answer in answers.items() if answer.status_code in PROPER)
        # Refused and put off changed nothing; what was answered with a code is there
        assert await stored_ids(stack) == {
            ids[key] for key, answer in answered.items() if answer.status_code == httpx.codes.OK
        }
    assert len(answered) == REDEMPTIONS, rounds

    codes = {key: answer.json()["code"] for key, answer in answered.items() if answer.status_code == httpx.codes.OK}
    assert len(codes) == len(set(codes.values())) == AFFORDABLE, rounds
    tried = await attempts(apis)
    # The same keys again: the same answers, and nothing changes
    again, _ = await redeem_at_once(apis, sorted(codes)[:20], option, headers)
    assert {key: answer.json().get("code") for key, answer in again.items()} == {key: codes[key] for key in again}

    async with httpx.AsyncClient(base_url=apis[1].url, timeout=20) as client:
        shown = await summary(client, headers)
    assert shown["activePoints"] == LEFT_OVER
    assert sum(lot["usedPoints"] for lot in shown["summary"]["addedPointsList"]) == AFFORDABLE * POINTS
    stored = await stack.ledger.database.redemptions.find({}).to_list(None)
    assert sum(draw["points"] for redemption in stored for draw in redemption["draws"]) == AFFORDABLE * POINTS
    assert {redemption["code"] for redemption in stored} == set(codes.values())
    await stack.assert_true()
    assert [await api.stop() for api in apis] == [0, 0, 0]
    figures(
        redemptions=REDEMPTIONS,
        processes=len(apis),
        lots=LOTS,
        codes=len(codes),
        refused=REDEMPTIONS - len(codes),
        overspent=0,
        attempts=tried,
        seconds=f"{seconds:.1f}",
        rounds="; ".join(rounds),
    )
