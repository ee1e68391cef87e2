"""``rewardpoints dev``: servers, worker, API and sample data on this machine, until it is told to stop."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from rewardpoints.app.clock import utc_now
from rewardpoints.app.commands import ServerRefused, TopicWriter, create_topics
from rewardpoints.app.service import Parts, ProcessFailed, Service
from rewardpoints.app.stopping import stop_signals, until_first
from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.redeem_options import RedeemOption, option_content
from rewardpoints.domain.site_settings import SettingsVersion, parse_site_settings
from rewardpoints.embedded import EmbeddedServers, keep_reaping
from rewardpoints.settings import KafkaSettings
from rewardpoints.trial.environment import Addresses, TrialEnvironment
from rewardpoints.trial.samples import (
    CUSTOMER,
    REDEEM_OPTIONS,
    SITE_CODE,
    SITE_SETTINGS,
    TENANT,
    TENANT_HEADER,
    sample_order,
)
from rewardpoints.trial.session import session

Say = Callable[[str], None]

SAMPLE_DAYS_AGO: Final = (40, 10, 0)
"""Age of the sample customer's first orders."""

SAMPLES_TIMEOUT_SECONDS: Final = 20.0
OFFER_TICK_SECONDS: Final = 0.05
MOST_OFFERED_AT_ONCE: Final = 1000

_log = logging.getLogger(__name__)


async def run_dev(environment: TrialEnvironment, *, host: str, port: int, orders_per_second: float, say: Say) -> None:
    """Run the trial environment until a signal; everything it started has ended when this returns.

    Raises:
        DataFolderInUse, EmbeddedNotInstalled, ServerStartFailed, AddressInUse: it cannot start.
        ProcessFailed: a part of it ended.
    """
    async with stop_signals() as asked:
        servers = environment.servers()
        running = _run(environment, servers, host=host, port=port, orders_per_second=orders_per_second, say=say)
        try:
            await until_first(asked.wait(), running)
        finally:
            await servers.stop()


async def _run(
    environment: TrialEnvironment,
    servers: EmbeddedServers,
    *,
    host: str,
    port: int,
    orders_per_second: float,
    say: Say,
) -> None:
    await servers.start()
    environment.tokens.ensure_key()
    settings = environment.settings(
        mongodb_uri=servers.mongodb_uri, kafka=servers.kafka_bootstrap_servers, host=host, port=port
    )
    await create_topics(settings.kafka)
    service = Service(settings, Parts(api=True, orders=True, relay=True, coupon_answers=True))
    try:
        await service.ledger.ensure_indexes()
        await _ensure_samples(service)
        await service.start()
        addresses = Addresses(api=service.http.url, kafka=servers.kafka_bootstrap_servers, mongodb=servers.mongodb_uri)
        environment.write_addresses(addresses)
        await _ensure_sample_orders(service, settings.kafka)
        say(session(environment, addresses))
        works = [service.wait_failed(), keep_reaping(service.ledger.reap), _fail_when_died(servers)]
        if orders_per_second:
            works.append(_offer_orders(settings.kafka, orders_per_second))
        await until_first(*works)
    finally:
        environment.remove_addresses()
        await service.stop()


async def _fail_when_died(servers: EmbeddedServers) -> None:
    raise ProcessFailed(await servers.wait_died())


async def _ensure_samples(service: Service) -> None:
    """The sample site and options, where they are not there; what was changed since stays."""
    now = utc_now()
    ledger = service.ledger
    if (await ledger.site_settings.history(TENANT, SITE_CODE)).latest is None:
        await ledger.site_settings.append(
            SettingsVersion(
                tenant=TENANT,
                site_code=SITE_CODE,
                version=1,
                saved_at=now,
                effective_at=now,
                settings=parse_site_settings(SITE_SETTINGS),
                content=SITE_SETTINGS,
            )
        )
        for option_id, content in REDEEM_OPTIONS.items():
            await ledger.redeem_options.create(
                RedeemOption(
                    tenant=TENANT,
                    id=option_id,
                    content=option_content(content),
                    version=1,
                    created_at=now,
                    modified_at=now,
                )
            )


async def _ensure_sample_orders(service: Service, kafka: KafkaSettings) -> None:
    """Orders of the sample customer, published as an order service would, where the customer has no account.

    Returns when they are applied, so that the first look at the balance shows them.
    """
    account = account_of(TENANT, CUSTOMER)
    accounts = service.ledger.accounts
    if await accounts.balance(account, utc_now()) is not None:
        return
    now = utc_now()
    orders = [
        sample_order(f"DEMO-{number}", CUSTOMER, completed=now - timedelta(days=days))
        for number, days in enumerate(SAMPLE_DAYS_AGO, start=1)
    ]
    async with TopicWriter(kafka) as writer:
        await writer.write(
            kafka.topic_order_completed, [(order.key, order.value) for order in orders], headers=TENANT_HEADER
        )
    points = sum(order.points for order in orders)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SAMPLES_TIMEOUT_SECONDS):
            while (await accounts.balance(account, utc_now()) or 0) < points:  # noqa: ASYNC110 - another process's write
                await asyncio.sleep(0.05)


async def _offer_orders(kafka: KafkaSettings, per_second: float) -> None:
    """Sample orders of a hundred customers at a steady rate; what Kafka does not take is noted and left out."""
    run = uuid.uuid4().hex[:8]
    started = time.monotonic()
    offered = 0
    async with TopicWriter(kafka) as writer:
        while True:
            due = min(int((time.monotonic() - started) * per_second) - offered, MOST_OFFERED_AT_ONCE)
            orders = [
                sample_order(f"DEV-{run}-{number}", f"C{number % 100}", completed=utc_now())
                for number in range(offered, offered + due)
            ]
            try:
                await writer.write(
                    kafka.topic_order_completed, [(order.key, order.value) for order in orders], headers=TENANT_HEADER
                )
            except ServerRefused as error:
                _log.warning("sample orders were not published: %s", error)
            offered += due
            await asyncio.sleep(OFFER_TICK_SECONDS)
