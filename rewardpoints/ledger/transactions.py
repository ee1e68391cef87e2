"""Transactions: one attempt at a time, told apart by what is known of its outcome."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import pymongo
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from rewardpoints.domain.errors import LedgerUnavailable
from rewardpoints.ledger.driver import (
    TRANSIENT_TRANSACTION,
    UNKNOWN_COMMIT,
    WRITE_CONFLICT,
    Database,
    Session,
    driver_errors,
)

Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS: Final = 0.005
_LONGEST_PAUSE_SECONDS: Final = 0.25
_COMMIT_PAUSE_SECONDS: Final = 0.05


class AttemptFailed(Exception):
    """The attempt left nothing behind; another may succeed. ``server_trouble`` tells a lost server from a conflict."""

    def __init__(self, message: str, *, server_trouble: bool = False) -> None:
        super().__init__(message)
        self.server_trouble = server_trouble


class CommitUnknown(Exception):
    """The commit was sent, and until the deadline nobody could say whether it happened."""


def seconds_left(deadline: float) -> float:
    """Seconds until ``deadline`` (the running loop's time), negative when it is over."""
    return deadline - asyncio.get_running_loop().time()


def deadline_in(seconds: float) -> float:
    """The running loop's time ``seconds`` from now."""
    return asyncio.get_running_loop().time() + seconds


async def attempt(
    database: Database,
    body: Callable[[Session], Awaitable[Result]],
    *,
    deadline: float,
    commit_grace_seconds: float = 0,
) -> Result:
    """Run ``body`` in one transaction and commit it; ``body``'s own exceptions roll it back and pass.

    ``body`` has until ``deadline``, the commit ``commit_grace_seconds`` longer: one that is sent at the last moment
    would otherwise be given up before any server could answer.

    Raises:
        AttemptFailed: conflict, lost connection or time over before the commit; nothing was changed.
        CommitUnknown: nobody could say in time whether it was committed.
    """
    left = seconds_left(deadline)
    if left <= 0:
        raise AttemptFailed("the time is over")
    try:
        async with database.transaction() as session:
            with pymongo.timeout(left):
                result = await body(session)
            await _commit(session, deadline + commit_grace_seconds)
            return result
    except PyMongoError as error:
        failed = _failed(error)
        if failed is None:
            raise
        raise failed from error


async def _commit(session: Session, deadline: float) -> None:
    unknown = False
    while (left := seconds_left(deadline)) > 0:
        try:
            with pymongo.timeout(left):
                await session.commit_transaction()
        except PyMongoError as error:
            # ``NoSuchTransaction`` carries the transient label: the server knows that it was not committed
            if not error.has_error_label(UNKNOWN_COMMIT):
                raise
            unknown = True
            await asyncio.sleep(min(random.uniform(0, _COMMIT_PAUSE_SECONDS), max(seconds_left(deadline), 0)))  # noqa: S311 - jitter
        else:
            return
    if unknown:
        raise CommitUnknown
    raise AttemptFailed("the time was over before the commit")


def _failed(error: PyMongoError) -> AttemptFailed | None:
    if isinstance(error, ConnectionFailure) or error.timeout:
        return AttemptFailed(f"MongoDB cannot be reached ({type(error).__name__})", server_trouble=True)
    if isinstance(error, OperationFailure) and (
        error.has_error_label(TRANSIENT_TRANSACTION) or error.code == WRITE_CONFLICT
    ):
        return AttemptFailed(f"transaction conflict (code {error.code})", server_trouble=error.code != WRITE_CONFLICT)
    return None


def attempts(deadline: float) -> AsyncRetrying:
    """Tenacity's loop over ``AttemptFailed``: jittered pauses up to 0.25 s, none that ends past ``deadline``."""

    def over(state: RetryCallState) -> bool:
        return seconds_left(deadline) <= state.upcoming_sleep

    return AsyncRetrying(
        retry=retry_if_exception_type(AttemptFailed),
        wait=wait_random_exponential(multiplier=_FIRST_PAUSE_SECONDS, max=_LONGEST_PAUSE_SECONDS),
        stop=over,
        reraise=True,
    )


async def run(database: Database, body: Callable[[Session], Awaitable[Result]]) -> Result:
    """Run ``body`` in a transaction until it is committed, for at most the operation time-out.

    ``body`` may run several times, also after a commit whose outcome was not known: it must find its own work done.

    Raises:
        LedgerUnavailable: it could not be committed in time.
    """
    deadline = deadline_in(database.operation_timeout_seconds)
    try:
        with driver_errors():
            return await attempts(deadline)(attempt, database, body, deadline=deadline)
    except AttemptFailed as error:
        raise LedgerUnavailable(str(error)) from error
    except CommitUnknown as error:
        raise LedgerUnavailable("MongoDB did not say whether it committed", outcome_unknown=True) from error
