"""Bad records: 10,000 malformed records of many kinds among 100,000 good orders, against 100,000 good ones alone.

Every bad one has to be explained in the dead-letter topic, with its source and the reason of its kind; no good one may
be held up or lost. Rounds with and without bad records take turns, so that both see the same machine.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from rewardpoints.events.dead_letters import ERROR, PREFIX, REASON
from tests.e2e.stack import Stack, an_order
from tests.faults.environment import Outcome, Say, running_environment
from tests.faults.load import CHUNK, Orders, publish_surely
from tests.faults.model import compare_orders, tell, verify
from tests.faults.pace import Pace, pace

STALL_SECONDS = 30.0
"""No commit for so long while records wait is a stall."""

_POLL_MS = 500
_MARK = "bad-"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecordsOptions:
    """``good`` orders with ``bad`` records among them, and as many good ones alone, each in ``rounds`` parts."""

    good: int = 100_000
    bad: int = 10_000
    rounds: int = 5
    customers: int = 5000
    verify: bool = True
    seed: int = 1


def _changed(**changes: Any) -> Callable[[int], bytes]:
    def value(number: int) -> bytes:
        return json.dumps({**an_order(f"{_MARK}{number}", "c1"), "note": f"{_MARK}{number}", **changes}).encode()

    return value


KINDS: dict[str, tuple[Callable[[int], bytes], str]] = {
    "no JSON": (lambda number: f'{{not json {_MARK}{number}"'.encode(), "malformed"),
    "no UTF-8": (lambda number: b'{"id": "\xff\xfe", "note": "%s%d"}' % (_MARK.encode(), number), "malformed"),
    "cut off": (lambda number: _changed()(number)[:-20], "malformed"),
    "a list": (lambda number: b'["%s%d"]' % (_MARK.encode(), number), "invalid_field"),
    "no id": (_changed(id=None), "invalid_id"),
    "no status": (_changed(status=None), "invalid_field"),
    "negative sum": (_changed(totalPrice=-1), "invalid_amount"),
    "sum in words": (_changed(totalPrice="ten"), "invalid_amount"),
    "no sum": (_changed(totalPrice=None), "invalid_amount"),
    "too many points": (_changed(totalPrice=2_000_000_000), "too_many_points"),
    "time in words": (_changed(completed="yesterday"), "invalid_time"),
    "from the future": (_changed(completed=(datetime.now(UTC) + timedelta(days=3)).isoformat()), "future_time"),
    "tenant reserved": (_changed(tenant="public"), "invalid_tenant"),
}
"""Each kind: how record ``number`` is made, and the reason it has to be explained with."""


async def bad_records(options: BadRecordsOptions, folder: Path, say: Say) -> Outcome:
    """Run it; the figures and every violation."""
    outcome, chance = Outcome(), random.Random(options.seed)
    orders, published = Orders(options.customers), 0
    kinds = [chance.choice(sorted(KINDS)) for _ in range(options.bad)]
    alone: list[Pace] = []
    among: list[Pace] = []
    async with running_environment(folder) as environment:
        stack = environment.stack
        worker = await (await stack.worker("w1")).ready()
        for part in range(options.rounds):
            for paces, bad in ((alone, 0), (among, options.bad)):
                numbers = range(options.good * part // options.rounds, options.good * (part + 1) // options.rounds)
                values = [orders.value(published + position) for position in range(len(numbers))]
                published += len(values)
                first, last = bad * part // options.rounds, bad * (part + 1) // options.rounds
                values += [KINDS[kinds[number]][0](number) for number in range(first, last)]
                chance.shuffle(values)
                paces.append(await pace(stack, worker, _publish(stack, values)))
                say(f"round {part + 1}, {last - first} bad: {len(numbers) / paces[-1].seconds:.0f} good orders/s")
        stalls = sum(one.longest_wait > STALL_SECONDS for one in (*alone, *among))
        seconds_alone, seconds_among = (sum(one.seconds for one in paces) for paces in (alone, among))
        outcome.figures |= {
            "good orders alone, orders/s": round(options.good / seconds_alone, 1),
            "good orders among bad records, orders/s": round(options.good / seconds_among, 1),
            "ratio": round(seconds_alone / seconds_among, 3),
            "ratio by round": [round(a.seconds / b.seconds, 2) for a, b in zip(alone, among, strict=True)],
            "longest time without progress, seconds": round(max(one.longest_wait for one in (*alone, *among)), 1),
            "stalls": stalls,
        }
        tell(outcome, "stalls", [str(stalls)] if stalls else [])
        await compare_orders(stack, orders, published, outcome)
        await _explained(stack, kinds, outcome)
        if options.verify:
            await verify(stack, outcome)
        if status := await worker.stop():
            tell(outcome, "exit status at SIGTERM", [str(status)])
    return outcome


async def _publish(stack: Stack, values: Sequence[bytes]) -> None:
    for start in range(0, len(values), CHUNK):
        await publish_surely(stack, values[start : start + CHUNK])


async def _explained(stack: Stack, kinds: Sequence[str], outcome: Outcome) -> None:
    """Each bad record is in the dead-letter topic, as it was, once for its source, with the reason of its kind."""
    times, problems, reasons = Counter[int](), [], Counter[str]()
    sources: set[tuple[bytes, bytes]] = set()
    async for record in _records(stack, stack.kafka.topic_dead_letter):
        headers = dict(record.headers)
        reason, error = headers[REASON].decode(), headers[ERROR].decode()
        reasons[reason] += 1
        number = _number(record.value)
        if number is None or number >= len(kinds):
            problems.append(f"{record.value[:100]!r} is none of those published: {reason}: {error}")
            continue
        times[number] += 1
        sources.add((headers[f"{PREFIX}source-partition"], headers[f"{PREFIX}source-offset"]))
        value, expected = KINDS[kinds[number]]
        if reason != expected or len(error) < 10:
            problems.append(f"{kinds[number]}: {reason} ({error}), not {expected}")
        if kinds[number] == "no UTF-8" and record.value != value(number):
            problems.append(f"{kinds[number]}: {record.value[:100]!r} is not what was published")
    missing = [f"{number}, {kind}" for number, kind in enumerate(kinds) if times[number] == 0]
    outcome.figures |= {
        "bad records": len(kinds),
        "explained in the dead-letter topic": len(kinds) - len(missing),
        "dead letters": times.total(),
        "sources named": len(sources),
        "reasons": dict(sorted(reasons.items())),
    }
    tell(outcome, "not explained", missing)
    tell(outcome, "dead letter", problems)


def _number(value: bytes) -> int | None:
    """The number a bad record carries in its text."""
    _, _, rest = value.rpartition(_MARK.encode())
    digits = bytes(rest).split(b'"')[0].split(b",")[0]
    return int(digits) if digits.isdigit() else None


async def _records(stack: Stack, topic: str) -> Any:
    """Every record of a topic, as it is."""
    partitions = [TopicPartition(topic, number) for number in range(stack.kafka.topic_partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=stack.kafka.bootstrap_servers) as consumer:
        ends = await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                for record in records:
                    yield record
