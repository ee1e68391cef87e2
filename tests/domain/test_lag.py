from datetime import timedelta

from rewardpoints.domain.lag import KafkaLook, Member, PartitionLook, SubscriptionLook, lag_of
from tests.domain.builders import NOON

MEMBER = Member(id="m1", client_id="worker", host="/10.0.0.1", partitions=(0, 2))


def a_partition(
    number: int, *, first: int = 0, end: int = 100, committed: int | None = 100, age: int | None = None
) -> PartitionLook:
    at = None if age is None else NOON - timedelta(seconds=age)
    return PartitionLook(partition=number, first=first, end=end, committed=committed, next_record_at=at)


def a_look(*partitions: PartitionLook, seconds: int = 0, written: int = 0, dead_letters: int = 0) -> KafkaLook:
    orders = SubscriptionLook(
        name="orders", topic="t", group="g", state="Stable", members=(MEMBER,), partitions=partitions, written=written
    )
    return KafkaLook(at=NOON + timedelta(seconds=seconds), subscriptions=(orders,), dead_letters=dead_letters)


def test_a_partition_that_is_read_to_its_end_has_no_lag() -> None:
    (orders,) = lag_of(a_look(a_partition(0), a_partition(1, first=7, end=7, committed=None))).subscriptions
    assert [(one.records, one.seconds) for one in orders.partitions] == [(0, 0.0), (0, 0.0)]
    assert (orders.records, orders.seconds) == (0, 0.0)
    assert [one.member for one in orders.partitions] == [MEMBER, None]


def test_what_waits_and_for_how_long() -> None:
    look = a_look(
        a_partition(0, committed=90, age=30),
        a_partition(1, first=20, committed=5, age=100),  # its records before 20 have been deleted
        a_partition(2, first=20, committed=None, age=90),
        a_partition(3, committed=101),  # a topic made anew is shorter than what was committed
        a_partition(4, committed=99, age=-5),  # a producer's clock ahead of ours
    )
    (orders,) = lag_of(look).subscriptions
    assert [(one.records, one.seconds) for one in orders.partitions] == [(10, 30), (80, 100), (80, 90), (0, 0), (1, 0)]
    assert (orders.records, orders.seconds) == (171, 100)


def test_an_age_that_cannot_be_told_is_not_zero() -> None:
    (orders,) = lag_of(a_look(a_partition(0, committed=90), a_partition(1))).subscriptions
    assert [one.seconds for one in orders.partitions] == [None, 0.0]
    assert orders.seconds is None


def test_rates_are_of_the_time_between_two_looks() -> None:
    earlier = a_look(a_partition(0, end=100, committed=40), a_partition(1, end=50, committed=50))
    later = a_look(
        a_partition(0, end=120, committed=100), a_partition(1, end=3, committed=None), a_partition(2), seconds=4
    )
    (orders,) = lag_of(later, earlier).subscriptions
    rates = [(one.written_per_second, one.read_per_second) for one in orders.partitions]
    assert rates == [(5, 15), (0, 0), (None, None)]
    (alone,) = lag_of(later).subscriptions
    assert alone.partitions[0].read_per_second is None
    (same_instant,) = lag_of(earlier, earlier).subscriptions
    assert same_instant.partitions[0].read_per_second is None


def test_the_share_of_the_last_hour_that_was_rejected() -> None:
    assert lag_of(a_look(written=200, dead_letters=5)).rejected_share == 0.025
    assert lag_of(a_look(written=0, dead_letters=5)).rejected_share is None
