"""Searches on a whole mesh with a model server: by meanings, through the mesh, and on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import llmesh
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.api.model.v1 import model_pb2 as model
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceServicer
from tests.e2e.mesh import ECHO, RunningMesh
from tests.eventually import eventually

if TYPE_CHECKING:
    from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceAsyncStub

MODELS, CATALOG = "llmesh.api.model.v1.ModelService", "llmesh.api.catalog.v1.CatalogService"


class Models(ModelServiceServicer):
    """A model that takes an echo for a reverberation."""

    def __init__(self) -> None:
        self.callers: list[llmesh.Caller] = []

    async def Embed(self, request: model.EmbedRequest, context: object) -> model.EmbedResponse:
        self.callers.append(llmesh.current_call().caller)
        near = [any(word in text.lower() for word in ("echo", "reverberation")) for text in request.texts]
        vectors = [model.Vector(values=[1, 0] if each else [0, 1]) for each in near]
        made = model.Provenance(model="toy", revision="1", weights_digest="sha256:0")
        return model.EmbedResponse(vectors=vectors, dimension=2, provenance=made)


@asynccontextmanager
async def serving(mesh: RunningMesh, models: Models) -> AsyncGenerator[CatalogServiceAsyncStub]:
    async with (
        llmesh.Server(models, home=mesh.home, name="models"),
        llmesh.Mesh(mesh.address, mesh.token()) as client,
    ):
        await asyncio.to_thread(mesh.wait_ready, MODELS, ECHO)
        yield CatalogServiceStub(client.channel)


async def by_meaning(stub: CatalogServiceAsyncStub) -> pb.SearchToolsResponse:
    response = await stub.SearchTools(pb.SearchToolsRequest(query="reverberation"))
    assert response.words_alone == ""
    return response


async def test_a_tool_is_found_by_what_it_means_and_the_model_is_asked_for_the_caller(mesh: RunningMesh) -> None:
    models = Models()  # pyright: ignore[reportAbstractUsage] the rest is not asked
    async with serving(mesh, models) as stub:
        found = await eventually(lambda: by_meaning(stub))
        assert found.results[0].tool.service == ECHO
    asked_for = {(caller.subject, caller.actor) for caller in models.callers}
    # The mesh itself asked what its tools mean, and the reader what the query does.
    assert asked_for == {(CATALOG, ""), ("ada", CATALOG)}


async def test_words_find_tools_once_the_model_server_has_gone(mesh: RunningMesh) -> None:
    async with serving(mesh, Models()) as stub:  # pyright: ignore[reportAbstractUsage] the rest is not asked
        await eventually(lambda: by_meaning(stub))
    async with llmesh.Mesh(mesh.address, mesh.token()) as client:

        async def without() -> None:
            response = await CatalogServiceStub(client.channel).SearchTools(pb.SearchToolsRequest(query="echo"))
            assert response.words_alone == "no model server is on the mesh"
            assert response.results[0].tool.service == ECHO

        await eventually(without)
