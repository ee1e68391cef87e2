"""What a console stands on in tests: fakes of its ports, and what they hold."""

import secrets
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rewardpoints.console.ports import Caller, Letter, Letters, Outcome, ReplayView, TokenRefused
from rewardpoints.domain.accounts import Account, tenant_of
from rewardpoints.domain.dead_letters import Chosen, Handled, LetterFilter, LetterId, LetterState
from rewardpoints.domain.errors import NoAccount, NotFound, ReplayFinished
from rewardpoints.domain.explanation import explain
from rewardpoints.domain.history import History
from rewardpoints.domain.lag import CouponBacklog, Lag, Member, PartitionLag, State, SubscriptionLag
from rewardpoints.domain.liability import Liability, PeriodLength
from rewardpoints.domain.lots import active_points
from rewardpoints.domain.reasons import ExplainedAccount
from rewardpoints.domain.replays import PartitionProgress, Replay, ReplayCounts, ReplayRequest, ReplayScope, ReplayState
from tests.api.fakes import FakeSettings, TestClock

TENANT = "shop"


class FakeTokens:
    """Tokens that are what they say; ``issue`` makes them."""

    def __init__(self, clock: TestClock) -> None:
        self._clock = clock
        self._callers: dict[str, Caller] = {}

    def issue(self, *scopes: str, tenant: str = TENANT, customer_id: str | None = None, seconds: float = 36_000) -> str:
        token = secrets.token_urlsafe(16)
        self._callers[token] = Caller(
            tenant=tenant,
            scopes=frozenset(scopes),
            subject="someone",
            customer_id=customer_id,
            expires_at=self._clock().timestamp() + seconds,
        )
        return token

    async def caller(self, token: str) -> Caller:
        if token not in self._callers:
            raise TokenRefused("unknown")
        return self._callers[token]


class FakeWatch:
    def __init__(self) -> None:
        self.now: State = a_state()

    async def state(self) -> State:
        return self.now


class FakeExplainer:
    def __init__(self, clock: TestClock) -> None:
        self._clock = clock
        self.histories: dict[Account, History] = {}

    async def explain(self, account: Account) -> ExplainedAccount:
        history = self.histories.get(account)
        if history is None:
            raise NoAccount("the customer has no account")
        now = self._clock()
        return ExplainedAccount(
            explanation=explain(history, now), settings={}, stored_balance=active_points(history.lots, now)
        )


class FakeLiability:
    def __init__(self, clock: TestClock, explainer: FakeExplainer) -> None:
        self._clock = clock
        self._explainer = explainer

    async def report(self, tenant: str, *, site_code: str | None, by: PeriodLength) -> Liability:
        report = Liability(at=self._clock(), by=by, site_code=site_code)
        for account, history in self._explainer.histories.items():
            if tenant_of(account) == tenant:
                report.add(history)
        return report


class FakeSites(FakeSettings):
    async def site_codes(self, tenant: str) -> Sequence[str]:
        return sorted(code for name, code in self.versions if name == tenant)


class FakeLetters:
    """Letters by tenant; what was done about them, and dry runs, in ``acts``."""

    def __init__(self) -> None:
        self.letters: dict[str, list[Letter]] = {}
        self.acts: list[tuple[str, list[str], bool, str | None]] = []
        self.complete = True

    async def list(self, wanted: LetterFilter, *, last: int) -> Letters:
        found = self._matching(wanted)
        return Letters(
            letters=found[:last],
            by_reason=Counter(letter.reason or "none" for letter in found),
            by_state=Counter(letter.state for letter in found),
        )

    def _matching(self, wanted: LetterFilter) -> Sequence[Letter]:
        assert wanted.tenant is not None
        return [
            letter
            for letter in self.letters.get(wanted.tenant, [])
            if letter.state in wanted.states
            and (not wanted.reasons or letter.reason in wanted.reasons)
            and (wanted.source_topic is None or (letter.source or "").startswith(f"{wanted.source_topic}/"))
            and (wanted.since is None or (letter.at is not None and wanted.since <= letter.at))
            and (wanted.before is None or (letter.at is not None and letter.at < wanted.before))
        ]

    async def show(self, tenant: str, letter_id: LetterId) -> Letter:
        for letter in self.letters.get(tenant, []):
            if letter.id == letter_id:
                return letter
        raise NotFound(f"there is no dead letter {letter_id}")

    async def retry(self, chosen: Chosen, *, dry_run: bool) -> Outcome:
        return await self._act("retry", chosen, dry_run, None)

    async def discard(self, chosen: Chosen, *, note: str | None, dry_run: bool) -> Outcome:
        return await self._act("discard", chosen, dry_run, note)

    async def _act(self, what: str, chosen: Chosen, dry_run: bool, note: str | None) -> Outcome:  # noqa: FBT001
        tenant = chosen.matching.tenant
        assert tenant is not None
        letters = [await self.show(tenant, one) for one in chosen.ids] or self._matching(chosen.matching)
        self.acts.append((what, [str(letter.id) for letter in letters], dry_run, note))
        handled = Handled(matched=len(letters), done=len(letters))
        handled.by_reason.update(letter.reason or "none" for letter in letters)
        return Outcome(handled, self.complete)


class FakeReplays:
    """Replays by id; what was asked for in ``asked``."""

    def __init__(self) -> None:
        self.views: dict[str, ReplayView] = {}
        self.asked: list[tuple[str, Any]] = []

    async def recent(self, tenant: str, *, limit: int) -> Sequence[ReplayView]:
        return [view for view in self.views.values() if view.replay.scope.tenant == tenant][:limit]

    async def find(self, tenant: str, replay_id: str) -> ReplayView:
        view = self.views.get(replay_id)
        if view is None or view.replay.scope.tenant != tenant:
            raise NotFound("There is no replay of this id.")
        return view

    async def start(self, request: ReplayRequest, *, dry_run: bool) -> str:
        self.asked.append(("dry run" if dry_run else "start", request))
        return "r-new"

    async def resume(self, tenant: str, replay_id: str) -> None:
        view = await self.find(tenant, replay_id)
        if view.replay.state is ReplayState.FINISHED:
            raise ReplayFinished(f"replay {replay_id} is finished")
        self.asked.append(("resume", replay_id))

    async def stop(self, tenant: str, replay_id: str) -> None:
        await self.find(tenant, replay_id)
        self.asked.append(("stop", replay_id))


def a_replay(replay_id: str = "r1", *, dry_run: bool = False, tenant: str = TENANT, **changes: Any) -> ReplayView:
    at = datetime(2026, 11, 21, 12, tzinfo=UTC)
    fields: dict[str, Any] = {
        "id": replay_id,
        "scope": ReplayScope(topic="order-completed", tenant=tenant),
        "partitions": (PartitionProgress(partition=0, first=0, end=2000, position=1500),),
        "started_at": at,
        "updated_at": at,
        "active_seconds": 3.0,
        "counts": ReplayCounts(
            read=1500,
            added=3,
            already_there=1490,
            differing=2,
            skipped=Counter(zero_points=4),
            rejected=Counter(malformed=3),
        ),
        **changes,
    }
    return ReplayView(replay=Replay(**fields), dry_run=dry_run, differences=fields.pop("differences", ()))


def a_letter(number: int, **changes: Any) -> Letter:
    fields: dict[str, Any] = {
        "id": LetterId(0, number),
        "state": LetterState.OPEN,
        "at": datetime(2026, 11, 20, 12, tzinfo=UTC) + timedelta(minutes=number),
        "reason": "invalid_amount",
        "error": "the amount is no number",
        "source": f"order-completed/1/{number}",
        "attempts": 1,
        "first_seen": None,
        "omitted": False,
        "action": None,
        "key": "k",
        "headers": {"tenant": TENANT},
        "value": '{"id": "O-1"}',
        **changes,
    }
    return Letter(**fields)


def a_state(*, topic: str = "order-completed", waiting: int = 1234) -> State:
    at = datetime(2026, 11, 21, 12, tzinfo=UTC)
    member = Member(id="m", client_id="worker-1", host="10.0.0.7", partitions=(0,))
    partitions = tuple(
        PartitionLag(
            partition=number,
            position=10_000,
            end=10_000 + records,
            records=records,
            seconds=75.0 if records else 0.0,
            written_per_second=20.5,
            read_per_second=18.25,
            member=member if number == 0 else None,
        )
        for number, records in enumerate((waiting, 0))
    )
    subscription = SubscriptionLag(
        name="orders", topic=topic, group="g", state="Stable", members=(member,), partitions=partitions
    )
    coupons = CouponBacklog(
        unpublished=3,
        oldest_unpublished=at - timedelta(minutes=7),
        waiting=10_000,
        oldest_waiting=at - timedelta(hours=30),
        overdue=2,
        oldest_overdue=at - timedelta(hours=30),
        since=at - timedelta(days=1),
        issued=41,
        charged_back=5,
    )
    return State(Lag(at=at, subscriptions=(subscription,), written=2000, dead_letters=20), coupons)
