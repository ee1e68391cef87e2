"""How long the races of this folder run: short among all tests, long by ``make faults-races``."""

import os

PREFIX = "REWARDPOINTS_TEST_"


def how_many(what: str, short: int) -> int:
    """``REWARDPOINTS_TEST_<what>``, or the short form's number."""
    return int(os.environ.get(PREFIX + what) or short)
