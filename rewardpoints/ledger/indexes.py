"""Indexes, and what the server checks of every lot, as code.

Every index of an account's documents starts with ``account``, so that the collections can be sharded on it; the
worklists start with what they are searched by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pymongo.errors import CollectionInvalid, OperationFailure

from rewardpoints.ledger.driver import Database, driver_errors

_NAMESPACE_EXISTS: Final = 48
REPLAYS_KEPT_DAYS: Final = 400


@dataclass(frozen=True, slots=True)
class Index:
    """One index: its collection, its fields (ascending), its options, and which query needs it."""

    collection: str
    fields: Sequence[str]
    why: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name on the server."""
        return "_".join(self.fields)


INDEXES: Final = (
    Index(
        "lots",
        ("account", "open", "validUntil", "createdAt", "_id"),
        "balance (equalities, then one range) and the spend order; its first field serves an account's history",
    ),
    Index("redemptions", ("account", "createdAt"), "an account's history, oldest first"),
    Index("redemptions", ("publishAt",), "the relay's worklist: only due requests have the field", {"sparse": True}),
    Index("redemptions", ("state", "createdAt"), "coupon requests unanswered for too long"),
    Index("tombstones", ("erasedAt",), "the worker's look at what was erased since its last"),
    Index("tombstones", ("lookAt",), "erasures to be looked at again: only they have the field", {"sparse": True}),
    Index("redeemOptions", ("tenant", "createdAt"), "a tenant's options, oldest first"),
    Index("siteSettings", ("site", "version"), "all versions of a site"),
    Index(
        "replays",
        ("updatedAt",),
        "replays that moved last; the server removes those that have not moved for long",
        {"expireAfterSeconds": REPLAYS_KEPT_DAYS * 86_400},
    ),
    Index("deadLetterActions", ("topic", "partition", "offset"), "what was done about a range of dead letters"),
)

COLLECTIONS: Final = frozenset({"guards", *(index.collection for index in INDEXES)})

LOT_VALIDATOR: Final[Mapping[str, Any]] = {
    "$expr": {
        "$and": [
            {"$gte": ["$remaining", 0]},
            {"$lte": ["$remaining", "$points"]},
            {"$eq": ["$open", {"$gt": ["$remaining", 0]}]},
        ]
    }
}
"""Refused by the server whatever the client: 0 <= remaining <= points, and open while points remain."""


async def ensure_indexes(database: Database) -> Sequence[str]:
    """Create what is missing of the collections, indexes and validators; returns the indexes as ``collection.name``.

    Idempotent, and safe while the service runs: MongoDB builds indexes without blocking writes.

    Raises:
        LedgerUnavailable: call it again.
    """
    with driver_errors(writing=True):
        existing = set(await database.raw.list_collection_names())
        for name in sorted(COLLECTIONS - existing):
            await _create_collection(database, name)
        await database.raw.command("collMod", "lots", validator=LOT_VALIDATOR)
        for index in INDEXES:
            keys = [(name, 1) for name in index.fields]
            await database.raw[index.collection].create_index(keys, name=index.name, **index.options)
    return [f"{index.collection}.{index.name}" for index in INDEXES]


async def _create_collection(database: Database, name: str) -> None:
    try:
        await database.raw.create_collection(name)
    except CollectionInvalid:
        return  # another process made it meanwhile
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise
