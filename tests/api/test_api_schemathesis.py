"""Schemathesis: generated requests against the API on its socket.

Over our own description every answer must be a documented one, in status, headers and body. Over a public description
(``REWARDPOINTS_TEST_PUBLIC_DESCRIPTION``, or the one file there is in ``shared/contract`` beside the repository)
there must be no server error, and no wrong body where the status is documented.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.harness import ALL_SCOPES, OPTION, Api, Signer, TestServer, build_app, fake_server, serving

TENANT, CUSTOMER = "shop", "c1"
BODY_CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
ALL_CHECKS = [*BODY_CHECKS, status_code_conformance, response_headers_conformance]
EXAMPLES = 25


def public_description() -> Path | None:
    named = os.environ.get("REWARDPOINTS_TEST_PUBLIC_DESCRIPTION")
    if named:
        return Path(named)
    found = sorted(Path(__file__).parents[3].glob("shared/contract/*openapi*.y*ml"))
    return found[0] if len(found) == 1 else None


def operations_of(document: dict[str, Any]) -> list[str]:
    methods = {"get", "put", "post", "patch", "delete"}
    return [f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item if method in methods]


OWN = build_app(fake_server(Signer("EdDSA", "unused"))).openapi()
PUBLIC_FILE = public_description()
PUBLIC: dict[str, Any] = yaml.safe_load(PUBLIC_FILE.read_text()) if PUBLIC_FILE else {"paths": {}}


@pytest.fixture(scope="module")
async def explored(signer: Signer) -> AsyncIterator[TestServer]:
    server = fake_server(signer)
    async with serving(server, build_app(server)):
        yield server


@pytest.fixture
async def api(explored: TestServer, client: httpx.AsyncClient) -> Api:
    """A tenant with an account and an option, so that generated requests find something."""
    explored.empty()
    prepared = Api(explored, client, TENANT)
    await prepared.give(CUSTOMER, 1_000)
    await prepared.call("POST", prepared.options_path, json=OPTION)
    await prepared.call("PUT", prepared.settings_path, json={"rewardpoints": {"orderValueToRewardPointsFactor": 1}})
    return prepared


def explore(document: dict[str, Any], label: str, api: Api, mode: GenerationMode, checks: list[Any]) -> int:
    """Runs generated requests of one operation, the same ones every time; returns how many. Blocks."""
    method, _, path = label.partition(" ")
    operation: APIOperation[Any, Any, Any] = schemathesis.openapi.from_dict(document)[path][method]
    token = api.customer_token(CUSTOMER) if "/public/" in path else api.token(*ALL_SCOPES)
    seen = 0

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
        nonlocal seen
        seen += 1
        if "tenant" in case.path_parameters and seen % 4:
            case.path_parameters["tenant"] = TENANT
        if "customerId" in case.path_parameters and seen % 3 == 0:
            case.path_parameters["customerId"] = CUSTOMER
        response = case.call(base_url=api.server.url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
        case.validate_response(response, checks=checks)

    run()
    return seen




@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
@pytest.mark.parametrize("label", operations_of(OWN))
async def test_our_own_description_is_kept(api: Api, label: str, mode: GenerationMode) -> None:
    assert await asyncio.to_thread(explore, OWN, label, api, mode, ALL_CHECKS)


@pytest.mark.skipif(PUBLIC_FILE is None, reason="no public description here: set REWARDPOINTS_TEST_PUBLIC_DESCRIPTION")
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
@pytest.mark.parametrize("label", operations_of(PUBLIC))
async def test_the_public_description_is_kept(api: Api, label: str, mode: GenerationMode) -> None:
    assert await asyncio.to_thread(explore, PUBLIC, label, api, mode, BODY_CHECKS)
