"""Accounts with a past, for Hypothesis: what a ledger holds after some earning and redeeming."""

from datetime import timedelta

from hypothesis import strategies as st

from rewardpoints.domain.errors import TooFewPoints
from rewardpoints.domain.history import History
from rewardpoints.domain.lots import Lot, drawn, plan_draws
from rewardpoints.domain.redemptions import Redemption
from tests.domain.builders import ACCOUNT, NOON, a_lot, a_redemption

DAY = timedelta(days=1)

operations = st.lists(
    st.one_of(
        st.tuples(st.just("earn"), st.integers(1, 40), st.integers(-4, 2), st.integers(1, 12)),
        st.tuples(st.just("redeem"), st.integers(1, 60), st.just(0), st.just(0)),
    ),
    max_size=20,
)


def played(script: list[tuple[str, int, int, int]]) -> History:
    """What a ledger holds after earning and redeeming every seven hours, orders arriving late or early."""
    lots: dict[str, Lot] = {}
    redemptions: list[Redemption] = []
    for hour, (kind, points, shift_days, valid_days) in enumerate(script):
        now = NOON + hour * timedelta(hours=7)
        if kind == "earn":
            at = now + shift_days * DAY
            lot = a_lot(str(hour), points, at=at, valid_until=at + valid_days * DAY)
            lots[lot.id] = lot
            continue
        try:
            draws = plan_draws(list(lots.values()), points, now)
        except TooFewPoints:
            continue
        redemptions.append(a_redemption(str(hour), [(lots[draw.lot], draw.points) for draw in draws], at=now))
        for draw in draws:
            lots[draw.lot] = drawn(lots[draw.lot], draw)
    return History(ACCOUNT, list(lots.values()), redemptions)
