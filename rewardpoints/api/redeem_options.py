"""The operations on redeem options."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import Body
from starlette.requests import Request
from starlette.responses import Response

from rewardpoints.api import schemas
from rewardpoints.api.access import ANY_TOKEN, MANAGE, principal_of
from rewardpoints.api.errors import BadRequest, Missing, OptionChanged
from rewardpoints.api.parameters import OptionId, Tenant
from rewardpoints.api.ports import Ports
from rewardpoints.api.routing import Operations
from rewardpoints.api.storefront import Randomness
from rewardpoints.api.views import json_answer, options_view
from rewardpoints.domain.instants import to_milliseconds
from rewardpoints.domain.ports import Clock
from rewardpoints.domain.redeem_options import RedeemOption, merged_content, option_content

TAG: Final = "Redeem Options Management"
OPTION_ID_BYTES: Final = 12
MAX_TRIES: Final = 5

NewOption = Annotated[dict[str, Any], Body(), schemas.NEW_OPTION]
OptionParts = Annotated[dict[str, Any], Body(), schemas.OPTION_PARTS]


class RedeemOptionOperations:
    """Reading, adding, changing and deleting the redeem options of a tenant."""

    def __init__(self, ports: Ports, clock: Clock, randomness: Randomness) -> None:
        self._options = ports.redeem_options
        self._clock = clock
        self._randomness = randomness

    def add_to(self, operations: Operations) -> None:
        """Add the operations."""
        base = "/reward-points/{tenant}/redeemOptions"
        listed = {"description": "All redeem options.", "model": list[schemas.RedeemOption]}
        operations.add("GET", base, self.list_options, access=ANY_TOKEN, tag=TAG, success=listed)
        operations.add("POST", base, self.create_option, access=MANAGE, tag=TAG, success=listed)
        operations.add(
            "PUT", f"{base}/{{redeemOptionId}}", self.change_option, access=MANAGE, tag=TAG, errors=(404, 409),
            conflict=schemas.OPTION_CHANGED, success={"description": "The option is as asked for."},
        )  # fmt: skip
        operations.add(
            "DELETE", f"{base}/{{redeemOptionId}}", self.delete_option, access=MANAGE, tag=TAG, status=204,
            errors=(400,), success={"description": "There is no such option any more."},
        )  # fmt: skip

    async def list_options(self, request: Request, _tenant: Tenant) -> Response:
        """The tenant's redeem options, each with its coupon."""
        return json_answer(options_view(await self._options.all(principal_of(request).tenant)))

    async def create_option(
        self,
        request: Request,
        _tenant: Tenant,
        body: NewOption,
    ) -> Response:
        """Add a redeem option; answers the whole list."""
        own_tenant = principal_of(request).tenant
        now = to_milliseconds(self._clock())
        option = RedeemOption(
            tenant=own_tenant,
            id=self._randomness(OPTION_ID_BYTES).hex(),
            content=option_content(body),
            version=1,
            created_at=now,
            modified_at=now,
        )
        await self._options.create(option)
        return json_answer(options_view(await self._options.all(own_tenant)))

    async def change_option(
        self,
        request: Request,
        _tenant: Tenant,
        option_id: OptionId,
        body: OptionParts,
    ) -> Response:
        """Change a redeem option: the fields sent are laid over the stored ones.

        With `metadata.version` only while the option still has that version. Repeating a change is answered 200.
        """
        wanted_version = _version(body)
        for _ in range(MAX_TRIES):
            stored = await self._options.find(principal_of(request).tenant, option_id)
            if stored is None:
                raise Missing(f"No redeem option found with id {option_id}")
            content = merged_content(stored.content, body)
            if content == stored.content:
                return Response()
            if wanted_version not in (None, stored.version):
                break
            changed = replace(
                stored, content=content, version=stored.version + 1, modified_at=to_milliseconds(self._clock())
            )
            if await self._options.replace(changed, stored_version=stored.version):
                return Response()
        raise OptionChanged(option_id)

    async def delete_option(
        self,
        request: Request,
        _tenant: Tenant,
        option_id: OptionId,
    ) -> Response:
        """Delete a redeem option. Repeating it changes nothing."""
        await self._options.delete(principal_of(request).tenant, option_id)
        return Response(status_code=204)


def _version(body: Mapping[str, Any]) -> int | None:
    metadata = body.get("metadata")
    if metadata is None:
        return None
    version = metadata.get("version") if isinstance(metadata, Mapping) else metadata
    if version is None or (isinstance(version, int) and not isinstance(version, bool)):
        return version
    raise BadRequest("metadata.version: must be a whole number")
