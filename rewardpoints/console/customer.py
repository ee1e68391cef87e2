"""A customer: why they have the points they have, and when they expire."""

from typing import Any, Final

from starlette.responses import Response

from rewardpoints.console.charts import balance_chart
from rewardpoints.console.gate import VIEW
from rewardpoints.console.pages import Pages, Visit
from rewardpoints.console.ports import Explainer
from rewardpoints.domain.accounts import account_of, check_id
from rewardpoints.domain.errors import InvalidInput, NoAccount
from rewardpoints.domain.explanation import MomentKind
from rewardpoints.domain.reasons import why
from rewardpoints.domain.redemptions import Redemption

MOST_ROWS: Final = 200
"""Rows of a table; `rewardpoints explain --json` has everything."""


class Customer:
    """The timeline of an account, its balance as a chart, and its lots."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer

    def add_to(self, pages: Pages) -> None:
        """Add the page."""
        pages.add("/console/customer", self.show, scope=VIEW)

    async def show(self, visit: Visit) -> Response:
        """The customer that the query names, of the visitor's tenant."""
        customer_id = visit.query.text("customer")
        nothing: dict[str, Any] = {"customer_id": customer_id, "account": None, "problem": None}
        if not customer_id:
            return visit.show("customer.html", **nothing)
        try:
            found = await self._explainer.explain(account_of(visit.tenant, check_id("customer", customer_id)))
        except (NoAccount, InvalidInput) as error:
            status = 404 if isinstance(error, NoAccount) else 400
            return visit.show("customer.html", status=status, **{**nothing, "problem": str(error)})
        explanation = found.explanation
        return visit.show(
            "customer.html",
            customer_id=customer_id,
            problem=None,
            account=found,
            explanation=explanation,
            chart=balance_chart(explanation),
            reasons={one.lot.id: why(one.lot, found.settings) for one in explanation.lots[:MOST_ROWS]},
            largest=max((one.lot.points for one in explanation.lots), default=0),
            most_rows=MOST_ROWS,
            is_redemption=lambda entry: isinstance(entry, Redemption),
            expired=MomentKind.EXPIRED,
        )
