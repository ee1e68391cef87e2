"""What ``verify`` and ``adjust`` found or did, as text and as JSON."""

import json
from typing import Any, Protocol

from rewardpoints.domain.lots import Lot
from rewardpoints.operate.adjust import Adjusted
from rewardpoints.operate.terminal import print_json, print_line
from rewardpoints.operate.verify import Finding, Verdict


class Show(Protocol):
    """Shows findings as they come, and the verdict at the end."""

    def finding(self, finding: Finding) -> None:
        """One finding."""
        ...

    def verdict(self, verdict: Verdict) -> None:
        """The end."""
        ...


def as_text() -> Show:
    """For a person: a line a violation, and below it what may be done."""
    return _Text()


def as_json() -> Show:
    """One JSON document, written as the findings come."""
    return _Json()


class _Text:
    def finding(self, finding: Finding) -> None:
        violation = finding.violation
        print_line(f"{'corrected' if violation.corrected else 'WRONG'}  {violation.invariant.value}  {violation}")
        if finding.command:
            print_line(f"    may be corrected with: {finding.command}")

    def verdict(self, verdict: Verdict) -> None:
        judged = f"{verdict.accounts:,} accounts with {verdict.entries:,} entries"
        total = verdict.violations.total()
        if not total:
            print_line(f"{judged}: every invariant holds")
            return
        kinds = ", ".join(f"{name.value} {count}" for name, count in sorted(verdict.violations.items()))
        corrected = f", {verdict.corrected} of them corrected by adjustments" if verdict.corrected else ""
        print_line(f"{judged}: {total} violation{'s' * (total != 1)} ({kinds}){corrected}")


class _Json:
    def __init__(self) -> None:
        self._between = '{"violations": ['

    def finding(self, finding: Finding) -> None:
        violation, correction = finding.violation, finding.violation.correction
        value = {
            "account": violation.account,
            "invariant": violation.invariant.value,
            "entry": violation.entry or None,
            "problem": violation.problem,
            "points": violation.points,
            "corrected": violation.corrected,
            "correctionPoints": correction.points if correction else None,
            "key": violation.key,
            "command": finding.command,
        }
        print_line(f"{self._between}{json.dumps(value, ensure_ascii=False)}")
        self._between = ","

    def verdict(self, verdict: Verdict) -> None:
        end: dict[str, Any] = {
            "accounts": verdict.accounts,
            "entries": verdict.entries,
            "found": {name.value: count for name, count in sorted(verdict.violations.items())},
            "corrected": verdict.corrected,
            "clean": verdict.clean,
        }
        begun = self._between if self._between != "," else ""
        print_line(f"{begun}], {json.dumps(end, ensure_ascii=False)[1:]}")


def adjusted(done: Adjusted, *, as_json: bool) -> None:
    """What became of an adjustment."""
    entry = done.entry
    points = entry.points if isinstance(entry, Lot) else -entry.points
    if as_json:
        print_json(
            {
                "id": entry.id,
                "added": done.added,
                "points": points,
                "balanceBefore": done.balance_before,
                "balance": done.balance,
            }
        )
    elif done.added:
        print_line(f"{points:+} points; the balance was {done.balance_before} and is {done.balance}")
    else:
        print_line(f"there before ({points:+} points), nothing was added; the balance is {done.balance}")
