"""The console's replays, on the functions behind `rewardpoints replay`."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from rewardpoints.app.console_letters import refusals
from rewardpoints.console.ports import ReplayView, ServiceUnavailable
from rewardpoints.domain.differences import Difference
from rewardpoints.domain.errors import NotFound, RewardPointsError
from rewardpoints.domain.replays import MOST_DIFFERENCES_KEPT, Replay, ReplayRequest, ReplayState
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.operate.replay import Hearing, dry_run_replay, resume_replay, start_replay
from rewardpoints.settings import Settings

MOST_AT_ONCE: Final = 2
"""Replays that this process runs at once: each holds a batch in memory and takes its share of the event loop."""

MOST_KEPT: Final = 20
"""Ended runs whose differences, and dry runs whose outcome, this process remembers."""

END_SECONDS: Final = 5.0
logger = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Run:
    """A replay that this process runs, or ran."""

    dry_run: bool
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    replay: Replay | None = None
    differences: list[Difference] = field(default_factory=list)
    refusal: Exception | None = None
    ended: bool = False

    @property
    def hearing(self) -> Hearing:
        """Hears of the run."""
        return Hearing(stopping=self.stopping, on_progress=self._moved, on_difference=self._differs)

    def _moved(self, moved: Replay) -> None:
        self.replay = moved
        self.begun.set()

    def _differs(self, found: Difference) -> None:
        if len(self.differences) < MOST_DIFFERENCES_KEPT:
            self.differences.append(found)


class ConsoleReplays:
    """Implements the console's port ``ReplayDesk``."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._running: dict[asyncio.Task[None], Run] = {}
        self._known: OrderedDict[str, Run] = OrderedDict()

    async def recent(self, tenant: str, *, limit: int) -> Sequence[ReplayView]:
        """The tenant's replays that moved last, newest first.

        Raises:
            LedgerUnavailable
        """
        stored = [self._view(replay) for replay in await self._ledger.replays.recent(limit, tenant=tenant)]
        views = stored + [view for view in map(_dry, self._known.values()) if view and _is_of(view.replay, tenant)]
        return sorted(views, key=lambda view: view.replay.updated_at, reverse=True)[:limit]

    async def find(self, tenant: str, replay_id: str) -> ReplayView:
        """One replay of the tenant.

        Raises:
            NotFound, LedgerUnavailable
        """
        run = self._known.get(replay_id)
        dry = _dry(run) if run else None
        if dry is not None and _is_of(dry.replay, tenant):
            return dry
        stored = None if dry else await self._ledger.replays.find(replay_id)
        if stored is None or not _is_of(stored, tenant):
            raise NotFound(f"There is no replay {replay_id[:100]}, or it was a dry run of another process.")
        return self._view(stored)

    async def start(self, request: ReplayRequest, *, dry_run: bool) -> str:
        """Start a replay that goes on behind the page.

        Raises:
            InvalidInput, ServiceUnavailable, LedgerUnavailable
        """
        if request.tenant is None:
            raise ValueError("a replay of the console is of one tenant")
        begin = dry_run_replay if dry_run else start_replay
        run = Run(dry_run)
        return await self._begin(run, lambda: begin(self._settings, self._ledger, request, run.hearing))

    async def resume(self, tenant: str, replay_id: str) -> None:
        """Go on with a replay.

        Raises:
            NotFound, ReplayFinished, ServiceUnavailable, LedgerUnavailable
        """
        view = await self.find(tenant, replay_id)
        if view.dry_run:
            raise NotFound("A dry run cannot be resumed; start it again.")
        run = Run(dry_run=False)
        await self._begin(run, lambda: resume_replay(self._settings, self._ledger, replay_id, run.hearing))

    async def stop(self, tenant: str, replay_id: str) -> None:
        """Have a replay stop after its next batch.

        Raises:
            NotFound, LedgerUnavailable
        """
        view = await self.find(tenant, replay_id)
        run = self._known.get(replay_id)
        if run is not None:
            run.stopping.set()
        if not view.dry_run:
            await self._ledger.replays.ask_to_stop(replay_id)

    async def end(self) -> None:
        """Stop what runs here, within a few seconds; it can be resumed."""
        for run in self._running.values():
            run.stopping.set()
        if self._running:
            _, late = await asyncio.wait(list(self._running), timeout=END_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _begin(self, run: Run, work: Callable[[], Awaitable[Replay]]) -> str:
        """Run the work beside, and wait until it has begun or has been refused."""
        if len(self._running) >= MOST_AT_ONCE:
            raise ServiceUnavailable(f"{MOST_AT_ONCE} replays are running in this process: wait for one, or cancel it.")
        task = asyncio.create_task(self._carry_out(run, work))
        self._running[task] = run
        task.add_done_callback(self._running.pop)
        await run.begun.wait()
        if run.replay is None:
            raise run.refusal or ServiceUnavailable("The replay could not be started.")
        self._known[run.replay.id] = run
        self._forget()
        return run.replay.id

    async def _carry_out(self, run: Run, work: Callable[[], Awaitable[Replay]]) -> None:
        """Where it fails after it has begun, the replay says so; where it is stored, also there."""
        try:
            with refusals():
                run.replay = await work()
        except RewardPointsError as error:
            run.refusal = error
        except Exception as error:
            logger.exception("console_replay_failed")
            run.refusal = error
        finally:
            run.ended = True
            run.begun.set()
        if run.refusal is not None and run.replay is not None:
            logger.warning("console_replay_failed", replay=run.replay.id, error=type(run.refusal).__name__)
            told = str(run.refusal) if isinstance(run.refusal, RewardPointsError) else type(run.refusal).__name__
            run.replay = replace(run.replay, state=ReplayState.FAILED, problem=told)

    def _view(self, stored: Replay) -> ReplayView:
        run = self._known.get(stored.id)
        return ReplayView(
            replay=stored, dry_run=False, differences=(run.differences if run else None) or stored.differences
        )

    def _forget(self) -> None:
        ended = [name for name, run in self._known.items() if run.ended]
        for name in ended[: max(len(self._known) - MOST_KEPT, 0)]:
            del self._known[name]


def _dry(run: Run) -> ReplayView | None:
    if not run.dry_run or run.replay is None:
        return None
    return ReplayView(replay=run.replay, dry_run=True, differences=run.differences)


def _is_of(replay: Replay, tenant: str) -> bool:
    return replay.scope.tenant == tenant
