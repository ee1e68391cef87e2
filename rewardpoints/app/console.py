"""The console joined to the rooms: what it asks, on the functions behind the commands."""

import asyncio
import contextlib
import secrets
from contextlib import aclosing
from typing import Final

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from rewardpoints.api.keys import KeysUnavailable
from rewardpoints.api.tokens import InvalidToken, TokenVerifier
from rewardpoints.app.clock import utc_now
from rewardpoints.app.commands import ServerRefused
from rewardpoints.app.console_letters import ConsoleLetters
from rewardpoints.app.console_replays import ConsoleReplays
from rewardpoints.console.application import create_console
from rewardpoints.console.ports import Caller, Ports, ServiceUnavailable, TokenRefused
from rewardpoints.domain.accounts import Account
from rewardpoints.domain.errors import LedgerUnavailable, RewardPointsError
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.lag import State
from rewardpoints.domain.liability import Liability, PeriodLength
from rewardpoints.domain.reasons import ExplainedAccount
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.operate.explain import explain_account
from rewardpoints.operate.lag import states
from rewardpoints.operate.liability import LiabilityRun
from rewardpoints.settings import ConsoleSettings, Settings
from rewardpoints.telemetry import Metrics

LOOK_SECONDS: Final = 2.0
"""Between two looks; the rates are those of this time."""

UNWATCHED_SECONDS: Final = 20.0
"""Nobody has asked for so long: stop looking."""

FIRST_LOOK_SECONDS: Final = 20.0
STALE_SECONDS: Final = 20.0
"""A look older than this is not shown as how things are."""

STOP_SECONDS: Final = 5.0

ACTING_SHARE: Final = 0.6
"""Of the time a page may take, what is spent on dealing with dead letters; the rest is for the batch in flight."""

logger = structlog.get_logger(__name__)


class Console:
    """The console of one process, and what goes on behind its pages."""

    def __init__(
        self, settings: Settings, console: ConsoleSettings, ledger: Ledger, verifier: TokenVerifier, metrics: Metrics
    ) -> None:
        self._watch = ServiceWatch(settings, ledger)
        self._replays = ConsoleReplays(settings, ledger)
        self.app = create_console(
            Ports(
                tokens=ConsoleTokens(verifier),
                watch=self._watch,
                explainer=LedgerExplainer(ledger),
                liability=LedgerLiability(ledger),
                letters=ConsoleLetters(settings, ledger, act_seconds=console.answer_seconds * ACTING_SHARE),
                replays=self._replays,
                redeem_options=ledger.redeem_options,
                site_settings=ledger.site_settings,
            ),
            console,
            settings.site_settings,
            order_topic=settings.kafka.topic_order_completed,
            clock=utc_now,
            metrics=metrics,
            randomness=secrets.token_bytes,
        )

    async def stop(self) -> None:
        """End what goes on behind the pages, within a few seconds."""
        await asyncio.gather(self._watch.stop(), self._replays.end())


def beside(api: ASGIApp, console: ASGIApp) -> ASGIApp:
    """Both as one application. The console has its own middleware: no CORS, and paths as browsers send them."""

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        chosen = console if scope["type"] == "http" and (path == "/console" or path.startswith("/console/")) else api
        await chosen(scope, receive, send)

    return either


class ConsoleTokens:
    """Checks the console's tokens as the API checks its own."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    async def caller(self, token: str) -> Caller:
        """Whom the token speaks for.

        Raises:
            TokenRefused, ServiceUnavailable
        """
        try:
            principal = await self._verifier.verify(token)
        except InvalidToken as error:
            raise TokenRefused("not accepted") from error
        except KeysUnavailable as error:
            raise ServiceUnavailable("The access token cannot be checked at the moment.") from error
        return Caller(
            tenant=principal.tenant,
            scopes=principal.scopes,
            subject=principal.subject,
            customer_id=principal.customer_id,
            expires_at=principal.expires_at,
        )


class ServiceWatch:
    """Looks at Kafka and the ledger as `rewardpoints lag --watch` does, while somebody asks."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._task: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._state: State | None = None
        self._problem: RewardPointsError | None = None
        self._asked_at = self._looked_at = 0.0

    async def state(self) -> State:
        """The state as of the last look.

        Raises:
            ServiceUnavailable, LedgerUnavailable: the last look failed, or the first takes too long.
        """
        self._asked_at = asyncio.get_running_loop().time()
        if self._task is None or self._task.done():
            self._looked.clear()
            self._task = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._looked.wait()
        except TimeoutError as error:
            raise ServiceUnavailable("Kafka has not answered yet.") from error
        if self._problem is not None:
            raise self._problem
        if self._state is None:
            raise ServiceUnavailable("There has been no look yet.")
        if self._asked_at - self._looked_at > STALE_SECONDS:
            raise ServiceUnavailable(f"Kafka has not answered since {format_instant(self._state.lag.at)}.")
        return self._state

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                await asyncio.wait_for(self._task, STOP_SECONDS)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._state = self._problem = None
        try:
            async with aclosing(
                states(self._settings, self._ledger, utc_now, interval_seconds=LOOK_SECONDS)
            ) as following:
                async for state in following:
                    self._state, self._looked_at = state, loop.time()
                    self._looked.set()
                    if loop.time() - self._asked_at > UNWATCHED_SECONDS:
                        return
        except ServerRefused as error:
            self._problem = ServiceUnavailable(str(error))
        except LedgerUnavailable as error:
            self._problem = error
        except Exception:
            logger.exception("console_watch_failed")
            self._problem = ServiceUnavailable("Looking at the service failed; the log has the reason.")
        finally:
            self._looked.set()


class LedgerExplainer:
    """Accounts explained as `rewardpoints explain` does."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def explain(self, account: Account) -> ExplainedAccount:
        """The account as it is now.

        Raises:
            NoAccount, LedgerUnavailable
        """
        return await explain_account(self._ledger, utc_now, account)


class LedgerLiability:
    """Liability as `rewardpoints liability` adds it up."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def report(self, tenant: str, *, site_code: str | None, by: PeriodLength) -> Liability:
        """The tenant's liability now.

        Raises:
            UnreadableEntry, LedgerUnavailable
        """
        report = Liability(at=utc_now(), by=by, site_code=site_code)
        return await LiabilityRun(self._ledger, report, tenant=tenant).complete()
