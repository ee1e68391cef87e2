"""The FastStream broker of one subscriber."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from faststream.kafka import KafkaBroker

from rewardpoints.events.connection import security, servers
from rewardpoints.events.raw_consumer import RawConsumer
from rewardpoints.settings import KafkaSettings

DRAIN_SECONDS: Final = 20.0
"""How long a stop waits for the batch in flight."""


class RawKafkaBroker(KafkaBroker):
    """A ``KafkaBroker`` whose consumers are ``RawConsumer``; it only consumes, and never creates a topic."""

    def __init__(self, settings: KafkaSettings, *, on_broken: Callable[[Exception], None]) -> None:
        # its start-up warning that a consuming broker creates no topics is no news here
        quiet = logging.getLogger("faststream.rewardpoints")
        quiet.setLevel(logging.ERROR)
        super().__init__(
            servers(settings),
            client_id=settings.client_id,
            request_timeout_ms=settings.request_timeout_ms,
            security=security(settings),
            consumer_only=True,
            allow_auto_create_topics=False,
            graceful_timeout=DRAIN_SECONDS,
            apply_types=False,
            serializer=None,  # FastDepends would make a validating model of the handler
            logger=quiet,
        )
        self._consumer = partial(RawConsumer, empty_fetch_pause_ms=settings.empty_fetch_pause_ms, on_broken=on_broken)

    async def _connect(self) -> Callable[..., Any]:
        # FastStream sets its consumer class here and offers no option for another
        builder = await super()._connect()
        options = builder.keywords if isinstance(builder, partial) else {}
        self.config.broker_config.builder = partial(self._consumer, **options)
        return self.config.broker_config.builder
