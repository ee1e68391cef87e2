"""Schemathesis: generated requests against the API on its socket.

Over our own description every answer must be a documented one, in status, headers and body. Over a public description
(``REWARDPOINTS_TEST_PUBLIC_DESCRIPTION``, or the one file there is in ``shared/contract`` beside the repository)
there must be no server error, and no wrong body where the status is documented.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.harness import ALL_SCOPES, Api, Signer, TestServer, build_app, fake_server, serving

TENANT, CUSTOMER = "shop", "c1"
BODY_CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
ALL_CHECKS = [*BODY_CHECKS, status_code_conformance, response_headers_conformance]
EXAMPLES = 15


def public_description() -> Path | None:
    named = os.environ.get("REWARDPOINTS_TEST_PUBLIC_DESCRIPTION")
    if named:
        return Path(named)
    found = sorted(Path(__file__).parents[3].glob("shared/contract/*openapi*.y*ml"))
    return found[0] if len(found) == 1 else None


def operations_of(document: dict[str, Any]) -> list[Any]:
    """Each operation with valid requests, and with invalid ones where a request can be: any text is a valid id."""
    found = []
    for path, item in document["paths"].items():
        for method in sorted({"get", "put", "post", "patch", "delete"} & set(item)):
            label = f"{method.upper()} {path}"
            found.append(pytest.param(label, GenerationMode.POSITIVE, id=f"{label}-valid"))
            parameters = [_resolved(document, parameter) for parameter in item[method].get("parameters", ())]
            typed = [parameter for parameter in parameters if parameter["in"] != "path"]
            if typed or "requestBody" in item[method]:
                found.append(pytest.param(label, GenerationMode.NEGATIVE, id=f"{label}-invalid"))
    return found


def _resolved(document: dict[str, Any], parameter: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in parameter:
        return parameter
    resolved: dict[str, Any] = document["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
    return resolved


OWN = build_app(fake_server(Signer("EdDSA", "unused"))).openapi()
PUBLIC_FILE = public_description()
PUBLIC: dict[str, Any] = yaml.safe_load(PUBLIC_FILE.read_text()) if PUBLIC_FILE else {"paths": {}}


@pytest.fixture(scope="module")
async def explored(signer: Signer) -> AsyncIterator[TestServer]:
    server = fake_server(signer)
    async with serving(server, build_app(server)):
        yield server


@dataclass(frozen=True)
class Prepared:
    """An API with something to find: path parameters that name what exists."""

    api: Api
    known: dict[str, str]


@pytest.fixture
async def prepared(explored: TestServer, client: httpx.AsyncClient) -> Prepared:
    explored.empty()
    api = Api(explored, client, TENANT)
    await api.give(CUSTOMER, 1_000)
    option = await api.new_option()
    await api.call("PUT", api.settings_path, json={"rewardpoints": {"orderValueToRewardPointsFactor": 1}})
    known = {"tenant": TENANT, "customerId": CUSTOMER, "redeemOptionId": option["id"], "siteCode": "main"}
    return Prepared(api, known)


def explore(
    document: dict[str, Any], label: str, api: Api, mode: GenerationMode, checks: list[Any], *, known: dict[str, str]
) -> set[int]:
    """Runs generated requests of one operation, the same ones every time; returns the answers' statuses. Blocks.

    ``known``: values of path parameters to use in place of generated ones.
    """
    method, _, path = label.partition(" ")
    operation: Any = schemathesis.openapi.from_dict(document)[path][method]
    token = api.customer_token(CUSTOMER) if "/public/" in path else api.token(*ALL_SCOPES)
    statuses = set()
    pinned = {name: value for name, value in known.items() if f"{{{name}}}" in path}

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        case.path_parameters.update(pinned)
        response = case.call(base_url=api.server.url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
        statuses.add(response.status_code)
        case.validate_response(response, checks=checks)

    run()
    return statuses


async def explore_twice(
    prepared: Prepared, document: dict[str, Any], label: str, mode: GenerationMode, checks: list[Any]
) -> set[int]:
    """With ids that exist, then with generated ones; the tenant is always the token's."""
    statuses = set()
    for known in (prepared.known, {"tenant": TENANT}):
        statuses |= await asyncio.to_thread(explore, document, label, prepared.api, mode, checks, known=known)
    return statuses


@pytest.mark.parametrize(("label", "mode"), operations_of(OWN))
async def test_our_own_description_is_kept(prepared: Prepared, label: str, mode: GenerationMode) -> None:
    statuses = await explore_twice(prepared, OWN, label, mode, ALL_CHECKS)

    if mode is GenerationMode.NEGATIVE:
        assert 400 in statuses
    elif label not in {"POST /reward-points/public/customer/redeem", "POST /reward-points/customer/{customerId}"}:
        assert {200, 201, 204} & statuses  # the requests reached what they are for, not only its refusals


@pytest.mark.skipif(PUBLIC_FILE is None, reason="no public description here: set REWARDPOINTS_TEST_PUBLIC_DESCRIPTION")
@pytest.mark.parametrize(("label", "mode"), operations_of(PUBLIC))
async def test_the_public_description_is_kept(prepared: Prepared, label: str, mode: GenerationMode) -> None:
    assert await explore_twice(prepared, PUBLIC, label, mode, BODY_CHECKS)
