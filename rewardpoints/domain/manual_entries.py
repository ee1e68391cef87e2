"""Points given by an employee: an account's opening entry and points added by hand."""

from dataclasses import dataclass
from datetime import datetime

from rewardpoints.domain.accounts import Account
from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.instants import add_months, to_milliseconds
from rewardpoints.domain.lots import MAX_POINTS, Lot, LotKind, lot_id
from rewardpoints.domain.site_settings import SiteSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualGrant:
    """What an employee asks for. ``id`` is the one clients see; ``created_at`` counts for an opening entry only.

    ``source_id`` makes adding repeatable: an account has one grant of each. It does not count for an opening entry, of
    which an account has one whatever names it.

    ``fingerprint`` tells two tries of one request from two requests that share an id by mistake.
    """

    id: str
    source_id: str
    points: int
    fingerprint: str
    description: str = ""
    reference_id: str | None = None
    created_at: datetime | None = None
    valid_until: datetime | None = None


def opening_lot(account: Account, grant: ManualGrant, settings: SiteSettings, *, site_code: str, now: datetime) -> Lot:
    """The lot that opens an account. An import: instants of the past are kept, and 0 points are allowed.

    Raises:
        InvalidInput: the points are negative or too many.
    """
    _check_points(grant.points, least=0)
    created_at = grant.created_at or now
    return _lot(
        account, grant, settings, kind=LotKind.OPENING, source_id="", site_code=site_code, at=created_at, now=now
    )


def manual_lot(account: Account, grant: ManualGrant, settings: SiteSettings, *, site_code: str, now: datetime) -> Lot:
    """The lot of points added by hand, earned now.

    Raises:
        InvalidInput: the points are not positive or too many, or ``valid_until`` is not in the future.
    """
    _check_points(grant.points, least=1)
    if grant.valid_until is not None and grant.valid_until <= now:
        raise InvalidInput("validUntil", "must be in the future")
    return _lot(
        account, grant, settings, kind=LotKind.MANUAL, source_id=grant.source_id, site_code=site_code, at=now, now=now
    )


def _check_points(points: int, *, least: int) -> None:
    if not least <= points <= MAX_POINTS:
        raise InvalidInput("points", f"must be a whole number between {least} and {MAX_POINTS}")


def _lot(
    account: Account,
    grant: ManualGrant,
    settings: SiteSettings,
    *,
    kind: LotKind,
    source_id: str,
    site_code: str,
    at: datetime,
    now: datetime,
) -> Lot:
    return Lot(
        id=lot_id(account, kind, source_id),
        account=account,
        kind=kind,
        source_id=source_id,
        public_id=grant.id,
        reference_id=grant.reference_id,
        description=grant.description,
        points=grant.points,
        remaining=grant.points,
        created_at=to_milliseconds(at),
        valid_until=grant.valid_until or add_months(at, settings.validity_months, settings.zone),
        site_code=site_code,
        recorded_at=to_milliseconds(now),
        fingerprint=grant.fingerprint,
    )
