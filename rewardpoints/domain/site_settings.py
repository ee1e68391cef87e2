"""Site settings: what a site awards, in versions of which the one in force at an order's instant applies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from string import Formatter
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from rewardpoints.domain.errors import InvalidInput

MAX_FACTOR: Final = Decimal(1_000_000)
MAX_FACTOR_DIGITS: Final = 18
MAX_VALIDITY_MONTHS: Final = 1200
DEFAULT_VALIDITY_MONTHS: Final = 36
DEFAULT_CODE_PREFIX: Final = "RP"
DEFAULT_DESCRIPTION_TEMPLATE: Final = "Reward points for order {orderId}"
MAX_TEMPLATE_LENGTH: Final = 500
MAX_CODE_PREFIX_LENGTH: Final = 32
Choice = TypeVar("Choice", bound=StrEnum)
_ALIASES: Final = {"enable": "enabled", "couponPrefix": "codePrefix"}


class OrderValueBase(StrEnum):
    """Which of an order's sums earns points."""

    TOTAL_PRICE = "totalPrice"
    SUB_TOTAL_PRICE = "subTotalPrice"


class Rounding(StrEnum):
    """How a fraction of a point is rounded."""

    FLOOR = "FLOOR"
    HALF_UP = "HALF_UP"
    CEILING = "CEILING"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """What one site awards."""

    enabled: bool = True
    factor: Decimal = Decimal(1)
    validity_months: int = DEFAULT_VALIDITY_MONTHS
    code_prefix: str = DEFAULT_CODE_PREFIX
    base: OrderValueBase = OrderValueBase.TOTAL_PRICE
    rounding: Rounding = Rounding.FLOOR
    description_template: str = DEFAULT_DESCRIPTION_TEMPLATE
    time_zone: str = "UTC"

    @property
    def zone(self) -> tzinfo:
        """The zone on whose wall clock validity months are counted."""
        return _zone(self.time_zone)

    def describe_order(self, order_id: str) -> str:
        """The description of an order's lot."""
        return order_id.join(_around_order_id(self.description_template))


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsVersion:
    """One saved version of a site's settings. ``content`` is the mixin's ``rewardpoints`` object as it was saved.

    ``problem`` says why ``settings`` could not be read from it; they are the defaults then, and orders are refused.
    """

    tenant: str
    site_code: str
    version: int
    saved_at: datetime
    effective_at: datetime
    settings: SiteSettings
    content: Mapping[str, Any] = field(compare=False)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class SettingsHistory:
    """All versions of one site's settings, oldest first."""

    versions: Sequence[SettingsVersion]

    def in_force_at(self, instant: datetime) -> SettingsVersion | None:
        """The newest version effective at ``instant``; before the first, the first; None where there is none."""
        for version in reversed(self.versions):
            if version.effective_at <= instant:
                return version
        return self.versions[0] if self.versions else None

    @property
    def latest(self) -> SettingsVersion | None:
        """The version saved last, in force or not yet."""
        return self.versions[-1] if self.versions else None


DEFAULT_SITE_SETTINGS: Final = SiteSettings()
"""What holds for points given by hand and for redemptions on a site without settings. Orders earn nothing there."""


def settings_at(history: SettingsHistory, instant: datetime) -> SiteSettings:
    """The settings in force at ``instant``, or the defaults where the site has none."""
    version = history.in_force_at(instant)
    return version.settings if version else DEFAULT_SITE_SETTINGS


def canonical_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` under today's field names (``enable`` → ``enabled``, ``couponPrefix`` → ``codePrefix``).

    Done before a part is merged into what is stored, so that an alias can never hide beneath the name it stands for.

    Raises:
        InvalidInput: both names are given and disagree.
    """
    canonical = {name: value for name, value in content.items() if name not in _ALIASES}
    for alias, name in _ALIASES.items():
        if alias in content:
            if name in content and content[name] != content[alias]:
                raise InvalidInput(alias, f"disagrees with {name}")
            canonical[name] = content[alias]
    return canonical


def parse_site_settings(content: Mapping[str, Any]) -> SiteSettings:
    """The settings in a mixin's ``rewardpoints`` object, numbers as int or Decimal; unknown fields are ignored.

    Raises:
        InvalidInput: a field is missing or breaks its rule.
    """
    given = canonical_content(content)
    return SiteSettings(
        enabled=_boolean(given, "enabled", default=True),
        factor=_factor(given),
        validity_months=_months(given),
        code_prefix=_code_prefix(given),
        base=_choice(given, "orderValueBase", OrderValueBase, OrderValueBase.TOTAL_PRICE),
        rounding=_choice(given, "rounding", Rounding, Rounding.FLOOR),
        description_template=_template(given),
        time_zone=_time_zone(given),
    )


def _boolean(given: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise InvalidInput(name, "must be true or false")
    return value


def _factor(given: Mapping[str, Any]) -> Decimal:
    name = "orderValueToRewardPointsFactor"
    value = given.get(name)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise InvalidInput(name, "must be a number")
    factor = Decimal(value)
    if not factor.is_finite() or factor < 0 or factor.adjusted() > MAX_FACTOR.adjusted() or factor > MAX_FACTOR:
        raise InvalidInput(name, f"must lie between 0 and {MAX_FACTOR}")
    exponent = factor.as_tuple().exponent
    if len(factor.as_tuple().digits) > MAX_FACTOR_DIGITS or (
        isinstance(exponent, int) and exponent < -MAX_FACTOR_DIGITS
    ):
        raise InvalidInput(name, f"must have at most {MAX_FACTOR_DIGITS} digits")
    return factor


def _months(given: Mapping[str, Any]) -> int:
    name = "validityInMonths"
    value = given.get(name, DEFAULT_VALIDITY_MONTHS)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_VALIDITY_MONTHS:
        raise InvalidInput(name, f"must be a whole number between 1 and {MAX_VALIDITY_MONTHS}")
    return value


def _code_prefix(given: Mapping[str, Any]) -> str:
    value = given.get("codePrefix", DEFAULT_CODE_PREFIX)
    letters = value.replace("-", "").replace("_", "") if isinstance(value, str) else ""
    if not (letters.isascii() and letters.isalnum() and len(value) <= MAX_CODE_PREFIX_LENGTH):
        raise InvalidInput("codePrefix", f"must be 1 to {MAX_CODE_PREFIX_LENGTH} letters, digits, '-' or '_'")
    return str(value)


def _choice(given: Mapping[str, Any], name: str, kind: type[Choice], default: Choice) -> Choice:
    try:
        return kind(given.get(name, default))
    except ValueError as error:
        raise InvalidInput(name, f"must be one of {', '.join(kind)}") from error


def _template(given: Mapping[str, Any]) -> str:
    name = "descriptionTemplate"
    value = given.get(name, DEFAULT_DESCRIPTION_TEMPLATE)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEMPLATE_LENGTH:
        raise InvalidInput(name, f"must be a text of 1 to {MAX_TEMPLATE_LENGTH} characters")
    try:
        fields = [part[1:] for part in Formatter().parse(value) if part[1] is not None]
    except ValueError as error:
        raise InvalidInput(name, str(error)) from error
    if any(used != ("orderId", "", None) for used in fields):
        raise InvalidInput(name, "may only use {orderId}")
    return value


def _time_zone(given: Mapping[str, Any]) -> str:
    value = given.get("timeZone", "UTC")
    if not isinstance(value, str) or value not in _zone_names():
        raise InvalidInput("timeZone", "must be the name of a time zone, as Europe/Berlin")
    return value


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    """The zones of the tzdata package: the same on every host, without a host's own such as ``localtime``."""
    return frozenset(files("tzdata").joinpath("zones").read_text("utf-8").split())


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)


@lru_cache(maxsize=256)
def _around_order_id(template: str) -> tuple[str, ...]:
    """What of a template stands before, between and after its order ids."""
    around = [""]
    for literal, field_name, _, _ in Formatter().parse(template):
        around[-1] += literal
        if field_name is not None:
            around.append("")
    return tuple(around)
