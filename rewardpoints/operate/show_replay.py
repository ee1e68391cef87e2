"""Replays and differences as text, tables and JSON."""

from datetime import datetime
from typing import Any

from rich.table import Table

from rewardpoints.domain.differences import Difference, LotFacts
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.replays import Replay, ReplayState
from rewardpoints.operate.terminal import out, print_json, print_line


def replay_json(replay: Replay, differences: list[Difference] | None = None) -> dict[str, Any]:
    """A replay as JSON values. ``differences`` are those of this run, with account and order; else the stored ones."""
    scope, counts = replay.scope, replay.counts
    return {
        "id": replay.id,
        "topic": scope.topic,
        "since": _at(scope.since),
        "before": _at(scope.before),
        "tenant": scope.tenant,
        "oneCustomer": scope.account is not None,
        "rate": replay.rate,
        "state": replay.state.value,
        "startedAt": _at(replay.started_at),
        "updatedAt": _at(replay.updated_at),
        "activeSeconds": round(replay.active_seconds, 3),
        "problem": replay.problem,
        "partitions": [
            {"partition": one.partition, "first": one.first, "end": one.end, "position": one.position}
            for one in replay.partitions
        ],
        "read": counts.read,
        "notSelected": counts.not_selected,
        "added": counts.added,
        "alreadyThere": counts.already_there,
        "differing": counts.differing,
        "skipped": dict(sorted(counts.skipped.items())),
        "rejected": dict(sorted(counts.rejected.items())),
        "gone": counts.gone,
        "differences": [difference_json(one) for one in (replay.differences if differences is None else differences)],
    }


def difference_json(found: Difference) -> dict[str, Any]:
    """A difference as JSON values."""
    return {
        "lot": found.lot,
        "account": found.account,
        "order": found.order_id,
        "stored": facts_json(found.stored),
        "derived": facts_json(found.derived),
        "reasons": list(found.reasons),
    }


def difference_text(found: Difference) -> str:
    """A difference in a few lines: what stands, what its order would earn now, and why."""
    name = f"{found.account} order {found.order_id}" if found.account else f"lot {found.lot}"
    lines = [f"DIFFERS {name}", f"  stands:  {facts_text(found.stored)}", f"  derived: {facts_text(found.derived)}"]
    return "\n".join([*lines, *(f"  why: {reason}" for reason in found.reasons)])


def positions_text(replay: Replay) -> str:
    """Where it stands in each partition."""
    shown = [f"{one.partition}:{one.position:,}/{one.end:,}" for one in replay.partitions if one.end > one.first]
    return " ".join(shown[:12]) + (" …" if len(shown) > 12 else "")  # noqa: PLR2004 - as many as a line takes


def print_replay(replay: Replay, *, dry_run: bool = False) -> None:
    """The outcome as a table."""
    counts = replay.counts
    title = "Dry run: nothing was written" if dry_run else f"Replay {replay.id}: {replay.state.value}"
    table = Table(title=title, show_header=False)
    rate = counts.read / replay.active_seconds if replay.active_seconds else 0
    rows: list[tuple[str, str]] = [
        ("topic", replay.scope.topic),
        ("records read", f"{counts.read:,} in {replay.active_seconds:,.1f} s ({rate:,.0f}/s)"),
        ("would be added" if dry_run else "lots added", f"{counts.added:,}"),
        ("already there", f"{counts.already_there:,}"),
        ("  of these differing", f"{counts.differing:,}"),
        *((f"skipped: {reason}", f"{count:,}") for reason, count in sorted(counts.skipped.items())),
        *((f"rejected: {reason}", f"{count:,}") for reason, count in sorted(counts.rejected.items())),
    ]
    if replay.scope.selects_accounts:
        rows.append(("of other accounts", f"{counts.not_selected:,}"))
    if counts.gone:
        rows.append(("deleted by retention before they were read", f"{counts.gone:,} offsets"))
    if replay.problem:
        rows.append(("problem", replay.problem))
    for name, value in rows:
        table.add_row(name, value)
    out().print(table)
    if replay.state is not ReplayState.FINISHED and not dry_run:
        print_line(f"go on with: rewardpoints replay --resume {replay.id}")


def print_replays(replays: list[Replay], *, as_json: bool) -> None:
    """Replays, newest first."""
    if as_json:
        print_json([replay_json(replay) for replay in replays])
        return
    table = Table(title="Replays")
    for name in ("id", "state", "topic", "of", "done", "read", "added", "there", "differing", "skipped", "rejected"):
        table.add_column(name, justify="left" if name in {"id", "state", "topic", "of"} else "right")
    for replay in replays:
        counts = replay.counts
        share = f"{100 * replay.done / replay.total:.0f} %" if replay.total else "100 %"
        table.add_row(
            replay.id,
            replay.state.value,
            replay.scope.topic,
            (replay.scope.tenant or "all") + (", one customer" if replay.scope.account else ""),
            share,
            *(f"{number:,}" for number in (counts.read, counts.added, counts.already_there, counts.differing)),
            f"{counts.skipped.total():,}",
            f"{counts.rejected.total():,}",
        )
    if replays:
        out().print(table)
    else:
        print_line("no replays yet")


def facts_text(facts: LotFacts) -> str:
    """A lot's facts in a line."""
    origin = facts.origin
    place = f"{origin.topic}/{origin.partition}/{origin.offset}" if origin else "no record"
    return (
        f"{facts.points} points = {facts.rule}: {facts.base} {facts.value} {facts.currency or ''} x {facts.factor} "
        f"by settings version {facts.settings_version}, {_at(facts.created_at)} to {_at(facts.valid_until)}, {place}"
    )


def facts_json(facts: LotFacts) -> dict[str, Any]:
    """A lot's facts as JSON values."""
    origin = facts.origin
    return {
        "points": facts.points,
        "createdAt": _at(facts.created_at),
        "validUntil": _at(facts.valid_until),
        "rule": facts.rule,
        "settingsVersion": facts.settings_version,
        "base": facts.base,
        "factor": None if facts.factor is None else str(facts.factor),
        "value": None if facts.value is None else str(facts.value),
        "currency": facts.currency,
        "origin": origin and {"topic": origin.topic, "partition": origin.partition, "offset": origin.offset},
    }


def _at(instant: datetime | None) -> str | None:
    return None if instant is None else format_instant(instant)
