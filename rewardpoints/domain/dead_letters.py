"""Dead letters as an operator deals with them: which ones, and what was done about each."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from rewardpoints.domain.errors import InvalidInput

RETRY_GIVEN_UP_AFTER: Final = timedelta(minutes=10)
"""A letter that is ``retrying`` for longer was left by an operator's process that died: it may be retried again."""

MOST_PROBLEMS: Final = 100

_OFFSET: Final = re.compile("[0-9]{1,18}")


class LetterState(StrEnum):
    """What was done about a dead letter. ``retrying``: claimed, and perhaps not published yet."""

    OPEN = "open"
    RETRYING = "retrying"
    RETRIED = "retried"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, order=True)
class LetterId:
    """Where a dead letter stands in its topic; as text ``partition-offset``."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "LetterId":
        """The id of a text.

        Raises:
            InvalidInput: it is none.
        """
        partition, separator, offset = text.strip().partition("-")
        if not separator or not all(_OFFSET.fullmatch(part) for part in (partition, offset)):
            raise InvalidInput("id", f"{text!r} is no dead letter's id, as 3-1042")
        return cls(int(partition), int(offset))


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterAction:
    """What was done about the letter at ``id``; ``timestamp`` (milliseconds) tells it from one of a recreated topic."""

    id: LetterId
    timestamp: int
    state: LetterState
    at: datetime
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which letters: each given field must match. ``since`` <= when it became a dead letter < ``before``."""

    states: frozenset[LetterState] = frozenset({LetterState.OPEN})
    reasons: frozenset[str] = frozenset()
    tenant: str | None = None
    source_topic: str | None = None
    since: datetime | None = None
    before: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Handled:
    """What became of the letters that matched: done, being dealt with by somebody else, or impossible and why.

    In a dry run ``done`` are those that would be. ``problems`` are the first hundred.
    """

    matched: int = 0
    done: int = 0
    taken: int = 0
    impossible: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    problems: dict[LetterId, str] = field(default_factory=dict)

    def cannot(self, letter: LetterId, why: str) -> None:
        """Note a letter that nothing can be done about."""
        self.impossible += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems[letter] = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Letters by their ids, or those that match a filter. Of one with ids only the tenant counts."""

    ids: Sequence[LetterId] = ()
    matching: LetterFilter = field(default_factory=LetterFilter)


def can_be_claimed(action: LetterAction | None, now: datetime) -> bool:
    """Whether something may be done about a letter: nothing was, or a retry of it was left behind."""
    if action is None:
        return True
    return action.state is LetterState.RETRYING and now - action.at > RETRY_GIVEN_UP_AFTER


class LetterActions(Protocol):
    """Where it is kept what was done about dead letters: the topic itself is append-only."""

    async def find(self, topic: str, ids: Sequence[LetterId]) -> Mapping[LetterId, LetterAction]:
        """What was done about these letters."""
        ...

    async def claim(self, topic: str, actions: Sequence[LetterAction]) -> set[LetterId]:
        """Record that this is being done; answers for which letters nobody else was first."""
        ...

    async def settle(self, topic: str, ids: Sequence[LetterId], state: LetterState, at: datetime) -> None:
        """Record how it ended; ``open`` forgets that anything was done."""
        ...

    async def prune(self, topic: str, oldest: Mapping[int, int]) -> int:
        """Forget letters below the oldest offset of each partition: they have left the topic."""
        ...
