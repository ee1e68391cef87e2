"""Dead letters as an operator deals with them: listed, read, published again, discarded."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from rewardpoints.app.clock import utc_now
from rewardpoints.app.commands import kafka_errors
from rewardpoints.domain.dead_letters import (
    Chosen,
    Handled,
    LetterAction,
    LetterFilter,
    LetterId,
    LetterState,
    can_be_claimed,
)
from rewardpoints.domain.errors import InvalidInput, NotFound
from rewardpoints.events.dead_letter_desk import (
    CannotRetry,
    DeadLetter,
    LetterDesk,
    every_letter,
    letters_at,
    matches,
)
from rewardpoints.events.producer import EventProducer
from rewardpoints.events.range_reader import RangeReader
from rewardpoints.events.records import Message
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.settings import Settings

MOST_IDS: Final = 1000
LARGE_AT_ONCE: Final = 10


@dataclass(slots=True, kw_only=True)
class Listing:
    """The newest letters that match, oldest first, and how many match in all, by reason and state."""

    letters: Sequence[DeadLetter] = ()
    by_reason: Counter[str] = field(default_factory=Counter)
    by_state: Counter[LetterState] = field(default_factory=Counter)


async def list_letters(settings: Settings, ledger: Ledger, wanted: LetterFilter, *, last: int) -> Listing:
    """The newest ``last`` letters that match. Reads the whole topic, in constant memory.

    Raises:
        LedgerUnavailable, ServerRefused: a server cannot be reached.
    """
    listing = Listing()
    newest: deque[DeadLetter] = deque(maxlen=last)
    async with aclosing(_matching(settings, ledger, wanted)) as pages:
        async for page in pages:
            for letter in page:
                newest.append(letter)
                listing.by_reason[letter.reason or "none"] += 1
                listing.by_state[letter.state] += 1
    listing.letters = sorted(newest, key=lambda letter: (letter.record.timestamp, letter.id))
    return listing


async def show_letter(settings: Settings, ledger: Ledger, letter_id: LetterId) -> DeadLetter:
    """One letter, with what was done about it.

    Raises:
        NotFound: it is not in the topic.
        LedgerUnavailable, ServerRefused: a server cannot be reached.
    """
    with kafka_errors():
        found = await letters_at(settings.kafka, [letter_id])
    if not found:
        raise NotFound(f"there is no dead letter {letter_id}")
    return (await _with_actions(settings, ledger, found))[0]


async def retry_letters(
    settings: Settings,
    ledger: Ledger,
    chosen: Chosen,
    *,
    dry_run: bool = False,
    stopping: asyncio.Event,
    on_progress: Callable[[Handled], None],
) -> Handled:
    """Publish letters again where they came from, each once; what fails again comes back as a letter of its own.

    Whatever is retried, the ledger takes each order, chargeback and result once. A process that dies in between leaves
    letters ``retrying``; ten minutes later they can be retried again. ``stopping`` ends it after the letters at hand.

    Raises:
        LedgerUnavailable, ServerRefused: a server cannot be reached; what was retried until then is recorded.
    """
    handled = Handled()
    producer = EventProducer(settings.kafka)
    desk = LetterDesk(settings.kafka, producer)
    try:
        with kafka_errors():
            async with aclosing(_chosen(settings, ledger, chosen)) as pages:
                async for page in pages:
                    if stopping.is_set():
                        break
                    for part in _parts(page):
                        await _retry(settings, ledger, desk, part, handled, dry_run=dry_run)
                        on_progress(handled)
    finally:
        await producer.stop()
    return handled


async def discard_letters(
    settings: Settings,
    ledger: Ledger,
    chosen: Chosen,
    *,
    note: str | None = None,
    dry_run: bool = False,
    stopping: asyncio.Event,
    on_progress: Callable[[Handled], None],
) -> Handled:
    """Record that nothing will be done about letters. They stay in the topic until its retention takes them.

    Raises:
        LedgerUnavailable, ServerRefused: a server cannot be reached; what was discarded until then is recorded.
    """
    handled = Handled()
    with kafka_errors():
        async with aclosing(_chosen(settings, ledger, chosen)) as pages:
            async for page in pages:
                if stopping.is_set():
                    break
                free = _free(page, handled)
                if not dry_run:
                    claimed = await _claim(settings, ledger, free, LetterState.DISCARDED, note)
                    handled.taken += len(free) - len(claimed)
                    free = [letter for letter in free if letter.id in claimed]
                _count_done(free, handled)
                on_progress(handled)
    return handled


async def _retry(
    settings: Settings, ledger: Ledger, desk: LetterDesk, page: Sequence[DeadLetter], handled: Handled, *, dry_run: bool
) -> None:
    free: list[DeadLetter] = []
    for letter in _free(page, handled):
        try:
            desk.check(letter)
        except CannotRetry as problem:
            handled.cannot(letter.id, str(problem))
        else:
            free.append(letter)
    if dry_run:
        _count_done(free, handled)
        return
    topic = settings.kafka.topic_dead_letter
    claimed = await _claim(settings, ledger, free, LetterState.RETRYING, None)
    handled.taken += len(free) - len(claimed)
    sent: list[tuple[DeadLetter, Message]] = []
    back: list[LetterId] = []
    for letter in free:
        if letter.id not in claimed:
            continue
        try:
            sent.append((letter, await desk.message(letter)))
        except CannotRetry as problem:
            handled.cannot(letter.id, str(problem))
            back.append(letter.id)
    refusals = await desk.publish([message for _, message in sent]) if sent else []
    for (letter, _), refusal in zip(sent, refusals, strict=True):
        if refusal is not None:
            handled.cannot(letter.id, refusal)
            back.append(letter.id)
    retried = [letter for (letter, _), refusal in zip(sent, refusals, strict=True) if refusal is None]
    await ledger.letter_actions.settle(topic, [letter.id for letter in retried], LetterState.RETRIED, utc_now())
    await ledger.letter_actions.settle(topic, back, LetterState.OPEN, utc_now())
    _count_done(retried, handled)


def _parts(page: Sequence[DeadLetter]) -> Iterator[Sequence[DeadLetter]]:
    """The page, but only a few at a time of those whose large originals must be fetched."""
    whole = [letter for letter in page if not letter.omitted]
    if whole:
        yield whole
    large = [letter for letter in page if letter.omitted]
    for start in range(0, len(large), LARGE_AT_ONCE):
        yield large[start : start + LARGE_AT_ONCE]


def _free(page: Sequence[DeadLetter], handled: Handled) -> list[DeadLetter]:
    handled.matched += len(page)
    now = utc_now()
    free = [letter for letter in page if can_be_claimed(letter.action, now)]
    for letter in page:
        if letter.action is not None and not can_be_claimed(letter.action, now):
            if letter.state is LetterState.RETRYING:
                handled.taken += 1
            else:
                handled.cannot(letter.id, f"it was {letter.state.value} at {letter.action.at.isoformat()}")
    return free


def _count_done(letters: Sequence[DeadLetter], handled: Handled) -> None:
    handled.done += len(letters)
    handled.by_reason.update(letter.reason or "none" for letter in letters)


async def _claim(
    settings: Settings, ledger: Ledger, letters: Sequence[DeadLetter], state: LetterState, note: str | None
) -> set[LetterId]:
    now = utc_now()
    actions = [
        LetterAction(id=letter.id, timestamp=letter.record.timestamp, state=state, at=now, note=note)
        for letter in letters
    ]
    return await ledger.letter_actions.claim(settings.kafka.topic_dead_letter, actions)


async def _chosen(settings: Settings, ledger: Ledger, chosen: Chosen) -> AsyncGenerator[Sequence[DeadLetter]]:
    if not chosen.ids:
        async with aclosing(_matching(settings, ledger, chosen.matching)) as pages:
            async for page in pages:
                yield page
        return
    if len(chosen.ids) > MOST_IDS:
        raise InvalidInput("id", f"at most {MOST_IDS} at once; choose by filter")
    tenant = chosen.matching.tenant
    found = [one for one in await letters_at(settings.kafka, chosen.ids) if tenant in {None, one.tenant}]
    missing = set(chosen.ids) - {letter.id for letter in found}
    if missing:
        raise NotFound(f"there is no dead letter {', '.join(map(str, sorted(missing)))}")
    yield await _with_actions(settings, ledger, found)


async def _matching(settings: Settings, ledger: Ledger, wanted: LetterFilter) -> AsyncGenerator[Sequence[DeadLetter]]:
    """Pages of those that are in the topic at the beginning: what comes back meanwhile is not looked at again."""
    topic = settings.kafka.topic_dead_letter
    anything = replace(wanted, states=frozenset(LetterState))
    with kafka_errors():
        async with RangeReader(settings.kafka, topic) as reader, aclosing(every_letter(reader)) as pages:
            first = True
            async for page in pages:
                if first:
                    first = False
                    await ledger.letter_actions.prune(topic, {one.partition: one.first for one in reader.progress})
                possible = [letter for letter in page if matches(replace(letter, action=None), anything)]
                known = await _with_actions(settings, ledger, possible)
                found = [letter for letter in known if matches(letter, wanted)]
                if found:
                    yield found


async def _with_actions(settings: Settings, ledger: Ledger, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
    actions = await ledger.letter_actions.find(settings.kafka.topic_dead_letter, [letter.id for letter in letters])
    known = []
    for letter in letters:
        action = actions.get(letter.id)
        if action is not None and action.timestamp != letter.record.timestamp:
            action = None  # of a letter that stood there before the topic was made anew
        known.append(replace(letter, action=action))
    return known
