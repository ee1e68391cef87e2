"""The one Kafka producer of a process."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.protocol.metadata import MetadataRequest

from rewardpoints.events.connection import client_options
from rewardpoints.events.lost_connections import tell_lost_connections
from rewardpoints.events.records import Message
from rewardpoints.settings import KafkaSettings

logger = structlog.get_logger(__name__)

MAX_BATCH_BYTES: Final = 262_144
CLOSE_TIMEOUT_SECONDS: Final = 5.0
READY_TIMEOUT_SECONDS: Final = 3.0
MOST_LOOKS: Final = 8

TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
"""What a message is refused with for its size."""


class EventProducer:
    """Publishes messages with acknowledgement by all replicas; connects on first use and again after a failure.

    A failed publish may nevertheless have reached the broker: callers publish again, so it is at least once.
    """

    def __init__(self, settings: KafkaSettings, *, ack_timeout_seconds: float = 30.0) -> None:
        self._settings = settings
        self._ack_timeout_seconds = ack_timeout_seconds
        self._producer: Any = None  # aiokafka ships no types
        self._starting = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._looks: set[asyncio.Task[bool]] = set()

    @property
    def max_message_bytes(self) -> int:
        """The largest message that is sent, key and headers included."""
        return self._settings.max_message_bytes

    async def connect(self) -> None:
        """Connect now, where there is no connection yet.

        Raises:
            KafkaError: it could not be made.
        """
        await self._connected()

    async def publish(self, message: Message) -> None:
        """Publish one message and wait for its acknowledgement, together with a connect at most twice the timeout.

        Raises:
            KafkaError: it was not acknowledged.
        """
        (failure,) = await self.publish_all([message])
        if failure is not None:
            raise failure

    async def publish_all(self, messages: Sequence[Message]) -> list[KafkaError | None]:
        """Send all messages, then await their acknowledgements. Answers for each its error, or None when it is through.

        A message that is refused (for its size, say) does not keep the others back: a broker refuses the whole batch
        that the client made of it and its neighbours, so what is refused for size is sent once more, each by itself.

        Raises:
            KafkaError: no connection could be made; nothing was sent.
        """
        producer = await self._connected()
        try:
            outcomes = await self._deliver_all(producer, messages)
        except Exception:  # no Kafka error: nothing says what state the client is in
            self._discard(producer)
            raise
        if any(outcome is not None for outcome in outcomes):
            # An idempotent producer numbers its messages: after a lost one the broker may refuse all that follow.
            self._discard(producer)
        refused = [position for position, outcome in enumerate(outcomes) if isinstance(outcome, TOO_LARGE)]
        if refused:
            alone = await self._deliver_singly([messages[position] for position in refused])
            for position, outcome in zip(refused, alone, strict=True):
                outcomes[position] = outcome
        return outcomes

    async def ready(self) -> bool:
        """Whether a broker of the cluster answers, within a few seconds.

        A look that takes longer is left to its own time-out, which closes the connection that it waits on. Cancelled,
        it would leave a connection in use that has died without a word.
        """
        if len(self._looks) == MOST_LOOKS:
            return False
        look = asyncio.create_task(self._answers())
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)
        await asyncio.wait([look], timeout=READY_TIMEOUT_SECONDS)
        return look.done() and look.result()

    async def _answers(self) -> bool:
        try:
            client = (await self._connected()).client
            # By ``send``: aiokafka's own looks at metadata keep a connection that does not answer
            await client.send(client.get_random_node(), MetadataRequest([]))
        except (KafkaError, TimeoutError, OSError):
            return False
        return True

    async def stop(self) -> None:
        """Send what is buffered, within a few seconds, and disconnect. Idempotent."""
        self._stopped = True
        looks = list(self._looks)
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
        async with self._starting:
            if self._producer is not None:
                self._discard(self._producer)
        await asyncio.gather(*self._closing)

    async def _connected(self) -> Any:
        if self._producer is not None:
            return self._producer
        async with self._starting:
            if self._stopped:
                raise KafkaError("the producer is stopped")
            if self._producer is None:
                self._producer = await self._connect()
            return self._producer

    async def _connect(self, *, singly: bool = False) -> Any:
        producer = AIOKafkaProducer(
            **client_options(self._settings),
            acks="all",
            enable_idempotence=not singly,  # its numbers would let a refused message spoil those in flight behind it
            max_request_size=self._settings.max_message_bytes,
            max_batch_size=1 if singly else MAX_BATCH_BYTES,  # a batch takes its first message whatever the size
        )
        tell_lost_connections(producer.client)
        try:
            async with asyncio.timeout(self._ack_timeout_seconds):
                await producer.start()
        except BaseException as error:
            await _close(producer)
            if isinstance(error, TimeoutError | OSError):
                raise KafkaTimeoutError("no connection to Kafka") from error
            raise
        return producer

    async def _deliver_singly(self, messages: Sequence[Message]) -> list[KafkaError | None]:
        """Deliver over a connection of its own, so that no message of another caller shares a batch either."""
        try:
            producer = await self._connect(singly=True)
        except KafkaError as error:
            return [error] * len(messages)
        try:
            return await self._deliver_all(producer, messages)
        finally:
            await _close(producer)

    async def _deliver_all(self, producer: Any, messages: Sequence[Message]) -> list[KafkaError | None]:
        deliveries = (self._deliver(producer, message) for message in messages)
        outcomes: list[KafkaError | None] = []
        for outcome in await asyncio.gather(*deliveries, return_exceptions=True):  # none is left running behind a raise
            if isinstance(outcome, BaseException) and not isinstance(outcome, KafkaError):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def _deliver(self, producer: Any, message: Message) -> KafkaError | None:
        key = message.key
        if key is None and message.value is None:
            key = b""  # aiokafka refuses a message with neither
        try:
            async with asyncio.timeout(self._ack_timeout_seconds):
                acknowledged = await producer.send(message.topic, message.value, key=key, headers=list(message.headers))
                await acknowledged
        except TimeoutError:
            return KafkaTimeoutError(f"no acknowledgement within {self._ack_timeout_seconds} seconds")
        except KafkaError as error:
            return error
        return None

    def _discard(self, producer: Any) -> None:
        if self._producer is producer:
            self._producer = None
            task = asyncio.create_task(_close(producer))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _close(producer: Any) -> None:
    """Stop an aiokafka producer. Its own ``stop`` waits for ever for a cluster that does not come back."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
            await producer.stop()
    except Exception as error:  # noqa: BLE001 - whatever it is, the producer is given up
        logger.warning("kafka_producer_closed_hard", error=type(error).__name__)
        producer._message_accumulator.fail_all(KafkaTimeoutError("the producer was closed"))  # noqa: SLF001 - no public way
        await producer._sender.close()  # noqa: SLF001 - as above
        await producer.client.close()
