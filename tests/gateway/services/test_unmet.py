"""What a tool uses is noted for its owner for as long as it is not there, as far as its domain may know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.catalog import Report, State, Step, Tool
from gateway.services.unmet import unmet
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.api.options.v1 import options_pb2 as options
from tests.gateway.services.world import DOC_SEARCH, ENGINEER, ESCALATIONS, Mesh, by, mesh, small_mesh

if TYPE_CHECKING:
    from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceAsyncStub

TOOLS = small_mesh()
FOUND = f"{DOC_SEARCH}/{TOOLS[DOC_SEARCH].methods[0].name}"
HIDDEN = f"{ESCALATIONS}/{TOOLS[ESCALATIONS].methods[0].name}"


def using(*names: str, domain: str = "handbook") -> Tool:
    method = TOOLS[DOC_SEARCH].methods[0]
    stated = options.Method(uses=names)
    return replace(
        TOOLS[DOC_SEARCH],
        service=f"acme.{domain}.v1.User",
        domain=domain,
        methods=(replace(method, options=stated),),
    )


@pytest.mark.parametrize(
    ("tool", "tools", "noted"),
    [
        pytest.param(using(FOUND), TOOLS, "", id="there"),
        pytest.param(using(FOUND), {}, f"`{FOUND}`, not known here", id="not there"),
        pytest.param(using(f"{DOC_SEARCH}/Nothing"), TOOLS, "Nothing`, not known here", id="no such method"),
        pytest.param(using("grpc.health.v1.Health/Check"), {}, "", id="the mesh's own"),
        pytest.param(using(HIDDEN), TOOLS, f"`{HIDDEN}`, not known here", id="hidden by another domain"),
        pytest.param(using(HIDDEN, domain=TOOLS[ESCALATIONS].domain), TOOLS, "", id="hidden by its own domain"),
        pytest.param(using(*(f"acme.a.v1.B/C{number}" for number in range(12))), TOOLS, "more, not known", id="many"),
    ],
)
def test_what_a_tool_uses_and_may_not_know_of_is_noted(tool: Tool, tools: Mapping[str, Tool], noted: str) -> None:
    found = unmet(tool, tools)
    assert (noted in found) if noted else found == ""


async def test_what_a_tool_uses_may_join_after_it() -> None:
    user = using(FOUND, domain="engineering")
    steps = tuple(Step(name, passed=True, service=user.service) for name in ("own", "options"))
    reports = [Report(user.endpoints[0], State.READY, steps, (user.service,))]

    async def note(running: Mesh) -> str:
        catalog: CatalogServiceAsyncStub = CatalogServiceStub(running.services)
        told = await catalog.ListEndpoints(pb.ListEndpointsRequest(), metadata=by(ENGINEER))
        [endpoint] = told.endpoints
        return next(step.message for step in endpoint.steps if step.name == "options")

    async with mesh(user, reports=reports) as running:
        assert "not known here" in await note(running)
        await running.post(user, TOOLS[DOC_SEARCH], reports=reports)
        assert await note(running) == ""
