"""When a mesh is ready, by what its catalog says."""

from __future__ import annotations

from typing import Any

import grpc

from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceServicer
from llmesh.supervisor.ready import wait_ready
from llmesh.testing import run

SERVICES = ("acme.a.v1.A", "acme.b.v1.B")


class OneAPage(CatalogServiceServicer):
    """A catalog that has more tools than a page holds; one process serves them all."""

    async def ListTools(
        self, request: pb.ListToolsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListToolsResponse:
        at = int(request.page_token or 0)
        more = str(at + 1) if at + 1 < len(SERVICES) else ""
        return pb.ListToolsResponse(tools=[pb.Tool(service=SERVICES[at], ready_count=1)], next_page_token=more)

    async def ListEndpoints(
        self, request: pb.ListEndpointsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListEndpointsResponse:
        ready = pb.Endpoint(address="unix:/m/run/tools/one-7.sock", state=pb.Endpoint.STATE_READY, services=SERVICES)
        return pb.ListEndpointsResponse(endpoints=[ready])


async def test_a_process_is_ready_though_its_tools_are_on_the_last_page() -> None:
    async with run(OneAPage()) as mesh:  # pyright: ignore[reportAbstractUsage] the rest is not asked
        assert await wait_ready(mesh.channel, processes=["one"], timeout_s=0) == {}


async def test_a_process_that_nobody_has_heard_of_is_missing() -> None:
    async with run(OneAPage()) as mesh:  # pyright: ignore[reportAbstractUsage] the rest is not asked
        assert await wait_ready(mesh.channel, processes=["two"], timeout_s=0) == {"two": "has not registered"}
