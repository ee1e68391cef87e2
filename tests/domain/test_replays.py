"""What a replay's request and scope mean."""

from datetime import UTC, datetime

import pytest

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.replays import PartitionProgress, Replay, ReplayScope, account_digest, parse_bound

AT = datetime(2025, 6, 10, 12, 31, 39, 614_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("beginning", "beginning"),
        (" end ", "end"),
        ("0", 0),
        ("1042", 1042),
        ("2025-06-10", datetime(2025, 6, 10, tzinfo=UTC)),
        ("2025-06-10T12:31:39.614Z", AT),
        ("2025-06-10 14:31:39.614+02:00", AT),
    ],
)
def test_a_bound_is_an_end_an_offset_or_a_time(text: str, bound: object) -> None:
    assert parse_bound("from", text) == bound


@pytest.mark.parametrize("text", ["", "yesterday", "-1", "1.5", "2025-06-10T12:31:39", "2025-13-01", "²", "9" * 19])
def test_what_is_no_bound_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_bound("from", text)
    assert refusal.value.field == "from"


def test_a_scope_selects_by_tenant_and_customer() -> None:
    one = ReplayScope(topic="t", tenant="shop", account=account_digest(account_of("shop", "c1")))
    assert one.selects("shop", "c1")
    assert not any(
        one.selects(*other) for other in [("shop", "c2"), ("rival", "c1"), ("shop", None), (None, "c1"), (None, None)]
    )
    assert ReplayScope(topic="t", tenant="shop").selects("shop", None)
    assert not ReplayScope(topic="t").selects_accounts


def test_what_is_done_is_counted_over_all_partitions() -> None:
    replay = Replay(
        id="r",
        scope=ReplayScope(topic="t"),
        partitions=(
            PartitionProgress(partition=0, first=10, end=20, position=15),
            PartitionProgress(partition=2, first=0, end=7, position=7),
        ),
        started_at=AT,
        updated_at=AT,
    )
    assert (replay.total, replay.done) == (17, 12)
