"""Telemetry: every metric's name in one place, and the log format."""

import logging
import sys
import traceback
from collections.abc import Iterator
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

NAMESPACE: Final = "rewardpoints"


class Metrics:
    """The metrics of one process, in a registry of their own. Passed to the rooms; labels never hold customer data."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.build = Info("build", "The running version", namespace=NAMESPACE, registry=self.registry)
        self.server_up = self._gauge("server_up", "Whether a server answered the last /readyz", "server")
        self.records_read = self._counter("records_read", "Records taken from a topic", "topic")
        self.lots_added = self._counter("lots_added", "Lots the ledger took from orders")
        self.lots_already_there = self._counter("lots_already_there", "Orders whose lot existed")
        self.lots_differing = self._counter("lots_differing", "Existing lots a duplicate would have made differently")
        self.orders_skipped = self._counter("orders_skipped", "Orders that earn nothing", "reason")
        self.erasures_due = self._gauge("erasures_due", "Erasures to be looked at again")
        self.erasures_due_oldest_seconds = self._gauge(
            "erasures_due_oldest_seconds", "For how long the oldest erasure has been due"
        )
        self.erased_lots_removed = self._counter("erased_lots_removed", "Lots of erased customers a batch brought back")
        self.dead_letters = self._counter("dead_letters", "Records sent to the dead-letter topic", "topic", "reason")
        self.batch_retries = self._counter("batch_retries", "Repeated tries of a batch", "topic")
        self.consumption_paused = self._gauge("consumption_paused", "1 while a flood of bad records waits", "topic")
        self.commits_failed = self._counter("commits_failed", "Offset commits that failed, which is harmless", "topic")
        self.commits = self._counter("commits", "Offset commits", "topic")
        self.batch_seconds = self._histogram("batch_seconds", "Time from poll of a batch until it is handled", "topic")
        self.batch_records = Histogram(
            "batch_records",
            "Records of a batch",
            ("topic",),
            namespace=NAMESPACE,
            registry=self.registry,
            buckets=(1, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000),
        )
        self.lag_records = self._gauge("lag_records", "Records not handled yet", "topic", "partition")
        self.lag_seconds = self._gauge("lag_seconds", "Age of the next record, 0 without lag", "topic", "partition")
        self.topic_partitions = self._gauge("topic_partitions", "Partitions of a topic that is read", "topic")
        self.event_age_seconds = self._histogram("event_age_seconds", "From record timestamp until handled", "topic")
        self.redemptions = self._counter("redemptions", "Redemptions by outcome", "outcome")
        self.redemption_attempts = self._counter("redemption_attempts", "Transactions tried for redemptions")
        self.redemption_seconds = self._histogram("redemption_seconds", "Duration of redemptions in the ledger")
        self.coupon_requests_published = self._counter(
            "coupon_requests_published", "Acknowledged coupon requests", "by"
        )
        self.coupon_requests_failed = self._counter("coupon_requests_failed", "Publishes that failed", "by")
        self.coupon_requests_due = self._gauge("coupon_requests_due", "Coupon requests waiting for the relay")
        self.coupon_requests_oldest_seconds = self._gauge(
            "coupon_requests_oldest_seconds", "Age of the oldest due request"
        )
        self.redemptions_unanswered = self._gauge("redemptions_unanswered", "Coupon requests unanswered for too long")
        self.chargebacks = self._counter("chargebacks", "Chargebacks by outcome", "outcome")
        self.coupon_results = self._counter("coupon_results", "Coupon results by outcome", "outcome")
        self.issued_after_chargeback = self._counter(
            "issued_after_chargeback", "Coupons created after their chargeback"
        )
        self.http_requests = self._counter("http_requests", "HTTP requests", "operation", "status")
        self.http_seconds = self._histogram("http_seconds", "Duration of HTTP requests", "operation")
        self.process_restarts = self._counter(
            "process_restarts", "Worker processes that ended and were started again by their parent", "process"
        )
        self.site_settings_polls = self._counter("site_settings_polls", "Polls of the remote site settings", "outcome")

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, namespace=NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, labels, namespace=NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, documentation: str, *labels: str) -> Histogram:
        return Histogram(
            name,
            documentation,
            labels,
            namespace=NAMESPACE,
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )


def configure_logging(level: str, *, json: bool) -> None:
    """Send the project's and the libraries' logs to standard error, as JSON lines or for a person to read.

    Above level ``DEBUG`` a traceback names each exception and its place, but not what it says: a driver's errors repeat
    the documents they are about, customers' ids among them.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        # its own rendering of exceptions shows local variables, tokens and passwords among them
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    exceptions = (
        structlog.processors.format_exc_info if level == "DEBUG" else structlog.processors.ExceptionRenderer(places_of)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            exceptions,
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("aiokafka", "faststream", "uvicorn.access", "httpx", "pymongo"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def places_of(exc_info: structlog.typing.ExcInfo) -> str:
    """A traceback without the exceptions' messages: types, number codes and places, the first cause first."""
    return "".join(_places(exc_info[1], set())).rstrip("\n")


def _places(error: BaseException | None, seen: set[int]) -> Iterator[str]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _places(before, seen)
        yield "\nand then:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    kind = type(error)
    codes = [getattr(error, name, None) for name in ("code", "errno")]
    numbers = "".join(f" {code}" for code in codes if isinstance(code, int))
    yield f"{kind.__module__}.{kind.__qualname__}{numbers}\n"
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield "\namong them:\n\n"
            yield from _places(one, seen)
