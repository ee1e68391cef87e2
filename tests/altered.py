"""A value with other fields, whichever library its class is made with."""

import dataclasses
from typing import Any, TypeVar

from msgspec import Struct, structs

Value = TypeVar("Value")


def altered(value: Value, /, **changes: Any) -> Value:
    """The same value but for ``changes``."""
    if isinstance(value, Struct):
        return structs.replace(value, **changes)
    return dataclasses.replace(value, **changes)  # type: ignore[type-var]  # one or the other
