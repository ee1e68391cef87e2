"""What goes on behind the console's pages: looking at the service, and replays that run beside."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import SecretStr

from rewardpoints.app import console, console_replays
from rewardpoints.app.clock import utc_now
from rewardpoints.app.commands import ServerRefused
from rewardpoints.app.console import ServiceWatch
from rewardpoints.app.console_replays import ConsoleReplays
from rewardpoints.console.ports import ServiceUnavailable
from rewardpoints.domain.errors import InvalidInput, LedgerUnavailable, NotFound
from rewardpoints.domain.lag import State
from rewardpoints.domain.replays import Replay, ReplayRequest, ReplayScope, ReplayState
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.operate.replay import Hearing
from rewardpoints.settings import (
    HttpSettings,
    KafkaSettings,
    MongodbSettings,
    ServiceSettings,
    Settings,
    SiteSettingsSettings,
)
from tests.console.fakes import a_state
from tests.e2e.stack import until

REQUEST = ReplayRequest(topic="order-completed", begin="beginning", tenant="shop")


@pytest.fixture
def settings() -> Settings:
    return Settings(
        mongodb=MongodbSettings(uri=SecretStr("mongodb://127.0.0.1:1/"), server_selection_timeout_seconds=0.1),
        kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"),
        http=HttpSettings(),
        site_settings=SiteSettingsSettings(),
        service=ServiceSettings(),
    )


class NoReplays:
    """Where replays are stored, which cannot be reached."""

    async def find(self, _replay_id: str) -> Replay | None:
        raise LedgerUnavailable("down")


@pytest.fixture
def ledger() -> Ledger:
    """As far as the desks need one here."""
    return cast("Ledger", SimpleNamespace(replays=NoReplays()))


@pytest.fixture
async def watch(settings: Settings, ledger: Ledger) -> AsyncIterator[ServiceWatch]:
    watching = ServiceWatch(settings, ledger)
    yield watching
    await watching.stop()


class Looks:
    """States as a test lets them come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = self.ended = 0
        self.over = asyncio.Event()
        self.coming: asyncio.Queue[State | Exception] = asyncio.Queue()
        monkeypatch.setattr(console, "states", self._states)

    async def _states(self, *_: Any, **__: Any) -> AsyncGenerator[State]:
        self.begun += 1
        try:
            while True:
                found = await self.coming.get()
                if isinstance(found, Exception):
                    raise found
                yield found
        finally:
            self.ended += 1
            self.over.set()


async def seen(watch: ServiceWatch, waiting: int) -> None:
    async def is_seen() -> bool:
        return (await watch.state()).lag.subscriptions[0].records == waiting

    await until(is_seen, seconds=30, what=f"{waiting} records waiting")


async def test_those_who_ask_share_one_look(monkeypatch: pytest.MonkeyPatch, watch: ServiceWatch) -> None:
    looks = Looks(monkeypatch)
    asked = asyncio.gather(*(watch.state() for _ in range(5)))
    looks.coming.put_nowait(a_state(waiting=1))
    assert {state.lag.subscriptions[0].records for state in await asked} == {1}
    looks.coming.put_nowait(a_state(waiting=2))
    await seen(watch, 2)
    assert looks.begun == 1


@pytest.mark.parametrize("error", [ServerRefused("Kafka: down"), LedgerUnavailable("down"), RuntimeError("secret")])
async def test_a_look_that_fails_is_said_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, watch: ServiceWatch, error: Exception
) -> None:
    looks = Looks(monkeypatch)
    looks.coming.put_nowait(error)
    with pytest.raises((ServiceUnavailable, LedgerUnavailable)) as said:
        await watch.state()
    assert "secret" not in str(said.value)
    looks.coming.put_nowait(a_state(waiting=3))
    await seen(watch, 3)
    assert looks.begun == 2


async def test_it_looks_no_more_when_nobody_asks(monkeypatch: pytest.MonkeyPatch, watch: ServiceWatch) -> None:
    looks = Looks(monkeypatch)
    monkeypatch.setattr(console, "UNWATCHED_SECONDS", -1.0)
    looks.coming.put_nowait(a_state())
    await watch.state()
    await asyncio.wait_for(looks.over.wait(), 30)
    looks.coming.put_nowait(a_state(waiting=4))
    await seen(watch, 4)


async def test_what_was_long_ago_is_not_shown_as_now(monkeypatch: pytest.MonkeyPatch, watch: ServiceWatch) -> None:
    looks = Looks(monkeypatch)
    looks.coming.put_nowait(a_state())
    await watch.state()
    monkeypatch.setattr(console, "STALE_SECONDS", -1.0)
    with pytest.raises(ServiceUnavailable, match="has not answered since 2026-11-21"):
        await watch.state()


async def test_a_first_look_that_does_not_come_is_said(monkeypatch: pytest.MonkeyPatch, watch: ServiceWatch) -> None:
    Looks(monkeypatch)
    monkeypatch.setattr(console, "FIRST_LOOK_SECONDS", 0.05)
    with pytest.raises(ServiceUnavailable, match="not answered yet"):
        await watch.state()


async def test_stopping_ends_the_look(monkeypatch: pytest.MonkeyPatch, watch: ServiceWatch) -> None:
    looks = Looks(monkeypatch)
    looks.coming.put_nowait(a_state())
    await watch.state()
    await watch.stop()
    assert looks.ended == 1


def a_replay(state: ReplayState = ReplayState.RUNNING, *, replay_id: str = "r1", tenant: str | None = "shop") -> Replay:
    now = utc_now()
    scope = ReplayScope(topic="order-completed", tenant=tenant)
    return Replay(id=replay_id, scope=scope, partitions=(), started_at=now, updated_at=now, state=state)


@pytest.fixture
async def replays(settings: Settings, ledger: Ledger) -> AsyncIterator[ConsoleReplays]:
    made = ConsoleReplays(settings, ledger)
    yield made
    await made.end()


async def ended_as(replays: ConsoleReplays, replay_id: str, state: ReplayState) -> None:
    async def is_so() -> bool:
        return (await replays.find("shop", replay_id)).replay.state is state

    await until(is_so, seconds=30, what=f"replay {state.value}")


async def test_a_refused_replay_is_said_and_leaves_its_place_free(
    monkeypatch: pytest.MonkeyPatch, replays: ConsoleReplays
) -> None:
    async def refuse(*_: Any) -> Replay:
        raise InvalidInput("to", "must lie after from")

    monkeypatch.setattr(console_replays, "start_replay", refuse)
    for _ in range(5):
        with pytest.raises(InvalidInput):
            await replays.start(REQUEST, dry_run=False)


async def test_a_dry_run_is_followed_stopped_and_nobody_elses(
    monkeypatch: pytest.MonkeyPatch, replays: ConsoleReplays
) -> None:
    async def run(_settings: Settings, _ledger: Ledger, _request: ReplayRequest, hearing: Hearing) -> Replay:
        hearing.on_progress(a_replay())
        await hearing.stopping.wait()
        return a_replay(ReplayState.STOPPED)

    monkeypatch.setattr(console_replays, "dry_run_replay", run)
    replay_id = await replays.start(REQUEST, dry_run=True)
    view = await replays.find("shop", replay_id)
    assert view.dry_run
    assert view.replay.state is ReplayState.RUNNING
    await replays.stop("shop", replay_id)
    await ended_as(replays, replay_id, ReplayState.STOPPED)
    with pytest.raises(NotFound):
        await replays.find("rival", replay_id)
    with pytest.raises(NotFound):
        await replays.stop("rival", replay_id)
    with pytest.raises(NotFound):
        await replays.resume("shop", replay_id)


@pytest.mark.parametrize(
    ("error", "said"), [(ServerRefused("Kafka: down"), "Kafka: down"), (RuntimeError("x"), "Runtime")]
)
async def test_a_dry_run_that_fails_says_why(
    monkeypatch: pytest.MonkeyPatch, replays: ConsoleReplays, error: Exception, said: str
) -> None:
    async def run(_settings: Settings, _ledger: Ledger, _request: ReplayRequest, hearing: Hearing) -> Replay:
        hearing.on_progress(a_replay())
        raise error

    monkeypatch.setattr(console_replays, "dry_run_replay", run)
    replay_id = await replays.start(REQUEST, dry_run=True)
    await ended_as(replays, replay_id, ReplayState.FAILED)
    assert said in str((await replays.find("shop", replay_id)).replay.problem)


async def test_so_many_run_at_once_and_all_end_with_the_process(
    monkeypatch: pytest.MonkeyPatch, replays: ConsoleReplays
) -> None:
    ended: list[str] = []

    async def run(_settings: Settings, _ledger: Ledger, _request: ReplayRequest, hearing: Hearing) -> Replay:
        replay_id = f"r{len(ended)}{id(hearing)}"
        hearing.on_progress(a_replay(replay_id=replay_id))
        await hearing.stopping.wait()
        ended.append(replay_id)
        return a_replay(ReplayState.STOPPED, replay_id=replay_id)

    monkeypatch.setattr(console_replays, "dry_run_replay", run)
    for _ in range(console_replays.MOST_AT_ONCE):
        await replays.start(REQUEST, dry_run=True)
    with pytest.raises(ServiceUnavailable, match="are running in this process"):
        await replays.start(REQUEST, dry_run=True)
    await replays.end()
    assert len(ended) == console_replays.MOST_AT_ONCE
    await replays.start(REQUEST, dry_run=True)


async def test_what_has_ended_is_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch, replays: ConsoleReplays) -> None:
    made: list[str] = []

    async def run(_settings: Settings, _ledger: Ledger, _request: ReplayRequest, hearing: Hearing) -> Replay:
        made.append(f"r{len(made)}")
        replay = a_replay(ReplayState.FINISHED, replay_id=made[-1])
        hearing.on_progress(replay)
        return replay

    monkeypatch.setattr(console_replays, "dry_run_replay", run)
    for _ in range(console_replays.MOST_KEPT + 5):
        await replays.start(REQUEST, dry_run=True)
    assert (await replays.find("shop", made[-1])).replay.id == made[-1]
    with pytest.raises(LedgerUnavailable):  # looked for where replays are stored: nobody knows it here any more
        await replays.find("shop", made[0])


async def test_a_request_without_a_tenant_is_a_mistake(replays: ConsoleReplays) -> None:
    with pytest.raises(ValueError, match="one tenant"):
        await replays.start(ReplayRequest(topic="order-completed", begin="beginning"), dry_run=True)
