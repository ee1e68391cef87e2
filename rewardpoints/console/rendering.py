"""Rendering: templates with what every page shows, and the words numbers and instants are written in."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, Response

from rewardpoints.console import charts
from rewardpoints.console.gate import FORM_TOKEN, MANAGE, SITE, VIEW, Visitor
from rewardpoints.domain.instants import format_instant
from rewardpoints.domain.lag import MOST_COUNTED

PACKAGE: Final = "rewardpoints.console"
ASSETS: Final[Mapping[str, str]] = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
NOTHING: Final = "\N{EN DASH}"
MINUTE, HOUR, DAY = 60, 3600, 86_400


class Assets:
    """The style sheet, the script and the icon, each under an address that changes with its content."""

    def __init__(self) -> None:
        folder = files(PACKAGE).joinpath("static")
        self._contents = {name: folder.joinpath(name).read_bytes() for name in ASSETS}

    def address(self, name: str) -> str:
        """Where a page finds it."""
        return f"/console/static/{name}?{hashlib.sha256(self._contents[name]).hexdigest()[:12]}"

    def answer(self, name: str) -> Response:
        """The file; may be kept for long."""
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(self._contents[name], media_type=ASSETS[name], headers=headers)


class Renderer:
    """Makes answers of templates. Everything that is put into one is escaped."""

    def __init__(self, assets: Assets) -> None:
        self._templates = Environment(
            loader=PackageLoader(PACKAGE),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(
            number=number, when=when, day=day, age=age, share=share, counted=counted, rate=rate, iso=format_instant
        )
        self._templates.globals.update(
            asset=assets.address, charts=charts, form_token_field=FORM_TOKEN, VIEW=VIEW, MANAGE=MANAGE, SITE=SITE
        )

    def answer(
        self, template: str, *, visitor: Visitor | None, part: bool = False, status: int = 200, **values: Any
    ) -> Response:
        """A page, or with ``part`` only what stands in its middle."""
        found = self._templates.get_template(template)
        return HTMLResponse(found.render(visitor=visitor, part=part, **values), status_code=status)


def number(value: int | Decimal) -> str:
    """A number with its thousands apart."""
    return f"{value:,}"


def counted(value: int) -> str:
    """A count that may have stopped."""
    return f"{value:,}{' or more' if value >= MOST_COUNTED else ''}"


def rate(value: float | None) -> str:
    """So many a second."""
    return NOTHING if value is None else f"{value:,.1f}"


def when(instant: datetime) -> str:
    """An instant, to the second; the page says that it is UTC."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def day(instant: datetime) -> str:
    """The day of an instant."""
    return f"{instant.astimezone(UTC):%Y-%m-%d}"


def share(value: float | Decimal | None) -> str:
    """A share of one, in percent."""
    return NOTHING if value is None else f"{value:.2%}"


def age(seconds: float | None) -> str:
    """How long something has waited."""
    if seconds is None:
        return "?"
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:,.0f} h" if seconds < 2 * DAY else f"{seconds / DAY:,.0f} days"
