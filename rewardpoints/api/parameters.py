"""Parameters many operations share."""

from typing import Annotated, Final

from fastapi import Header, Path, Query
from pydantic import AfterValidator

from rewardpoints.api.paths import PathId
from rewardpoints.domain.accounts import MAX_ID_LENGTH, check_id

MAX_IDEMPOTENCY_KEY_LENGTH: Final = 255

CustomerId = Annotated[PathId, Path(alias="customerId", description="Id of the customer")]
Tenant = Annotated[str, Path(alias="tenant", description="Name of the tenant; must be the access token's")]
"""Only documented here: the guard has compared it with the token's before the operation starts."""

OptionId = Annotated[PathId, Path(alias="redeemOptionId", description="Id of the redeem option")]
SiteInPath = Annotated[PathId, Path(alias="siteCode", description="Code of the site")]
SiteCode = Annotated[
    str,
    Query(alias="siteCode", description="Code of the site", min_length=1, max_length=MAX_ID_LENGTH),
    AfterValidator(lambda value: check_id("siteCode", value)),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_IDEMPOTENCY_KEY_LENGTH,
        pattern=r"^[!-~]([ -~]*[!-~])?$",
        description="Repeating a request with the same key answers the first one's outcome and does nothing again",
    ),
]
