"""Verify: find what is wrong in the ledger, and say what an operator may do about it. Repairs nothing."""

import shlex
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from rewardpoints.domain.accounts import customer_of, tenant_of
from rewardpoints.domain.dead_letters import LetterFilter
from rewardpoints.domain.errors import RecordRejected, RejectReason
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.invariants import Invariant, Violation
from rewardpoints.domain.ports import Clock
from rewardpoints.events.messages import decode_coupon_result, encode_coupon_request
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.ledger.verify import Scope, Verification
from rewardpoints.operate.dead_letters import list_letters
from rewardpoints.operate.published import PublishedRequests
from rewardpoints.settings import Settings

MOST_LETTERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken invariant and, where there is one, the command an operator may correct it with."""

    violation: Violation
    command: str | None


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What a run has come to so far: what it has judged and what it has found."""

    accounts: int = 0
    entries: int = 0
    violations: Counter[Invariant] = field(default_factory=Counter)
    corrected: int = 0

    @property
    def clean(self) -> bool:
        """Whether every invariant holds, but for what an adjustment has corrected."""
        return self.violations.total() == self.corrected


class VerifyRun:
    """One run over a scope; ``verdict`` tells how far it is and what it has found."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        clock: Clock,
        scope: Scope,
        *,
        published: PublishedRequests | None = None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._scope = scope
        self._published = published
        self._verification = Verification(ledger.database, clock, settings=ledger.site_settings, requests=published)
        self._found: Counter[Invariant] = Counter()
        self._corrected = 0

    @property
    def verdict(self) -> Verdict:
        """What the run has come to so far."""
        return Verdict(
            accounts=self._verification.accounts,
            entries=self._verification.entries,
            violations=Counter(self._found),
            corrected=self._corrected,
        )

    async def about(self) -> int | None:
        """About how many entries there are to judge; None where only counting them would tell.

        Raises:
            LedgerUnavailable
        """
        return await self._verification.about(self._scope)

    async def findings(self) -> AsyncGenerator[Finding]:
        """Every broken invariant as it is found, in bounded memory.

        Raises:
            LedgerUnavailable, ServerRefused: at any step.
        """
        async with aclosing(self._violations()) as found:
            async for violation in found:
                self._found[violation.invariant] += 1
                self._corrected += violation.corrected
                yield Finding(violation, await self._command(violation))

    async def _violations(self) -> AsyncGenerator[Violation]:
        async with aclosing(self._verification.violations(self._scope)) as found:
            async for violation in found:
                yield violation
        if self._published is None:
            return
        if self._scope.since is None:  # else accounts without an entry since then have not been looked at
            async with aclosing(self._published.orphans(self._ledger, self._scope.accounts)) as orphans:
                async for violation in orphans:
                    yield violation
        for violation in await self._issued_after_chargeback():
            yield violation

    async def _issued_after_chargeback(self) -> list[Violation]:
        """The open dead letters that say that somebody has both the coupon and the points."""
        wanted = LetterFilter(reasons=frozenset({RejectReason.ISSUED_AFTER_CHARGEBACK.value}), since=self._scope.since)
        listing = await list_letters(self._settings, self._ledger, wanted, last=MOST_LETTERS)
        found: dict[str, Violation] = {}
        for letter in listing.letters:
            try:
                identity = decode_coupon_result(letter.record).redemption_id
            except RecordRejected:
                continue
            redemption = await self._ledger.redemptions.find(identity)
            low, high = self._scope.accounts
            if redemption is None or redemption.coupon is None or not low <= redemption.account < high:
                continue
            problem = (
                f"redemption {identity}: its coupon was created after its points were given back; cancel coupon "
                f"{redemption.coupon.code}, then discard dead letter {letter.id}"
            )
            found[identity] = Violation(
                account=redemption.account,
                invariant=Invariant.ISSUED_AFTER_CHARGEBACK,
                entry=identity,
                problem=problem,
            )
        return list(found.values())

    async def _command(self, violation: Violation) -> str | None:
        if violation.corrected:
            return None
        if violation.correction is not None:
            return adjust_command(violation)
        if violation.publish_again:
            return await self._publish_command(violation)
        return None

    async def _publish_command(self, violation: Violation) -> str | None:
        """Publishing a request again is harmless: its id is its identity."""
        redemption = await self._ledger.redemptions.find(violation.entry)
        if redemption is None or redemption.coupon is None:
            return None
        message = encode_coupon_request(redemption, self._settings.kafka.topic_coupon_creation_requests)
        arguments = ["rewardpoints", "topics", "publish", message.topic, (message.value or b"").decode()]
        arguments += ["--key", (message.key or b"").decode()]
        for name, value in message.headers:
            arguments += ["--header", f"{name}={(value or b'').decode()}"]
        return shlex.join(arguments)


def adjust_command(violation: Violation) -> str:
    """The command that applies a violation's correction."""
    correction = violation.correction
    if correction is None:
        raise ValueError("there is nothing to adjust")
    arguments = ["rewardpoints", "adjust", "--tenant", tenant_of(violation.account)]
    arguments += ["--customer", customer_of(violation.account), f"--points={correction.points}"]
    arguments += ["--site", correction.site_code]
    if correction.valid_until is not None:
        arguments += ["--valid-until", format_instant(correction.valid_until)]
    arguments += ["--key", violation.key, "--reason", f"Correction ({violation.invariant.value.replace('_', ' ')})"]
    return shlex.join(arguments)
