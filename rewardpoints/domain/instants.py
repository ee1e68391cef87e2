"""Instants: UTC datetimes in whole milliseconds, the precision the ledger stores."""

from datetime import UTC, date, datetime, tzinfo
from functools import lru_cache

from dateutil.relativedelta import relativedelta

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)
"""Bounds of an accepted instant: inside them no calendar arithmetic of the project can overflow."""


def to_milliseconds(instant: datetime) -> datetime:
    """The same instant in UTC, cut to whole milliseconds, so that it compares equal after a round trip."""
    utc = instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    beyond = utc.microsecond % 1000
    return utc.replace(microsecond=utc.microsecond - beyond) if beyond else utc


def parse_instant(text: str) -> datetime:
    """The instant of an ISO 8601 text; a space instead of the ``T`` is accepted, as order services write it.

    Raises:
        ValueError: not a time, no UTC offset, or outside ``EARLIEST``..``LATEST``.
    """
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("not an ISO 8601 time") from None  # Python's own message repeats the text
    if parsed.tzinfo is None:
        raise ValueError("the time has no UTC offset")
    try:
        instant = to_milliseconds(parsed)
    except OverflowError as error:
        raise ValueError("the time is out of range") from error
    if not EARLIEST <= instant <= LATEST:
        raise ValueError("the time is out of range")
    return instant


def format_instant(instant: datetime) -> str:
    """The public form of an instant, e.g. ``2023-05-11T18:32:18.591+00:00``."""
    utc = instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds")


def format_zulu(instant: datetime) -> str:
    """The form used in option metadata, e.g. ``2023-07-25T13:28:25.960Z``."""
    return format_instant(instant).replace("+00:00", "Z")


def add_months(instant: datetime, months: int, zone: tzinfo) -> datetime:
    """The instant ``months`` calendar months later on the wall clock of ``zone``, in UTC.

    A day the target month lacks becomes its last day (31 Jan + 1 month = 28 or 29 Feb). A wall-clock time that a
    daylight-saving change skips moves forward by the gap; one that occurs twice is its first occurrence.
    """
    if zone is UTC and instant.tzinfo is UTC:  # most sites': no wall clock differs
        day = _calendar_months_later(instant.date(), months)
        return to_milliseconds(instant.replace(year=day.year, month=day.month, day=day.day))
    local = instant.astimezone(zone)
    # A skipped time has the offset of before the gap (PEP 495), so it comes out later by the gap
    later = datetime.combine(_calendar_months_later(local.date(), months), local.time(), zone)
    return to_milliseconds(later.replace(fold=0) if later.fold else later)


@lru_cache(maxsize=4096)
def _calendar_months_later(day: date, months: int) -> date:
    """Kept: a day's orders share it, and it would be most of what an order's validity costs."""
    return day + relativedelta(months=months)
