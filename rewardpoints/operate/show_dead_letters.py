"""Dead letters as tables, text and JSON."""

from typing import Any

from rich.table import Table

from rewardpoints.domain.dead_letters import Handled
from rewardpoints.domain.errors import RecordRejected
from rewardpoints.domain.instants import format_instant
from rewardpoints.events.dead_letter_desk import DeadLetter
from rewardpoints.events.dead_letters import PREFIX
from rewardpoints.events.inspection import describe
from rewardpoints.events.records import published_at
from rewardpoints.operate.dead_letters import Listing
from rewardpoints.operate.terminal import out, print_json, print_line


def letter_json(letter: DeadLetter) -> dict[str, Any]:
    """A letter as JSON values, payload and headers readable."""
    record, source, action = describe(letter.record), letter.source, letter.action
    return {
        "id": str(letter.id),
        "state": letter.state.value,
        "at": record["timestamp"],
        "reason": letter.reason,
        "error": letter.error,
        "tenant": letter.tenant,
        "source": source
        and {
            "topic": source.topic,
            "partition": source.partition,
            "offset": source.offset,
            "timestamp": source.timestamp,
        },
        "origin": letter.origin,
        "attempts": letter.attempts,
        "firstSeen": letter.first_seen,
        "omitted": letter.omitted,
        "action": action and {"state": action.state.value, "at": format_instant(action.at), "note": action.note},
        "key": record["key"],
        "headers": {name: value for name, value in record["headers"].items() if not name.startswith(PREFIX)},
        "value": record["value"],
    }


def print_listing(listing: Listing, *, as_json: bool) -> None:
    """Letters, oldest first, and how many match in all."""
    if as_json:
        print_json(
            {
                "total": listing.by_reason.total(),
                "byReason": dict(listing.by_reason.most_common()),
                "byState": {state.value: count for state, count in sorted(listing.by_state.items())},
                "letters": [letter_json(letter) for letter in listing.letters],
            }
        )
        return
    if not listing.letters:
        print_line("no dead letters match")
        return
    table = Table(title="Dead letters")
    for name in ("id", "since", "state", "reason", "tenant", "from", "attempts", "error"):
        table.add_column(name, overflow="fold", no_wrap=name == "id")
    for letter in listing.letters:
        table.add_row(
            str(letter.id),
            _at(letter),
            letter.state.value,
            letter.reason or "",
            letter.tenant or "",
            str(letter.source or ""),
            str(letter.attempts),
            (letter.error or "")[:200],
        )
    out().print(table)
    total = listing.by_reason.total()
    kinds = ", ".join(f"{reason} {count:,}" for reason, count in listing.by_reason.most_common(20))
    print_line(f"{len(listing.letters):,} of {total:,} shown: {kinds}")


def print_letter(letter: DeadLetter, *, as_json: bool) -> None:
    """One letter with everything in it; both forms are JSON, since the payload is."""
    del as_json
    print_json(letter_json(letter))


def print_handled(handled: Handled, *, done: str, dry_run: bool, as_json: bool) -> None:
    """What became of letters; ``done`` is the word for what was done."""
    if as_json:
        print_json(
            {
                "dryRun": dry_run,
                "matched": handled.matched,
                done: handled.done,
                "taken": handled.taken,
                "impossible": handled.impossible,
                "byReason": dict(handled.by_reason.most_common()),
                "problems": {str(letter): why for letter, why in handled.problems.items()},
            }
        )
        return
    for letter, why in handled.problems.items():
        print_line(f"{letter}: not {done}: {why}")
    if handled.impossible > len(handled.problems):
        print_line(f"… and {handled.impossible - len(handled.problems):,} more")
    kinds = ", ".join(f"{reason} {count:,}" for reason, count in handled.by_reason.most_common(20))
    would = "would be " if dry_run else ""
    print_line(f"{handled.done:,} of {handled.matched:,} {would}{done}" + (f": {kinds}" if kinds else ""))
    if handled.taken:
        print_line(f"{handled.taken:,} are in the hands of another retry; try them again in ten minutes")


def _at(letter: DeadLetter) -> str:
    try:
        return format_instant(published_at(letter.record))
    except RecordRejected:
        return ""
