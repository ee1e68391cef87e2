"""Explain: why a customer has the points they have, and when they expire."""

from dataclasses import dataclass
from datetime import datetime

from rewardpoints.domain.accounts import Account, tenant_of
from rewardpoints.domain.adjustments import PREFIX
from rewardpoints.domain.errors import NoAccount
from rewardpoints.domain.explanation import Explanation, explain
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.lots import Lot, LotKind, active_points
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.site_settings import SettingsVersion
from rewardpoints.ledger.ledger import Ledger

SettingsUsed = dict[tuple[str, int], SettingsVersion]
"""The settings versions that lots were earned under, by site code and number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedAccount:
    """An account explained, with the site settings its lots name.

    ``stored_balance`` is what the API answers now; None where the explanation is of another time. It differs from the
    explanation's only where ``verify`` finds something.
    """

    explanation: Explanation
    settings: SettingsUsed
    stored_balance: int | None


async def explain_account(
    ledger: Ledger, clock: Clock, account: Account, at: datetime | None = None
) -> ExplainedAccount:
    """The account at an instant, now where none is given, from one snapshot of all its entries.

    Raises:
        NoAccount: the customer has none; the message says so if it was erased.
        LedgerUnavailable
    """
    history = await ledger.accounts.history(account)
    if history is None:
        tombstone = await ledger.tombstones.find(account)
        erased = f"; it was erased at {format_instant(tombstone.erased_at)}" if tombstone else ""
        raise NoAccount(f"the customer has no account{erased}")
    instant = at or clock()
    tenant = tenant_of(account)
    sites = {(tenant, lot.site_code) for lot in history.lots if lot.earned}
    histories = await ledger.site_settings.histories(sites)
    return ExplainedAccount(
        explanation=explain(history, instant),
        settings={
            (site[1], version.version): version for site, found in histories.items() for version in found.versions
        },
        stored_balance=active_points(history.lots, instant) if at is None else None,
    )


def why(lot: Lot, settings: SettingsUsed) -> str:
    """Why a lot has its points, in a line."""
    if lot.kind is LotKind.CHARGEBACK:
        return f"the points of redemption {lot.source_id[:12]} given back: its coupon could not be created"
    if lot.kind is LotKind.OPENING:
        return f"opening entry {lot.public_id}: {lot.description}".rstrip(": ")
    if lot.kind is LotKind.MANUAL:
        adjusted = lot.source_id.startswith(PREFIX)
        name = f"adjustment {lot.source_id.removeprefix(PREFIX)}" if adjusted else f"by hand, {lot.public_id}"
        return f"{name}: {lot.description}".rstrip(": ")
    return f"order {lot.source_id}{_earned(lot, settings)}{_origin(lot)}"


def _earned(lot: Lot, settings: SettingsUsed) -> str:
    earned = lot.earned
    if earned is None:
        return ""
    version = settings.get((lot.site_code, earned.settings_version))
    rounding = f" ({version.settings.rounding.value})" if version and version.problem is None else ""
    value = f"{earned.value}{f' {earned.currency}' if earned.currency else ''}"
    return (
        f": {earned.base} {value} x factor {earned.factor}{rounding} = {lot.points}; "
        f"rule {earned.rule}, settings of site {lot.site_code} version {earned.settings_version}"
    )


def _origin(lot: Lot) -> str:
    origin = lot.origin
    if origin is None:
        return ""
    replay = f", by replay {origin.replay}" if origin.replay else ""
    return f"; record {origin.topic}/{origin.partition}/{origin.offset}{replay}"
