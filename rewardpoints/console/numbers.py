"""Numbers in forms."""

import re
from decimal import Decimal
from typing import Final

from rewardpoints.console.forms import Form
from rewardpoints.domain.errors import InvalidInput

_NUMBER: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?")


def number_of(form: Form, name: str) -> int | Decimal:
    """A field that is a number, exactly.

    Raises:
        InvalidInput: it is none.
    """
    text = form.text(name)
    if not _NUMBER.fullmatch(text):
        raise InvalidInput(name, "must be a number, as 12.5")
    return Decimal(text) if "." in text else int(text)
