import asyncio

import pytest

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.errors import LedgerBusy
from rewardpoints.ledger.account_queue import AccountQueue

A, B = account_of("shop", "a"), account_of("shop", "b")


def later(seconds: float = 30) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_turns_come_in_order_of_arrival_and_one_at_a_time() -> None:
    queue = AccountQueue(100)
    order: list[int] = []
    holders = 0

    async def one(number: int) -> None:
        nonlocal holders
        async with queue.turn(A, later()):
            holders += 1
            assert holders == 1
            await asyncio.sleep(0)
            order.append(number)
            holders -= 1

    await asyncio.gather(*(one(number) for number in range(20)))
    assert order == list(range(20))
    assert len(queue) == 0


async def test_accounts_do_not_wait_for_each_other() -> None:
    queue = AccountQueue(1)
    async with queue.turn(A, later()), queue.turn(B, later()):
        assert len(queue) == 2
    assert len(queue) == 0


async def test_no_more_wait_than_may() -> None:
    queue = AccountQueue(2)
    async with queue.turn(A, later()):
        waiting = [asyncio.create_task(enter(queue)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(LedgerBusy):
            await enter(queue)
    await asyncio.gather(*waiting)
    assert len(queue) == 0


async def enter(queue: AccountQueue) -> None:
    async with queue.turn(A, later()):
        pass


async def test_a_turn_that_does_not_come_in_time_is_given_up() -> None:
    queue = AccountQueue(2)
    async with queue.turn(A, later()):
        with pytest.raises(LedgerBusy):
            async with queue.turn(A, later(0.01)):
                pytest.fail("the turn was taken")
    await enter(queue)
    assert len(queue) == 0


async def test_a_cancelled_waiter_leaves_no_trace() -> None:
    queue = AccountQueue(2)
    async with queue.turn(A, later()):
        waiting = asyncio.create_task(enter(queue))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert len(queue) == 0


async def test_an_error_in_a_turn_passes_it_on() -> None:
    queue = AccountQueue(2)
    with pytest.raises(ZeroDivisionError):
        async with queue.turn(A, later()):
            raise ZeroDivisionError
    await enter(queue)
    assert len(queue) == 0
