"""Dead letters of the tenant: filtered, read, published again, discarded."""

from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from rewardpoints.console.forms import Form, with_zone
from rewardpoints.console.gate import MANAGE, VIEW
from rewardpoints.console.pages import Pages, Visit
from rewardpoints.console.ports import LetterDesk
from rewardpoints.domain.accounts import check_text
from rewardpoints.domain.dead_letters import Chosen, LetterFilter, LetterId, LetterState
from rewardpoints.domain.errors import InvalidInput, RejectReason
from rewardpoints.domain.instants import parse_instant

LIST: Final = "/console/dead-letters"
SHOWN: Final = 50
MOST_IDS: Final = 200
FILTERS: Final = ("reason", "topic", "state", "from", "to")
TO_DO: Final = "to_do"
STATES: Final[dict[str, frozenset[LetterState]]] = {
    TO_DO: frozenset({LetterState.OPEN, LetterState.RETRYING}),
    **{state.value: frozenset({state}) for state in LetterState},
    "any": frozenset(LetterState),
}
_DAY: Final = len("2026-11-21")


class DeadLetters:
    """Records that could not be applied. What names no tenant, or another one, is not shown here."""

    def __init__(self, desk: LetterDesk) -> None:
        self._desk = desk

    def add_to(self, pages: Pages) -> None:
        """Add the pages."""
        pages.add(LIST, self.show, scope=VIEW)
        pages.add(f"{LIST}/letter", self.letter, scope=VIEW)
        pages.add(f"{LIST}/act", self.act, scope=MANAGE, method="POST")

    async def show(self, visit: Visit) -> Response:
        """The newest letters that match the query; first that they are being looked for."""
        wanted = wanted_by(visit.query, visit.tenant)
        filters = {name: visit.query.text(name) for name in FILTERS}
        filters["state"] = filters["state"] or TO_DO
        asked: dict[str, Any] = {
            "filters": filters,
            "reasons": [reason.value for reason in RejectReason],
            "states": list(STATES),
        }
        if visit.waits:
            load = f"{LIST}?{urlencode(filters)}"
            what = "Reading the dead-letter topic"
            return visit.show("dead_letters_loading.html", title="Dead letters", load=load, what=what, **asked)
        found = await self._desk.list(wanted, last=SHOWN)
        return visit.show("dead_letters.html", found=found, **asked)

    async def letter(self, visit: Visit) -> Response:
        """One letter with its payload."""
        letter = await self._desk.show(visit.tenant, LetterId.parse(visit.query.text("id")))
        return visit.show("dead_letter.html", letter=letter)

    async def act(self, visit: Visit) -> Response:
        """Retry or discard the letters a form names, or with ``all`` those that match its filter.

        For those of a filter the form says how many there are first, and asks.
        """
        form = visit.form
        action = form.text("action")
        if action not in {"retry", "discard"}:
            raise InvalidInput("action", "must be retry or discard")
        wanted = wanted_by(form, visit.tenant)
        everything = form.chosen("all")
        ids = [LetterId.parse(text) for text in form.all("id")]
        if bool(ids) == everything or len(ids) > MOST_IDS:
            raise InvalidInput("id", f"choose 1 to {MOST_IDS} letters")
        chosen = Chosen(ids=ids, matching=wanted)
        note = check_text("note", form.text("note")) or None
        dry_run = everything and not form.chosen("sure")
        if action == "retry":
            outcome = await self._desk.retry(chosen, dry_run=dry_run)
        else:
            outcome = await self._desk.discard(chosen, note=note, dry_run=dry_run)
        return visit.show(
            "dead_letters_done.html",
            action=action,
            dry_run=dry_run,
            outcome=outcome,
            note=note or "",
            filters={name: form.text(name) for name in FILTERS},
            back=f"{LIST}?{urlencode({name: form.text(name) for name in FILTERS if form.text(name)})}",
        )


def wanted_by(form: Form, tenant: str) -> LetterFilter:
    """The filter of a query or form, for letters of the tenant only.

    Raises:
        InvalidInput: a field of it is wrong.
    """
    reason, state = form.text("reason"), form.text("state") or TO_DO
    if reason and reason not in set(RejectReason):
        raise InvalidInput("reason", f"there is no reason {reason[:50]!r}")
    if state not in STATES:
        raise InvalidInput("state", f"must be one of {', '.join(STATES)}")
    return LetterFilter(
        states=STATES[state],
        reasons=frozenset({reason} if reason else ()),
        tenant=tenant,
        source_topic=check_text("topic", form.text("topic")) or None,
        since=instant_of(form, "from"),
        before=instant_of(form, "to"),
    )


def instant_of(form: Form, name: str) -> datetime | None:
    """A field that is a day or a time; in UTC where it does not say otherwise. None where it is empty.

    Raises:
        InvalidInput: it is neither.
    """
    text = form.text(name)
    if not text:
        return None
    try:
        return parse_instant(f"{text}T00:00:00+00:00" if len(text) == _DAY else with_zone(text))
    except ValueError as error:
        raise InvalidInput(name, "must be a time, as 2026-11-21T12:30 (UTC)") from error
