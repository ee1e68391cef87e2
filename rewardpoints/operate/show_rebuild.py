"""What a rebuild found, as text and JSON."""

from typing import Any

from rich.table import Table

from rewardpoints.operate.rebuild_check import Check, Finding
from rewardpoints.operate.rebuild_into import Rebuilt
from rewardpoints.operate.show_replay import facts_json, facts_text
from rewardpoints.operate.terminal import out, print_line


def finding_text(found: Finding) -> str:
    """A disagreement in a few lines."""
    lines = [f"{found.kind.value.upper()} {found.account} order {found.order_id} (lot {found.lot})"]
    if found.stored:
        lines.append(f"  stands:  {facts_text(found.stored)}")
    if found.derived:
        lines.append(f"  derived: {facts_text(found.derived)}")
    return "\n".join([*lines, *(f"  why: {reason}" for reason in found.reasons)])


def finding_json(found: Finding) -> dict[str, Any]:
    """A disagreement as JSON values."""
    return {
        "kind": found.kind.value,
        "lot": found.lot,
        "account": found.account,
        "order": found.order_id,
        "stored": facts_json(found.stored) if found.stored else None,
        "derived": facts_json(found.derived) if found.derived else None,
        "reasons": list(found.reasons),
    }


def check_json(check: Check) -> dict[str, Any]:
    """A check's counts as JSON values."""
    return {
        "finished": check.finished,
        "read": check.read,
        "compared": check.compared,
        "equal": check.equal,
        **{kind: check.found[kind] for kind in sorted(check.found)},
        "erased": check.erased,
        "unchecked": dict(sorted(check.unchecked.items())),
        "skipped": dict(sorted(check.skipped.items())),
        "rejected": dict(sorted(check.rejected.items())),
    }


def print_check(check: Check) -> None:
    """A check's counts as a table."""
    table = Table(title="Rebuild and compare" if check.finished else "Stopped before the end", show_header=False)
    rows = [
        ("records read", check.read),
        *((f"  skipped: {reason}", count) for reason, count in sorted(check.skipped.items())),
        *((f"  rejected: {reason}", count) for reason, count in sorted(check.rejected.items())),
        ("lots compared", check.compared),
        ("equal", check.equal),
        *((kind.value, count) for kind, count in sorted(check.found.items())),
        ("of erased customers, rightly not there", check.erased),
        *((f"not checked: {reason}", count) for reason, count in sorted(check.unchecked.items())),
    ]
    for name, count in rows:
        table.add_row(name, f"{count:,}")
    out().print(table)


def rebuilt_json(rebuilt: Rebuilt) -> dict[str, Any]:
    """A rebuild as JSON values."""
    orders = rebuilt.orders
    return {
        "finished": rebuilt.finished,
        "settingsCopied": rebuilt.settings_copied,
        "tombstones": rebuilt.tombstones,
        "buried": rebuilt.buried,
        "orders": {
            "read": orders.read,
            "added": orders.added,
            "alreadyThere": orders.already_there,
            "differing": orders.differing,
            "skipped": dict(sorted(orders.skipped.items())),
            "rejected": dict(sorted(orders.rejected.items())),
        },
        "redemptionsAdded": rebuilt.redemptions_added,
        "redemptionsThere": rebuilt.redemptions_there,
        "answers": dict(sorted(rebuilt.answers.items())),
        "rejected": dict(sorted(rebuilt.rejected.items())),
        "lostCount": rebuilt.lost_count,
        "lost": [
            {"account": one.account, "entry": one.entry, "points": one.points, "why": one.why} for one in rebuilt.lost
        ],
    }


def print_rebuilt(rebuilt: Rebuilt) -> None:
    """A rebuild as a table, and what is lost line by line."""
    for one in rebuilt.lost:
        print_line(f"LOST {one.account} {one.entry}, {one.points:+} points: {one.why}")
    orders = rebuilt.orders
    table = Table(title="Rebuilt" if rebuilt.finished else "Stopped: run it again", show_header=False)
    rows = [
        ("settings and options copied", rebuilt.settings_copied),
        ("tombstones", rebuilt.tombstones),
        ("entries of erased customers deleted", rebuilt.buried),
        ("orders read", orders.read),
        ("  lots added", orders.added),
        ("  already there", orders.already_there),
        ("  of these differing", orders.differing),
        *((f"  skipped: {reason}", count) for reason, count in sorted(orders.skipped.items())),
        *((f"  rejected: {reason}", count) for reason, count in sorted(orders.rejected.items())),
        ("redemptions added", rebuilt.redemptions_added),
        ("redemptions already there", rebuilt.redemptions_there),
        *((f"answers: {word}", count) for word, count in sorted(rebuilt.answers.items())),
        *((f"not applied: {why}", count) for why, count in sorted(rebuilt.rejected.items())),
        ("lost, listed above", rebuilt.lost_count),
    ]
    for name, count in rows:
        table.add_row(name, f"{count:,}")
    out().print(table)
