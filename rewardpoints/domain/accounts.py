"""Accounts and the ids derived from them."""

import hashlib
import re
from functools import lru_cache
from typing import Final, NewType
from urllib.parse import quote, unquote

from rewardpoints.domain.errors import InvalidInput

Account = NewType("Account", str)
"""``tenant/customerId``, each part percent-encoded: the one field every document of an account carries."""

RESERVED_TENANTS: Final = frozenset({"customer", "public", "summaryBatch"})
"""Tenant names that would collide with the API's own path segments."""

DEFAULT_SITE_CODE: Final = "main"
MAX_ID_LENGTH: Final = 256
MAX_TEXT_LENGTH: Final = 2000
_NOTHING_TO_QUOTE: Final = re.compile(r"[A-Za-z0-9_.~-]*")


def check_id(field: str, value: str) -> str:
    """``value`` itself, when it can serve as an id: 1 to 256 characters, no control characters, encodable as UTF-8.

    Raises:
        InvalidInput: it cannot, with ``field`` in the message.
    """
    if not value:
        raise InvalidInput(field, "must not be empty")
    if len(value) > MAX_ID_LENGTH:
        raise InvalidInput(field, f"must have at most {MAX_ID_LENGTH} characters")
    if value.isascii() and value.isprintable():
        return value
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):  # noqa: PLR2004 - ASCII controls
        raise InvalidInput(field, "must not contain control characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidInput(field, "must be valid unicode")
    return value


def check_text(field: str, value: str) -> str:
    """``value`` itself, when it can be stored and shown: at most 2,000 characters, no NUL, encodable as UTF-8.

    Raises:
        InvalidInput: it cannot, with ``field`` in the message.
    """
    if len(value) > MAX_TEXT_LENGTH:
        raise InvalidInput(field, f"must have at most {MAX_TEXT_LENGTH} characters")
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidInput(field, "must be valid text")
    return value


@lru_cache(maxsize=1024)
def check_tenant(tenant: str) -> str:
    """``tenant`` itself, when it may be a tenant's name.

    Raises:
        InvalidInput: it is no usable id, or one of ``RESERVED_TENANTS``.
    """
    check_id("tenant", tenant)
    if tenant in RESERVED_TENANTS:
        raise InvalidInput("tenant", f"{tenant!r} is reserved")
    return tenant


def account_of(tenant: str, customer_id: str) -> Account:
    """The account key of a customer of a tenant. Different pairs never share a key."""
    customer = customer_id if _NOTHING_TO_QUOTE.fullmatch(customer_id) else quote(customer_id, safe="")
    return Account(f"{_quoted_tenant(tenant)}/{customer}")


@lru_cache(maxsize=1024)
def _quoted_tenant(tenant: str) -> str:
    return quote(tenant, safe="")


def tenant_of(account: Account) -> str:
    """The tenant an account belongs to."""
    return unquote(account.partition("/")[0])


def customer_of(account: Account) -> str:
    """The customer an account belongs to."""
    return unquote(account.partition("/")[2])


def tenant_range(tenant: str) -> tuple[str, str]:
    """``(low, high)`` such that exactly the tenant's accounts lie in ``low <= account < high``."""
    encoded = quote(tenant, safe="")
    return f"{encoded}/", f"{encoded}0"  # "0" is the character after "/"


def entry_id(*parts: str) -> str:
    """A stable id for what ``parts`` name together, 64 hex digits.

    Each part is prefixed by its length before hashing, so different part lists never run into the same bytes.
    """
    text = "".join([f"{len(part)}:{part}" for part in parts])
    if not text.isascii():  # a part's length is that of its bytes
        text = "".join([f"{len(part.encode())}:{part}" for part in parts])
    return hashlib.sha256(text.encode()).hexdigest()
