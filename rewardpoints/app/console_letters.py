"""The console's dead letters, on the functions behind `rewardpoints dead-letters`."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rewardpoints.app.commands import ServerRefused
from rewardpoints.console.ports import Letter, Letters, Outcome, ServiceUnavailable
from rewardpoints.domain.dead_letters import Chosen, Handled, LetterFilter, LetterId
from rewardpoints.domain.errors import NotFound
from rewardpoints.domain.instants import parse_instant
from rewardpoints.events.dead_letter_desk import DeadLetter
from rewardpoints.events.dead_letters import PREFIX
from rewardpoints.events.inspection import describe
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.operate.dead_letters import discard_letters, list_letters, retry_letters, show_letter
from rewardpoints.settings import Settings

MOST_CHARACTERS: Final = 100_000
"""Of a payload that is shown; `rewardpoints dead-letters show` shows all of it."""


class ConsoleLetters:
    """Implements the console's port ``LetterDesk``. ``act_seconds`` is how long letters are dealt with at most."""

    def __init__(self, settings: Settings, ledger: Ledger, *, act_seconds: float) -> None:
        self._settings = settings
        self._ledger = ledger
        self._act_seconds = act_seconds

    async def list(self, wanted: LetterFilter, *, last: int) -> Letters:
        """The newest letters that match, newest first.

        Raises:
            ServiceUnavailable, LedgerUnavailable
        """
        with refusals():
            listing = await list_letters(self._settings, self._ledger, wanted, last=last)
        return Letters(
            letters=[shown(letter) for letter in reversed(listing.letters)],
            by_reason=dict(listing.by_reason.most_common()),
            by_state=dict(listing.by_state),
        )

    async def show(self, tenant: str, letter_id: LetterId) -> Letter:
        """One letter of the tenant.

        Raises:
            NotFound, ServiceUnavailable, LedgerUnavailable
        """
        with refusals():
            letter = await show_letter(self._settings, self._ledger, letter_id)
        if letter.tenant != tenant:
            raise NotFound(f"there is no dead letter {letter_id}")
        return shown(letter)

    async def retry(self, chosen: Chosen, *, dry_run: bool) -> Outcome:
        """Publish letters again.

        Raises:
            NotFound, ServiceUnavailable, LedgerUnavailable
        """
        with refusals(), self._bounded() as stopping:
            handled = await retry_letters(
                self._settings, self._ledger, chosen, dry_run=dry_run, stopping=stopping, on_progress=_unheard
            )
        return Outcome(handled, complete=not stopping.is_set())

    async def discard(self, chosen: Chosen, *, note: str | None, dry_run: bool) -> Outcome:
        """Record that nothing will be done about letters.

        Raises:
            NotFound, ServiceUnavailable, LedgerUnavailable
        """
        with refusals(), self._bounded() as stopping:
            handled = await discard_letters(
                self._settings,
                self._ledger,
                chosen,
                note=note,
                dry_run=dry_run,
                stopping=stopping,
                on_progress=_unheard,
            )
        return Outcome(handled, complete=not stopping.is_set())

    @contextmanager
    def _bounded(self) -> Iterator[asyncio.Event]:
        stopping = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(self._act_seconds, stopping.set)
        try:
            yield stopping
        finally:
            timer.cancel()


@contextmanager
def refusals() -> Iterator[None]:
    """Raise what the console knows for what a command would say."""
    try:
        yield
    except ServerRefused as error:
        raise ServiceUnavailable(str(error)) from error


def shown(letter: DeadLetter) -> Letter:
    """A letter as the console shows it."""
    record = describe(letter.record)
    value = record["value"]
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS]}\n… {len(text) - MOST_CHARACTERS:,} characters more"
    return Letter(
        id=letter.id,
        state=letter.state,
        at=parse_instant(record["timestamp"]) if record["timestamp"] else None,
        reason=letter.reason,
        error=letter.error,
        source=str(letter.source) if letter.source else None,
        attempts=letter.attempts,
        first_seen=letter.first_seen,
        omitted=letter.omitted,
        action=letter.action,
        key=record["key"],
        headers={name: content for name, content in record["headers"].items() if not name.startswith(PREFIX)},
        value=text,
    )


def _unheard(_handled: Handled) -> None:
    """A page is made when everything is done."""
