"""What a load needs, computed from measured costs. Pure: figures in, machines out; every guess is named."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

SECONDS_A_DAY: Final = 86_400
GIGABYTE: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the bench found, by the keys of its rows."""

    worker_cpu_us: float
    """Worker CPU per event, 300-byte orders (``worker_cpu``)."""

    worker_cpu_real_us: float
    """The same for the two real orders (``worker_cpu_real``)."""

    inserts_per_second: float
    """Lots a second one server took (``raw_rate``)."""

    lot_bytes: float
    """A lot as BSON (``lot_bytes``)."""

    index_bytes: float
    """What a lot takes in all indexes, as the server says, else from its keys (``index_bytes_*``)."""

    balance_cpu_us: float
    """API CPU per balance GET (``balance_cpu``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What was not measured here. Change these before anything is bought."""

    busy_share: float = 0.6
    """How much of a core or a server may be in use at the planned peak."""

    replicas: int = 3
    """Members of each shard's replica set, each with all of its data."""

    compression: float = 0.5
    """Documents on disk over their BSON: WiredTiger with snappy on lots of this shape; measure it on real data."""

    shard_inserts_per_second: float = 20_000
    """Lots a second one MongoDB primary takes for good, at majority, with these two indexes. Not measured here."""

    shard_gigabytes: float = 2_000
    """Data and indexes one shard should hold, so that it can be restored in hours."""

    hot_share: float = 0.1
    """Share of the indexes and documents that must be in memory: open lots, recent accounts."""

    partition_events_per_second: float = 5_000
    """What one partition should carry, so that a single worker catches up after a pause."""

    orders_a_lot: float = 1.0
    """Lots each order leaves: orders that earn nothing make this smaller."""

    balance_reads_an_order: float = 10.0
    """Balance GETs that come with each order: storefronts show balances more often than they sell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a load needs."""

    orders_per_second: float
    lots: float
    partitions: int
    worker_cores: float
    workers: int
    api_cores: float
    shards_for_writes: int
    shards_for_storage: int
    lots_a_day: float
    data_gigabytes: float
    index_gigabytes: float
    disk_gigabytes: float
    """Data and indexes on all members of all shards."""

    memory_gigabytes_a_shard: float

    @property
    def shards(self) -> int:
        """As many as both writes and storage need."""
        return max(self.shards_for_writes, self.shards_for_storage)


def needs(orders_per_second: float, lots: float, measured: Measured, assumptions: Assumptions | None = None) -> Needs:
    """What so many orders a second at the peak and so many lots in the ledger need. Workers are one core each."""
    given = assumptions or Assumptions()
    worker_cores = orders_per_second * measured.worker_cpu_us / 1e6 / given.busy_share
    workers = max(1, math.ceil(worker_cores))
    inserted = orders_per_second * given.orders_a_lot
    data = lots * measured.lot_bytes * given.compression / GIGABYTE
    indexes = lots * measured.index_bytes / GIGABYTE
    for_writes = max(1, math.ceil(inserted / (given.shard_inserts_per_second * given.busy_share)))
    for_storage = max(1, math.ceil((data + indexes) / given.shard_gigabytes))
    shards = max(for_writes, for_storage)
    return Needs(
        orders_per_second=orders_per_second,
        lots=lots,
        partitions=max(workers, math.ceil(orders_per_second / given.partition_events_per_second)),
        worker_cores=worker_cores,
        workers=workers,
        api_cores=orders_per_second * given.balance_reads_an_order * measured.balance_cpu_us / 1e6 / given.busy_share,
        shards_for_writes=for_writes,
        shards_for_storage=for_storage,
        lots_a_day=inserted * SECONDS_A_DAY,
        data_gigabytes=data,
        index_gigabytes=indexes,
        disk_gigabytes=(data + indexes) * given.replicas,
        memory_gigabytes_a_shard=(data + indexes) * given.hot_share / shards,
    )


LOADS: Final = ((1_000, 10_000_000), (100_000, 1_000_000_000), (1_000_000, 1_000_000_000))
"""The loads the page shows: orders a second, lots."""

_ACCOUNT_BYTES, _ID_BYTES, _ENTRY_BYTES, _TIMES_BYTES = 24, 64, 12, 20


def index_bytes_from_keys() -> float:
    """What a lot takes in both indexes where no server says: its keys, written out.

    The ``_id`` index holds the id; the other one account, open, two instants and the id again.
    """
    by_id = _ID_BYTES + _ENTRY_BYTES
    by_account = _ACCOUNT_BYTES + 2 + _TIMES_BYTES + _ID_BYTES + _ENTRY_BYTES
    return float(by_id + by_account)


def measured_from(medians: Mapping[str, float]) -> Measured | None:
    """The inputs out of rows' medians by key; None while one that cannot be done without was not measured."""
    wanted = ("worker_cpu", "worker_cpu_real", "raw_rate", "lot_bytes", "balance_cpu")
    if any(key not in medians for key in wanted):
        return None
    told = [value for key, value in medians.items() if key.startswith("index_bytes_")]
    return Measured(
        worker_cpu_us=medians["worker_cpu"],
        worker_cpu_real_us=medians["worker_cpu_real"],
        inserts_per_second=medians["raw_rate"],
        lot_bytes=medians["lot_bytes"],
        index_bytes=sum(told) or index_bytes_from_keys(),
        balance_cpu_us=medians["balance_cpu"],
    )
