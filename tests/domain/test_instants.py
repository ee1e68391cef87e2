from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from dateutil import tz
from dateutil.relativedelta import relativedelta
from hypothesis import given
from hypothesis import strategies as st

from rewardpoints.domain.instants import add_months, format_instant, format_zulu, parse_instant, to_milliseconds

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]  # the parts are a date's and a time's


@pytest.mark.parametrize(
    ("start", "months", "zone", "end"),
    [
        # a day the target month lacks becomes its last
        (utc(2024, 2, 29, 8), 12, UTC, utc(2025, 2, 28, 8)),
        (utc(2024, 2, 29, 8), 48, UTC, utc(2028, 2, 29, 8)),
        (utc(2025, 1, 31, 8), 1, UTC, utc(2025, 2, 28, 8)),
        (utc(2024, 1, 31, 8), 1, UTC, utc(2024, 2, 29, 8)),
        (utc(2025, 5, 31), 1, UTC, utc(2025, 6, 30)),
        (utc(2023, 5, 11, 18, 32, 38), 36, UTC, utc(2026, 5, 11, 18, 32, 38)),
        # the wall clock of the site stays: noon in winter is 11:00Z, noon in summer 10:00Z
        (utc(2025, 1, 15, 11), 6, BERLIN, utc(2025, 7, 15, 10)),
        (utc(2025, 7, 15, 10), 6, BERLIN, utc(2026, 1, 15, 11)),
        # 02:30 on 30 March 2025 does not exist in Berlin: an hour later it does
        (utc(2025, 2, 28, 1, 30), 1, BERLIN, utc(2025, 3, 28, 1, 30)),
        (utc(2025, 1, 30, 1, 30), 2, BERLIN, utc(2025, 3, 30, 1, 30)),
        # 02:30 on 26 October 2025 occurs twice: the first counts
        (utc(2025, 9, 26, 0, 30), 1, BERLIN, utc(2025, 10, 26, 0, 30)),
        # the day is the site's, not UTC's: 31 Jan 23:30 in New York is 1 Feb in UTC
        (utc(2025, 2, 1, 4, 30), 1, NEW_YORK, utc(2025, 3, 1, 4, 30)),
    ],
)
def test_months_are_calendar_months_on_the_sites_wall_clock(
    start: datetime, months: int, zone: ZoneInfo, end: datetime
) -> None:
    assert add_months(start, months, zone) == end


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2025-06-10 12:31:39.614000+00:00", utc(2025, 6, 10, 12, 31, 39, 614_000)),
        ("2025-06-10 12:31:39.614+00:00", utc(2025, 6, 10, 12, 31, 39, 614_000)),
        ("2025-01-30T13:45:34.406Z", utc(2025, 1, 30, 13, 45, 34, 406_000)),
        ("2025-01-30T14:45:34.406999+01:00", utc(2025, 1, 30, 13, 45, 34, 406_000)),
        ("2019-08-24T14:15:22Z", utc(2019, 8, 24, 14, 15, 22)),
    ],
)
def test_times_are_read_as_order_services_write_them(text: str, instant: datetime) -> None:
    assert parse_instant(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2025-06-10T12:31:39",
        "2025-13-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59Z",
    ],
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_instant(text)


def test_public_forms() -> None:
    instant = utc(2023, 5, 11, 18, 32, 18, 591_000)
    assert format_instant(instant) == "2023-05-11T18:32:18.591+00:00"
    assert format_zulu(instant) == "2023-05-11T18:32:18.591Z"


@given(st.datetimes(datetime(1971, 1, 1), datetime(8000, 1, 1), timezones=st.timezones()))  # noqa: DTZ001 - Hypothesis wants naive bounds
def test_the_public_form_reads_back_to_the_millisecond(instant: datetime) -> None:
    cut = to_milliseconds(instant)
    assert parse_instant(format_instant(instant)) == cut
    assert timedelta(0) <= instant - cut < timedelta(milliseconds=1)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)), st.integers(1, 600))  # noqa: DTZ001 - same
def test_more_months_never_end_earlier(start: datetime, months: int) -> None:
    assert start < add_months(start, months, BERLIN) <= add_months(start, months + 1, BERLIN)


def by_dateutil(instant: datetime, months: int, zone: tzinfo) -> datetime:
    """The same by the library alone, at several times the price."""
    later = instant.astimezone(zone) + relativedelta(months=months)
    return to_milliseconds(tz.resolve_imaginary(later.replace(fold=0)))


ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Africa/Cairo",
)


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    st.integers(1, 1200),
    st.sampled_from([UTC, *map(ZoneInfo, ZONES)]),
)
def test_months_are_added_as_dateutil_adds_them(instant: datetime, months: int, zone: tzinfo) -> None:
    assert add_months(instant, months, zone) == by_dateutil(instant, months, zone)


@pytest.mark.parametrize("zone", [ZoneInfo(name) for name in ZONES], ids=str)
def test_months_that_end_about_a_change_of_the_clocks(zone: ZoneInfo) -> None:
    quarters = timedelta(minutes=15)
    for begin in (utc(2024, 2, 20), utc(2024, 9, 20)):  # a month later clocks change somewhere, and some days after
        for quarter in range(45 * 24 * 4):
            instant = begin + quarter * quarters
            assert add_months(instant, 1, zone) == by_dateutil(instant, 1, zone)
