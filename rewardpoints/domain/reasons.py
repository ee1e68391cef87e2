"""Reasons: an account explained, with the rule behind each of its lots in words."""

from dataclasses import dataclass

from rewardpoints.domain.adjustments import PREFIX
from rewardpoints.domain.explanation import Explanation
from rewardpoints.domain.lots import Lot, LotKind
from rewardpoints.domain.site_settings import SettingsVersion

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
