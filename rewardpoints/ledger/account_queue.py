"""One redemption at a time for each account of this process: others wait instead of colliding in the server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.errors import LedgerBusy


@dataclass(slots=True)
class _Turns:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class AccountQueue:
    """Turns in order of arrival, at most ``most_waiting`` an account. Holds nothing of accounts nobody waits for."""

    def __init__(self, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._turns: dict[Account, _Turns] = {}

    def __len__(self) -> int:
        """How many accounts are in use."""
        return len(self._turns)

    @asynccontextmanager
    async def turn(self, account: Account, deadline: float) -> AsyncIterator[None]:
        """Waits for the account's turn until ``deadline`` (the running loop's time) and holds it.

        Raises:
            LedgerBusy: too many wait already, or the turn did not come in time.
        """
        turns = self._turns.setdefault(account, _Turns())
        if turns.users > self._most_waiting:  # one of the users holds the turn
            raise LedgerBusy("too many redemptions of the account are waiting")
        turns.users += 1
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    await turns.lock.acquire()
            except TimeoutError as error:
                raise LedgerBusy("redemptions of the account took too long") from error
            try:
                yield
            finally:
                turns.lock.release()
        finally:
            turns.users -= 1
            if turns.users == 0:
                del self._turns[account]
