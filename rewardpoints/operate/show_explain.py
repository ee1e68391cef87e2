"""An explained account as tables and as JSON."""

from typing import Any, Final

from rich import box
from rich.markup import escape
from rich.table import Table

from rewardpoints.domain.accounts import customer_of, tenant_of
from rewardpoints.domain.explanation import ExplainedLot, Explanation, LotState, Moment, MomentKind
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.lots import Lot
from rewardpoints.domain.reasons import ExplainedAccount, why
from rewardpoints.domain.redemptions import Redemption
from rewardpoints.operate.terminal import out, print_json, print_line, when

MOST_ROWS: Final = 60
"""Rows of a table for a person; JSON has everything."""

ID_SHOWN: Final = 12


def print_explanation(explained: ExplainedAccount, *, as_json: bool) -> None:
    """Print it, as JSON or as text: the balance, when it expires, the lots and the timeline."""
    if as_json:
        print_json(explanation_json(explained))
        return
    told = explained.explanation
    customer, tenant = customer_of(told.account), tenant_of(told.account)
    print_line(f"{customer} of {tenant} has {told.balance} points at {format_instant(told.at)}.")
    stored = explained.stored_balance
    if stored is not None and stored != told.balance:
        print_line(f"The API answers {stored}, which its entries do not give: see `rewardpoints verify`.")
    console = out()
    if told.expiries:
        console.print(_expiries(told))
    console.print(_lots(told))
    console.print(_reasons(explained))
    console.print(_timeline(told))


def _table(title: str, *columns: str, numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column in numbers
        table.add_column(column, justify="right" if right else "left", no_wrap=right or "UTC" in column)
    return table


def _expiries(told: Explanation) -> Table:
    table = _table(
        "When they expire, unless spent before", "expires (UTC)", "points", "balance then", "lots",
        numbers=("points", "balance then"),
    )  # fmt: skip
    for expiry in told.expiries[:MOST_ROWS]:
        lots = ", ".join(_short(lot.id) for lot in expiry.lots[:MOST_ROWS])
        table.add_row(when(expiry.at), str(expiry.points), str(expiry.balance_after), lots)
    _note_rest(table, len(told.expiries) - MOST_ROWS)
    return table


def _lots(told: Explanation) -> Table:
    table = _table(
        "What they come from, in the order it is spent",
        "lot", "points", "used", "expired", "left", "expires (UTC)",
        numbers=("points", "used", "expired", "left"),
    )  # fmt: skip
    for one in told.lots[:MOST_ROWS]:
        lot = one.lot
        used = sum(draw.points for draw in one.draws)
        numbers = (str(number or "") for number in (lot.points, used, one.expired, one.remaining))
        style = None if one.state is LotState.OPEN else "dim"
        table.add_row(_short(lot.id), *numbers, when(lot.valid_until), style=style)
    _note_rest(table, len(told.lots) - MOST_ROWS)
    return table


def _reasons(explained: ExplainedAccount) -> Table:
    """Why each lot is there, in a table of its own: at 80 columns the figures leave no room for a sentence."""
    table = _table("Why", "lot", "reason", numbers=())
    for one in explained.explanation.lots[:MOST_ROWS]:
        style = None if one.state is LotState.OPEN else "dim"
        table.add_row(_short(one.lot.id), escape(why(one.lot, explained.settings)), style=style)
    return table


def _timeline(told: Explanation) -> Table:
    table = _table("How it came about", "when (UTC)", "points", "balance", "what", numbers=("points", "balance"))
    earlier = len(told.timeline) - MOST_ROWS
    _note_rest(table, earlier, "earlier ones")
    for moment in told.timeline[max(earlier, 0) :]:
        table.add_row(when(moment.at), f"{moment.change:+}", str(moment.balance), escape(_what(moment)))
    return table


def _note_rest(table: Table, rest: int, what: str = "more") -> None:
    if rest > 0:
        table.add_row(*[""] * (len(table.columns) - 1), f"… {rest} {what}: --json has them all")


def _what(moment: Moment) -> str:
    entry = moment.entry
    if isinstance(entry, Redemption):
        coupon = f", coupon {entry.coupon.code} ({entry.state.value})" if entry.coupon else ""
        draws = ", ".join(f"{draw.points} of {_short(draw.lot)}" for draw in entry.draws)
        described = f" {entry.description!r}" if entry.description else ""
        return f"redeemed{described}{coupon}: {draws}"
    if moment.kind is MomentKind.EXPIRED:
        return f"expired: lot {_short(entry.id)}"
    return f"added: lot {_short(entry.id)}, {entry.description or entry.kind.value}"


def _short(identity: str) -> str:
    return identity[:ID_SHOWN]


def explanation_json(explained: ExplainedAccount) -> dict[str, Any]:
    """Everything of an explained account as JSON values."""
    told = explained.explanation
    return {
        "tenant": tenant_of(told.account),
        "customerId": customer_of(told.account),
        "at": format_instant(told.at),
        "balance": told.balance,
        "storedBalance": explained.stored_balance,
        "expiries": [
            {
                "at": format_instant(expiry.at),
                "points": expiry.points,
                "balanceAfter": expiry.balance_after,
                "lots": [lot.id for lot in expiry.lots],
            }
            for expiry in told.expiries
        ],
        "lots": [_lot_json(one, explained) for one in told.lots],
        "timeline": [_moment_json(moment) for moment in told.timeline],
    }


def _lot_json(one: ExplainedLot, explained: ExplainedAccount) -> dict[str, Any]:
    lot = one.lot
    earned, origin = lot.earned, lot.origin
    return {
        "id": lot.id,
        "publicId": lot.public_id,
        "kind": lot.kind.value,
        "sourceId": lot.source_id,
        "description": lot.description,
        "siteCode": lot.site_code,
        "points": lot.points,
        "remaining": one.remaining,
        "expired": one.expired,
        "state": one.state.value,
        "createdAt": format_instant(lot.created_at),
        "validUntil": format_instant(lot.valid_until),
        "recordedAt": format_instant(lot.recorded_at),
        "why": why(lot, explained.settings),
        "earned": earned
        and {
            "rule": earned.rule,
            "base": earned.base,
            "value": str(earned.value),
            "currency": earned.currency,
            "factor": str(earned.factor),
            "settingsVersion": earned.settings_version,
        },
        "record": origin
        and {
            "topic": origin.topic,
            "partition": origin.partition,
            "offset": origin.offset,
            "replay": origin.replay,
        },
        "draws": [
            {
                "redemption": draw.redemption.id,
                "points": draw.points,
                "at": format_instant(draw.redemption.created_at),
            }
            for draw in one.draws
        ],
    }


def _moment_json(moment: Moment) -> dict[str, Any]:
    entry = moment.entry
    value = {
        "at": format_instant(moment.at),
        "what": moment.kind.value,
        "points": moment.change,
        "balance": moment.balance,
        "description": entry.description,
    }
    if isinstance(entry, Lot):
        return {**value, "lot": entry.id}
    return {
        **value,
        "redemption": entry.id,
        "publicId": entry.public_id,
        "state": entry.state.value,
        "code": entry.coupon.code if entry.coupon else None,
        "draws": [{"lot": draw.lot, "points": draw.points} for draw in entry.draws],
    }
