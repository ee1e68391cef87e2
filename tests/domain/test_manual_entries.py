from datetime import timedelta

import pytest

from rewardpoints.domain.errors import InvalidInput
from rewardpoints.domain.lots import MAX_POINTS, Lot, LotKind
from rewardpoints.domain.manual_entries import ManualGrant, manual_lot, opening_lot
from rewardpoints.domain.site_settings import SiteSettings
from tests.domain.builders import ACCOUNT, NOON

SETTINGS = SiteSettings(validity_months=12)
DAY = timedelta(days=1)


def a_grant(points: int = 20, **fields: object) -> ManualGrant:
    return ManualGrant(id="g1", source_id="s1", points=points, fingerprint="f", **fields)  # type: ignore[arg-type]  # fields of the table


def test_points_added_by_hand_are_earned_now() -> None:
    lot = manual_lot(ACCOUNT, a_grant(created_at=NOON - 400 * DAY), SETTINGS, site_code="main", now=NOON)
    assert (lot.kind, lot.public_id, lot.created_at, lot.valid_until) == (
        LotKind.MANUAL,
        "g1",
        NOON,
        NOON + 365 * DAY,
    )
    assert lot.recorded_at == NOON


def test_the_instants_of_an_entry_are_those_that_are_stored() -> None:
    now = NOON + timedelta(microseconds=1999)
    for make in (manual_lot, opening_lot):
        lot = make(ACCOUNT, a_grant(), SETTINGS, site_code="main", now=now)
        assert lot.recorded_at == lot.created_at == NOON + timedelta(milliseconds=1)


def test_the_source_not_the_id_makes_a_grant_the_same() -> None:
    def granted(public_id: str, source_id: str) -> Lot:
        grant = ManualGrant(id=public_id, source_id=source_id, points=1, fingerprint="f")
        return manual_lot(ACCOUNT, grant, SETTINGS, site_code="main", now=NOON)

    assert granted("g1", "s1").id == granted("g2", "s1").id
    assert granted("g1", "s1").id != granted("g1", "s2").id
    assert (granted("g1", "s1").public_id, granted("g1", "s1").source_id) == ("g1", "s1")


def test_a_validity_in_the_future_is_honoured() -> None:
    lot = manual_lot(ACCOUNT, a_grant(valid_until=NOON + DAY), SETTINGS, site_code="main", now=NOON)
    assert lot.valid_until == NOON + DAY


@pytest.mark.parametrize("valid_until", [NOON, NOON - DAY])
def test_a_validity_that_is_over_is_refused(valid_until: object) -> None:
    with pytest.raises(InvalidInput, match="validUntil"):
        manual_lot(ACCOUNT, a_grant(valid_until=valid_until), SETTINGS, site_code="main", now=NOON)


@pytest.mark.parametrize("points", [0, -1, MAX_POINTS + 1])
def test_points_added_are_positive_and_bounded(points: int) -> None:
    with pytest.raises(InvalidInput, match="points"):
        manual_lot(ACCOUNT, a_grant(points), SETTINGS, site_code="main", now=NOON)


def test_an_opening_entry_is_an_import() -> None:
    past = a_grant(0, created_at=NOON - 900 * DAY, valid_until=NOON - 500 * DAY)
    lot = opening_lot(ACCOUNT, past, SETTINGS, site_code="main", now=NOON)
    assert (lot.kind, lot.points, lot.created_at, lot.valid_until) == (
        LotKind.OPENING,
        0,
        NOON - 900 * DAY,
        NOON - 500 * DAY,
    )


def test_an_account_has_one_opening_entry_whatever_its_id() -> None:
    first = opening_lot(ACCOUNT, a_grant(1), SETTINGS, site_code="main", now=NOON)
    other = ManualGrant(id="g2", source_id="s2", points=1, fingerprint="f")
    assert opening_lot(ACCOUNT, other, SETTINGS, site_code="main", now=NOON).id == first.id


def test_an_opening_entry_is_not_negative() -> None:
    with pytest.raises(InvalidInput, match="points"):
        opening_lot(ACCOUNT, a_grant(-1), SETTINGS, site_code="main", now=NOON)
