"""Redeem options: what points can be spent on, viewed, changed and added."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from rewardpoints.console.forms import Form
from rewardpoints.console.gate import MANAGE, VIEW
from rewardpoints.console.numbers import number_of
from rewardpoints.console.pages import Pages, Visit
from rewardpoints.domain.errors import InvalidInput, NotFound, VersionConflict
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.ports import Clock, RedeemOptions
from rewardpoints.domain.redeem_options import OPTION_TYPE, RedeemOption, merged_content, option_content

LIST: Final = "/console/redeem-options"
OPTION_ID_BYTES: Final = 12
FIELDS: Final = (
    "name", "description", "points", "coupon_name", "coupon_description", "discount_type", "amount", "currency",
    "percentage",
)  # fmt: skip


class RedeemOptionPages:
    """The options of the tenant. A change is stored only over the version that the form showed."""

    def __init__(self, options: RedeemOptions, clock: Clock, randomness: Callable[[int], bytes]) -> None:
        self._options = options
        self._clock = clock
        self._randomness = randomness

    def add_to(self, pages: Pages) -> None:
        """Add the pages."""
        pages.add(LIST, self.show, scope=VIEW)
        pages.add(f"{LIST}/edit", self.edit, scope=MANAGE)
        pages.add(f"{LIST}/save", self.save, scope=MANAGE, method="POST")

    async def show(self, visit: Visit) -> Response:
        """All options."""
        options = await self._options.all(visit.tenant)
        return visit.show("redeem_options.html", options=options, saved=visit.query.chosen("saved"))

    async def edit(self, visit: Visit) -> Response:
        """The form of one option; an empty one where none is named."""
        option_id = visit.query.text("id")
        stored = await self._stored(visit, option_id) if option_id else None
        return self._form(visit, stored, fields_of(stored.content) if stored else dict.fromkeys(FIELDS, ""))

    async def save(self, visit: Visit) -> Response:
        """Store the form, unless the option has changed since it was shown."""
        form = visit.form
        option_id = form.text("id")
        stored = await self._stored(visit, option_id) if option_id else None
        given = {name: form.text(name) for name in FIELDS}
        try:
            if stored is None:
                await self._create(visit, parts_of(form))
            else:
                await self._change(stored, form.whole("version"), parts_of(form))
        except InvalidInput as error:
            return self._form(visit, stored, given, problem=str(error), status=400)
        except VersionConflict:
            now_stored = await self._stored(visit, option_id)
            problem = (
                f"Somebody has changed the option meanwhile: it is version {now_stored.version} now. "
                "Nothing was saved. Look at the stored one and make your change again."
            )
            return self._form(visit, stored, given, problem=problem, status=409, version=form.whole("version"))
        return visit.go_to(f"{LIST}?{urlencode({'saved': '1'})}")

    async def _stored(self, visit: Visit, option_id: str) -> RedeemOption:
        found = await self._options.find(visit.tenant, option_id)
        if found is None:
            raise NotFound(f"There is no redeem option {option_id[:100]}.")
        return found

    async def _create(self, visit: Visit, parts: Mapping[str, Any]) -> None:
        now = to_milliseconds(self._clock())
        await self._options.create(
            RedeemOption(
                tenant=visit.tenant,
                id=self._randomness(OPTION_ID_BYTES).hex(),
                content=option_content(merged_content({}, {**parts, "type": OPTION_TYPE})),
                version=1,
                created_at=now,
                modified_at=now,
            )
        )

    async def _change(self, stored: RedeemOption, version: int, parts: Mapping[str, Any]) -> None:
        content = merged_content(stored.content, parts)
        if content == stored.content:
            return
        now = to_milliseconds(self._clock())
        changed = replace(stored, content=content, version=version + 1, modified_at=now)
        if not await self._options.replace(changed, stored_version=version):
            raise VersionConflict

    def _form(
        self,
        visit: Visit,
        stored: RedeemOption | None,
        fields: Mapping[str, str],
        *,
        problem: str | None = None,
        status: int = 200,
        version: int | None = None,
    ) -> Response:
        shown = version if version is not None else stored.version if stored else 0
        return visit.show(
            "redeem_option.html", status=status, option=stored, fields=fields, version=shown, problem=problem
        )


def fields_of(content: Mapping[str, Any]) -> dict[str, str]:
    """An option as its form shows it. What the form has no field for stays as it is."""
    coupon = content["coupon"]
    money = coupon.get("discountAbsolute") or {}
    shown = {
        "name": content["name"],
        "description": content.get("description"),
        "points": content["points"],
        "coupon_name": coupon.get("name"),
        "coupon_description": coupon.get("description"),
        "discount_type": coupon.get("discountType"),
        "amount": money.get("amount"),
        "currency": money.get("currency"),
        "percentage": coupon.get("discountPercentage"),
    }
    return {name: "" if value is None else str(value) for name, value in shown.items()}


def parts_of(form: Form) -> dict[str, Any]:
    """What a form says of an option, to be laid over the stored one.

    Raises:
        InvalidInput: a number is none.
    """
    coupon: dict[str, Any] = {
        "name": form.text("coupon_name") or None,
        "description": form.text("coupon_description") or None,
        "discountType": form.text("discount_type"),
    }
    if form.text("discount_type") == "PERCENT":
        coupon["discountPercentage"] = number_of(form, "percentage")
    else:
        coupon["discountAbsolute"] = {"amount": number_of(form, "amount"), "currency": form.text("currency")}
    return {
        "name": form.text("name") or None,
        "description": form.text("description") or None,
        "points": form.whole("points"),
        "coupon": coupon,
    }
