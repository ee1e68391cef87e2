"""Coupon requests of a topic against an account's redemptions: what must be there, and what may be missing."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from rewardpoints.domain.accounts import Account, account_of
from rewardpoints.domain.invariants import AccountUnderTest
from rewardpoints.domain.lots import plan_draws
from rewardpoints.domain.redemptions import Redemption, redemption_from
from rewardpoints.events.messages import encode_coupon_request
from rewardpoints.events.records import Headers
from rewardpoints.operate import published
from rewardpoints.operate.published import PublishedRequests
from tests.contracts.ledgers import ACCOUNT, an_intent, now, order_lot

LONG_AGO = now() - timedelta(days=1)


@dataclass
class Record:
    value: bytes | None
    topic: str = "requests"
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
    key: bytes | None = None
    headers: Headers = ()


@pytest.fixture
def requests() -> Iterator[PublishedRequests]:
    with PublishedRequests(now) as opened:
        yield opened


def a_redemption(account: Account = ACCOUNT, **changes: Any) -> Redemption:
    lot = order_lot("o1", 100, account=account)
    redemption = redemption_from(an_intent(3, coupon=True, account=account), plan_draws([lot], 3, now()), LONG_AGO)
    return replace(redemption, publish_at=None, **changes)


def a_record(redemption: Redemption) -> Record:
    return Record(encode_coupon_request(redemption, "requests").value)


def problems(
    requests: PublishedRequests, *redemptions: Redemption, erased_at: Any = None, **document: Any
) -> list[str]:
    case = AccountUnderTest(ACCOUNT, [], redemptions, now(), erased_at)
    found = requests.judge(case, [document or {"publishedAt": LONG_AGO} for _ in redemptions])
    return [violation.problem.partition(": ")[2] for violation in found]


def test_one_that_is_in_the_topic_however_often_is_right(requests: PublishedRequests) -> None:
    redemption = a_redemption()
    requests.put([a_record(redemption)] * 3)
    assert problems(requests, redemption, marked="no") == []
    assert (requests.records, requests.unreadable) == (3, 0)


def test_one_that_is_not_in_the_topic(requests: PublishedRequests) -> None:
    redemption = a_redemption()
    missing = "says its coupon request was published, but it is not in the topic"
    assert problems(requests, redemption) == [missing]
    assert problems(requests, redemption, issuedAt=LONG_AGO) == [missing]
    assert problems(requests, redemption, marked="no") == ["its coupon request was never published and is not due"]
    assert problems(requests, replace(redemption, publish_at=now()), marked="no") == []
    assert problems(requests, redemption, publishedAt=now()) == [], "perhaps published after the topic was read"
    assert problems(requests, replace(redemption, coupon=None)) == []
    requests.complete_since = LONG_AGO + timedelta(seconds=1)
    assert problems(requests, redemption) == [], "perhaps deleted by retention"
    requests.complete_since = LONG_AGO - timedelta(seconds=1)
    assert problems(requests, redemption) == [missing]


def test_another_code_than_the_redemptions(requests: PublishedRequests) -> None:
    redemption = a_redemption()
    assert redemption.coupon is not None
    other = replace(redemption, coupon=replace(redemption.coupon, code="OTHER"))
    for records in ([other], [redemption, other], [other, redemption, redemption]):
        requests.put(a_record(one) for one in records)
        (problem,) = problems(requests, redemption)
        assert "with another code than" in problem


def test_a_request_without_its_redemption_unless_the_customer_was_erased(requests: PublishedRequests) -> None:
    redemption = a_redemption()
    requests.put([a_record(redemption)])
    (problem,) = problems(requests)
    assert "the ledger does not have it" in problem
    requests.put([a_record(redemption)])
    assert problems(requests, erased_at=LONG_AGO) == []
    requests.put([a_record(redemption)])
    assert len(problems(requests, erased_at=LONG_AGO - timedelta(seconds=1))) == 1


def test_what_nobody_took_comes_in_order_and_in_pages(
    requests: PublishedRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "ROWS_PER_READ", 2)
    accounts = [account_of("shop", f"c{number}") for number in range(5)]
    redemptions = [a_redemption(account) for account in accounts for _ in range(2)]
    requests.put(a_record(one) for one in redemptions)
    requests.take(accounts[2])
    rest = list(requests.rest((accounts[1], accounts[4])))
    expected = sorted((one.account, one.id) for one in redemptions if one.account in {accounts[1], accounts[3]})
    assert [(one.account, one.id) for one in rest] == expected


def test_what_is_no_request_is_counted_and_nothing_stays_on_the_disk() -> None:
    with PublishedRequests(now) as requests:
        requests.put([Record(None), Record(b"{}"), Record(b"\xff"), Record(b'{"id": 3}')])
        assert (requests.records, requests.unreadable) == (4, 4)
        folder = requests.folder
        assert list(folder.iterdir())
    assert not folder.exists()
