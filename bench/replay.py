"""Replay: a first pass over orders, and the same orders again, with and without comparing them with what is stored."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from bench.context import Bench, Comparison, opened_ledger, utc_now
from bench.measuring import Figures, Outcome, Row, Side, at_least, interleaved
from bench.orders import small
from bench.topics import filled_topic, read_all
from rewardpoints.events.order_batches import OrderBatches
from rewardpoints.ledger.tombstones import TombstoneCache

BATCH = 1_000


async def replay(bench: Bench) -> Outcome:
    """The service's own way from records to lots, in this process; the records are in memory already."""
    sizes, name = bench.sizes, f"bench-replay-{secrets.token_hex(4)}"
    async with bench.servers() as servers:
        async with filled_topic(servers.kafka, name, [small()], sizes.replayed) as topic:
            records = await read_all(servers.kafka, topic, sizes.replayed)
        passes: dict[str, list[float]] = {"first pass": [], "replay": [], "comparing": []}

        async def all_passes(_: int) -> Figures:
            async with bench.stack(servers) as stack, opened_ledger(stack) as ledger:
                settings, tombstones = ledger.settings_reader, TombstoneCache(ledger.tombstones)
                kept = [
                    OrderBatches(ledger.lots, tombstones, settings, clock=utc_now, compare=compare)
                    for compare in (False, False, True)
                ]
                rates = [await _rate(batches, records, added=number == 0) for number, batches in enumerate(kept)]
            return dict(zip(passes, rates, strict=True))

        side: Side = all_passes
        rounds = await interleaved({"passes": side}, rounds=sizes.rounds, say=bench.say)
    first = rounds.values("passes", "first pass")
    note = f"{sizes.replayed} orders of 300 bytes a round, batches of {BATCH}"

    def over_first(name: str) -> list[float]:
        return [again / once for again, once in zip(rounds.values("passes", name), first, strict=True)]

    return Outcome(
        [
            Row(
                key="replay_over_first",
                title="replay of already applied events ÷ first pass, without comparing",
                values=over_first("replay"),
                goal=at_least(1.5),
                note=note,
            ),
            Row(key="comparing_over_first", title="the same with comparing", values=over_first("comparing")),
            Row(key="first_pass_rate", title="first pass", unit="events/s", values=first),
        ]
    )


async def _rate(batches: OrderBatches, records: Sequence[Any], *, added: bool) -> float:
    began, count = time.perf_counter(), 0
    for position in range(0, len(records), BATCH):
        applied = await batches.apply(records[position : position + BATCH])
        count += len(applied.added.added if added else applied.added.already_there)
    if count != len(records):
        raise RuntimeError(f"{count} of {len(records)} events were {'added' if added else 'there already'}")
    return len(records) / (time.perf_counter() - began)


COMPARISONS = (Comparison("replay", "orders applied once, and applied again", replay),)
