"""One process: the parts it runs, wired together."""

import asyncio
import contextlib
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
import structlog
from starlette.types import ASGIApp

from rewardpoints import __version__
from rewardpoints.api.operations import ReadinessChecks, create_operations_app
from rewardpoints.api.server import HttpServer
from rewardpoints.app.clock import utc_now
from rewardpoints.app.consumers import subscribers
from rewardpoints.app.erasure_looks import look_at_erasures
from rewardpoints.app.readiness import KafkaCheck, LedgerCheck
from rewardpoints.domain.errors import LedgerUnavailable, RewardPointsError
from rewardpoints.domain.ports import Readiness
from rewardpoints.events.connection import security
from rewardpoints.events.dead_letters import DeadLetters
from rewardpoints.events.process import EventsProcess
from rewardpoints.events.producer import EventProducer
from rewardpoints.events.raw_consumer import ConsumerBroken
from rewardpoints.events.relay import CouponRequestPublisher, Relay
from rewardpoints.events.unanswered import UnansweredChargebacks
from rewardpoints.ledger.ledger import Ledger
from rewardpoints.remote_site_settings import RemoteSiteSettings
from rewardpoints.settings import Settings, SiteSettingsMode
from rewardpoints.telemetry import Metrics

if TYPE_CHECKING:
    from rewardpoints.app.api import Api

logger = structlog.get_logger(__name__)

PUBLISH_DRAIN_SECONDS: Final = 5.0
LEDGER_RETRY_SECONDS: Final = 2.0
BACKGROUND_STOP_SECONDS: Final = 3.0
UNANSWERED_POLL_SECONDS: Final = 60.0


class ProcessFailed(RewardPointsError):
    """The process cannot go on; nothing that was not finished has been committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a process runs."""

    api: bool = False
    orders: bool = False
    relay: bool = False
    coupon_answers: bool = False

    @classmethod
    def of_worker(cls, settings: Settings) -> "Parts":
        """The order consumer and the relay, as the settings have them."""
        service = settings.service
        return cls(
            orders=service.run_order_consumer is not False,
            relay=service.run_relay is not False,
            coupon_answers=bool(service.run_chargeback_consumer),
        )

    @classmethod
    def of_api(cls, settings: Settings) -> "Parts":
        """The API and the consumers of what the coupon service answers, as the settings have them."""
        service = settings.service
        return cls(
            api=True,
            orders=bool(service.run_order_consumer),
            relay=bool(service.run_relay),
            coupon_answers=service.run_chargeback_consumer is not False,
        )


class Service:
    """One process: the parts it runs, over one ledger and one Kafka producer.

    ``start`` returns without waiting for MongoDB or Kafka; what is down is waited for in the background, and readiness
    says so.
    """

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self._settings = settings
        self._parts = parts
        self._stopping = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self.metrics = Metrics()
        self.metrics.build.info({"version": __version__})
        security(settings.kafka)  # certificates that cannot be read end the start, and not each try to connect
        self.ledger = Ledger.open(settings.mongodb, settings.service, settings.site_settings, utc_now, self.metrics)
        self.producer = EventProducer(settings.kafka)
        self._dead_letters = DeadLetters(self.producer, settings.kafka.topic_dead_letter, self.metrics, utc_now)
        self._api_publisher = self._publisher("api")
        self._events = EventsProcess(
            settings.kafka,
            self.producer,
            stopping=self._stopping,
            on_fatal=self._fail,
            subscribers=subscribers(
                settings,
                self.ledger,
                self._dead_letters,
                self.metrics,
                orders=parts.orders,
                coupon_answers=parts.coupon_answers,
                stopping=self._stopping,
                on_fatal=self._fail,
            ),
            relay=self._relay() if parts.relay else None,
        )
        self._http_client = httpx.AsyncClient(follow_redirects=False)
        self._api = self._opened_api() if parts.api else None
        self.http = HttpServer(
            self._api.app if self._api else self._operations(),
            host=settings.http.host,
            port=settings.http.port if parts.api else settings.http.worker_port,
            drain_seconds=settings.http.drain_seconds,
        )

    async def start(self) -> None:
        """Start every part.

        Raises:
            AddressInUse: the HTTP address cannot be had; nothing was started.
        """
        await self.http.start()
        await self._events.start()
        self._run_beside(self._note_ledger())
        if self._parts.orders:
            self._run_beside(look_at_erasures(self.ledger.accounts, self.metrics, self._stopping))
        if self._parts.coupon_answers and self._settings.service.unanswered_charge_back_seconds:
            self._run_beside(
                self._unanswered(self._settings.service.unanswered_charge_back_seconds).run(self._stopping)
            )
        if self._parts.orders and self._settings.site_settings.mode is SiteSettingsMode.REMOTE:
            remote = RemoteSiteSettings(
                self._http_client,
                self.ledger.site_settings,
                self._settings.site_settings,
                clock=utc_now,
                metrics=self.metrics,
            )
            self._run_beside(remote.run(self._stopping))

    async def wait_failed(self) -> None:
        """Wait for what must end the process.

        Raises:
            ProcessFailed: it has happened. Never returns otherwise.
        """
        ended = asyncio.create_task(self.http.wait_ended())
        try:
            await asyncio.wait([ended, self._failed], return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            raise ProcessFailed("the HTTP server ended")
        finally:
            ended.cancel()

    async def stop(self) -> None:
        """Drain: open requests, publishes under way, batches in flight, in this order and each within its bound.

        What fails on the way does not keep the rest from being stopped; it is raised at the end.
        """
        async with AsyncExitStack() as last_first:
            last_first.push_async_callback(self.ledger.close)
            last_first.push_async_callback(self._http_client.aclose)
            last_first.push_async_callback(self._end_background)
            last_first.push_async_callback(self._events.stop)
            last_first.callback(self._stopping.set)
            last_first.push_async_callback(self._api_publisher.drain, PUBLISH_DRAIN_SECONDS)
            if self._api is not None:
                last_first.push_async_callback(self._api.stop)
            last_first.push_async_callback(self.http.stop)
        if self._failed.done():
            self._failed.exception()  # seen by whoever waited, or of no interest any more

    async def _end_background(self) -> None:
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=BACKGROUND_STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            # what others' exceptions say may hold a customer's data; the log has where it happened
            told = f": {error}" if isinstance(error, RewardPointsError | ConsumerBroken) else ""
            self._failed.set_exception(ProcessFailed(f"{type(error).__name__}{told}"))

    def _run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                logger.exception("background_task_failed")
                self._fail(error)

        self._tasks.append(asyncio.create_task(guarded()))

    async def _note_ledger(self) -> None:
        """Say once that the ledger is reachable, and until then that it is not."""
        while not self._stopping.is_set():
            try:
                await self.ledger.ping()
                await self.ledger.restoring.mark_serving()
            except LedgerUnavailable as error:
                logger.warning("mongodb_unreachable", error=str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), LEDGER_RETRY_SECONDS)
            else:
                logger.info("mongodb_reachable")
                return

    def _publisher(self, by: str) -> CouponRequestPublisher:
        topic = self._settings.kafka.topic_coupon_creation_requests
        return CouponRequestPublisher(self.ledger.redemptions, self.producer, self.metrics, topic=topic, by=by)

    def _relay(self) -> Relay:
        service = self._settings.service
        return Relay(
            self.ledger.redemptions,
            self._publisher("relay"),
            self.metrics,
            utc_now,
            lease_seconds=service.relay_lease_seconds,
            batch=service.relay_batch,
            poll_seconds=service.relay_poll_seconds,
            unanswered_after_seconds=service.unanswered_after_seconds,
        )

    def _unanswered(self, after_seconds: float) -> UnansweredChargebacks:
        return UnansweredChargebacks(
            self.ledger.redemptions,
            self.ledger.settings_reader,
            metrics=self.metrics,
            clock=utc_now,
            hears_answers=self._events.hears_all,
            after_seconds=after_seconds,
            poll_seconds=min(after_seconds / 10, UNANSWERED_POLL_SECONDS),
        )

    def _opened_api(self) -> "Api":
        from rewardpoints.app.api import Api  # noqa: PLC0415 - a worker starts in half the time without it

        return Api(
            self._settings,
            self.ledger,
            coupon_requests=self._api_publisher,
            kafka=KafkaCheck(self._events),
            metrics=self.metrics,
            http_client=self._http_client,
        )

    def _operations(self) -> ASGIApp:
        """Health and metrics of a process without the API. It needs both servers to do anything at all."""
        checks: dict[str, Readiness] = {"mongodb": LedgerCheck(self.ledger), "kafka": KafkaCheck(self._events)}
        return create_operations_app(metrics=self.metrics, readiness=ReadinessChecks(required=checks))
