"""The clock of every process."""

from datetime import UTC, datetime

from rewardpoints.domain.instants import to_milliseconds


def utc_now() -> datetime:
    """The present instant, as precise as what the ledger stores: what is compared now compares the same later."""
    return to_milliseconds(datetime.now(UTC))
