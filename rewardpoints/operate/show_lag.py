"""The service's state as tables and as JSON."""

from datetime import datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.lag import MOST_COUNTED, PartitionLag, State, SubscriptionLag


def state_tables(state: State) -> RenderableType:
    """For a person: every partition, then the groups' members, rejects and coupons."""
    title = f"Lag at {format_instant(state.lag.at)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("topic")
    for column in ("partition", "lag", "oldest", "written/s", "read/s", "position", "end"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("read by")
    for subscription in state.lag.subscriptions:
        for partition in subscription.partitions:
            table.add_row(escape(subscription.topic), *_cells(partition))
    lines = [_line(subscription) for subscription in state.lag.subscriptions]
    return Group(table, *lines, _rejected(state), *_coupons(state))


def _cells(lag: PartitionLag) -> list[str]:
    return [
        str(lag.partition),
        f"{lag.records:,}",
        "" if not lag.records else _age(lag.seconds),
        _rate(lag.written_per_second),
        _rate(lag.read_per_second),
        f"{lag.position:,}",
        f"{lag.end:,}",
        f"{escape(lag.member.client_id)} {lag.member.host}" if lag.member else "nobody",
    ]


def _line(subscription: SubscriptionLag) -> str:
    members = len(subscription.members)
    behind = f"{subscription.records:,} records behind" if subscription.records else "nothing waits"
    oldest = f", the oldest for {_age(subscription.seconds)}" if subscription.records else ""
    return (
        f"{escape(subscription.name)}: group {escape(subscription.group)} is {subscription.state} "
        f"with {members} member{'s' * (members != 1)}; {behind}{oldest}"
    )


def _rejected(state: State) -> str:
    lag = state.lag
    share = "" if lag.rejected_share is None else f" ({lag.rejected_share:.2%})"
    return f"Last hour: {lag.written:,} records came in, {lag.dead_letters:,} became dead letters{share}"


def _coupons(state: State) -> list[str]:
    coupons, at = state.coupons, state.lag.at
    overdue = f"{_count(coupons.overdue)}{_oldest(coupons.oldest_overdue, at)}"
    issued, charged_back = _count(coupons.issued), _count(coupons.charged_back)
    return [
        f"Coupon requests not yet published: {_count(coupons.unpublished)}{_oldest(coupons.oldest_unpublished, at)}",
        f"Redemptions waiting for an answer: {_count(coupons.waiting)}{_oldest(coupons.oldest_waiting, at)}",
        f"Redemptions waiting for too long: {overdue}",
        f"Of the redemptions of the last day: {issued} issued, {charged_back} charged back",
    ]


def _count(number: int) -> str:
    return f"{number:,}{' or more' if number >= MOST_COUNTED else ''}"


def _oldest(instant: datetime | None, at: datetime) -> str:
    return "" if instant is None else f", the oldest for {_age(max((at - instant).total_seconds(), 0))}"


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:,.1f}"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    if seconds < 7200:  # noqa: PLR2004 - two hours
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def state_json(state: State) -> dict[str, Any]:
    """Everything as JSON values."""
    lag, coupons = state.lag, state.coupons
    return {
        "at": format_instant(lag.at),
        "subscriptions": [
            {
                "name": subscription.name,
                "topic": subscription.topic,
                "group": subscription.group,
                "state": subscription.state,
                "members": [
                    {"id": one.id, "clientId": one.client_id, "host": one.host, "partitions": list(one.partitions)}
                    for one in subscription.members
                ],
                "lagRecords": subscription.records,
                "lagSeconds": _rounded(subscription.seconds),
                "partitions": [
                    {
                        "partition": one.partition,
                        "position": one.position,
                        "end": one.end,
                        "lagRecords": one.records,
                        "lagSeconds": _rounded(one.seconds),
                        "writtenPerSecond": _rounded(one.written_per_second),
                        "readPerSecond": _rounded(one.read_per_second),
                    }
                    for one in subscription.partitions
                ],
            }
            for subscription in lag.subscriptions
        ],
        "lastHour": {
            "written": lag.written,
            "deadLetters": lag.dead_letters,
            "rejectedShare": None if lag.rejected_share is None else round(lag.rejected_share, 6),
        },
        "coupons": {
            "unpublished": coupons.unpublished,
            "oldestUnpublishedSeconds": _seconds(coupons.oldest_unpublished, lag.at),
            "waiting": coupons.waiting,
            "oldestWaitingSeconds": _seconds(coupons.oldest_waiting, lag.at),
            "overdue": coupons.overdue,
            "oldestOverdueSeconds": _seconds(coupons.oldest_overdue, lag.at),
            "lastDay": {"issued": coupons.issued, "chargedBack": coupons.charged_back},
        },
    }


def _seconds(instant: datetime | None, at: datetime) -> float | None:
    return None if instant is None else _rounded(max((at - instant).total_seconds(), 0))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
