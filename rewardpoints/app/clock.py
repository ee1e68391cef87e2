"""The clock of every process."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The present instant."""
    return datetime.now(UTC)
