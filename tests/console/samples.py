"""A shop's data for looking at: the same figures whenever it is made, but for the day."""

import random
from datetime import datetime, timedelta
from decimal import Decimal

from rewardpoints.domain.accounts import account_of
from rewardpoints.domain.dead_letters import LetterId
from rewardpoints.domain.history import History
from rewardpoints.domain.lots import Earned, Lot, LotKind, Origin, lot_id
from rewardpoints.domain.redeem_options import RedeemOption, option_content
from rewardpoints.domain.redemptions import CouponOrder, Redemption, RedemptionState
from rewardpoints.domain.replays import ReplayState
from rewardpoints.domain.site_settings import SettingsVersion, parse_site_settings
from tests.altered import altered
from tests.api.harness import OPTION
from tests.console.fakes import TENANT, a_letter, a_replay
from tests.console.harness import Desk
from tests.domain.builders import a_lot, a_redemption

CUSTOMER = "C1001"


def fill(desk: Desk) -> None:
    """Everything the pages show."""
    now = desk.clock()
    history = customer_history(now)
    desk.explainer.histories[history.account] = history
    chance = random.Random(7)
    for number in range(300):
        account = account_of(TENANT, f"C{2000 + number}")
        lots = []
        for order in range(chance.randint(1, 5)):
            made = now - timedelta(days=chance.randint(1, 700))
            lot = a_lot(f"{number}-{order}", chance.randint(5, 400), at=made, valid_until=made + timedelta(days=730))
            lots.append(altered(lot, account=account, id=lot_id(account, LotKind.MANUAL, f"{order}")))
        desk.explainer.histories[account] = History(account, lots, [])
    put_options(desk, now)
    put_settings(desk, now)
    reasons = ("unreadable_settings", "invalid_amount", "malformed", "unknown_redemption")
    errors = (
        "the settings of site eu cannot be read",
        "totalPrice: must not be negative",
        "no JSON object",
        "no such id",
    )
    desk.letters.letters[TENANT] = [
        a_letter(
            1040 + n, id=LetterId(n % 3, 1040 + n), reason=reasons[n % 4], error=errors[n % 4],
            source=f"order-completed/{n % 3}/{88_120 + 13 * n}", attempts=1 + n % 2,
        )
        for n in range(9)
    ]  # fmt: skip
    for view in (
        a_replay("20261121-115312-9c04e1"),
        a_replay("20261120-160244-51d0aa", dry_run=True, state=ReplayState.FINISHED),
        a_replay("20261118-080001-07be3f", state=ReplayState.FINISHED),
    ):
        desk.replays.views[view.replay.id] = view


def customer_history(now: datetime) -> History:
    """A customer of two years: orders, redemptions, one charged back, and points that expired."""
    account = account_of(TENANT, CUSTOMER)
    lots: list[Lot] = []
    for number, (days, points) in enumerate(((690, 160), (540, 220), (400, 90), (300, 310), (160, 120), (40, 209))):
        at = now - timedelta(days=days)
        lots.append(
            Lot(
                id=lot_id(account, LotKind.ORDER, f"A-{10_230 + number}"), account=account, kind=LotKind.ORDER,
                source_id=f"A-{10_230 + number}", public_id=f"p{number}", reference_id=None,
                description=f"Reward points for order A-{10_230 + number}", points=points, remaining=points,
                created_at=at, valid_until=at + timedelta(days=365), site_code="main", recorded_at=at,
                earned=Earned(
                    rule="factor", base="totalPrice", factor=Decimal("1.0"), value=Decimal(points) + Decimal("0.45"),
                    currency="EUR", settings_version=2,
                ),
                origin=Origin(topic="order-completed", partition=number % 3, offset=88_000 + number),
            )
        )  # fmt: skip
    redemptions: list[Redemption] = []
    for name, place, points, days, state in (
        ("v1", 0, 100, 500, RedemptionState.ISSUED), ("v2", 1, 120, 320, RedemptionState.ISSUED),
        ("v3", 3, 200, 120, RedemptionState.ISSUED), ("v4", 4, 50, 12, RedemptionState.REQUESTED),
    ):  # fmt: skip
        lots[place] = altered(lots[place], remaining=lots[place].remaining - points)
        redemption = a_redemption(name, [(lots[place], points)], at=now - timedelta(days=days))
        order = CouponOrder(code=f"DEMO-{name.upper()}K7WQ2M9XRTB", option={})
        redemptions.append(
            altered(redemption, account=account, state=state, coupon=order, description="5 Euro voucher")
        )
    return History(account, lots, redemptions)


def put_options(desk: Desk, now: datetime) -> None:
    """Two options."""
    percent = {"name": "10 percent", "discountType": "PERCENT", "discountPercentage": 10}
    for number, content in enumerate((OPTION, {**OPTION, "name": "10 % off", "points": 250, "coupon": percent})):
        option = RedeemOption(
            tenant=TENANT,
            id=f"option-{number}",
            content=option_content(content),
            version=number + 1,
            created_at=now,
            modified_at=now,
        )
        desk.redeem_options.options[TENANT, option.id] = option


def put_settings(desk: Desk, now: datetime) -> None:
    """Two versions of the main site's settings."""
    for number, factor in enumerate((Decimal("0.5"), Decimal("1.0")), start=1):
        content = {"orderValueToRewardPointsFactor": factor, "codePrefix": "DEMO", "timeZone": "Europe/Berlin"}
        at = now - timedelta(days=900 - 100 * number)
        desk.site_settings.versions.setdefault((TENANT, "main"), []).append(
            SettingsVersion(
                tenant=TENANT,
                site_code="main",
                version=number,
                saved_at=at,
                effective_at=at,
                settings=parse_site_settings(content),
                content=content,
            )
        )
