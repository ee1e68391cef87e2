"""How long tests with two forms run: short among all, long by ``make faults-races`` and ``make operators``."""

import os

PREFIX = "REWARDPOINTS_TEST_"


def how_many(what: str, short: int) -> int:
    """``REWARDPOINTS_TEST_<what>``, or the short form's number."""
    return int(os.environ.get(PREFIX + what) or short)
