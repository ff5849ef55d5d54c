"""Passages on a whole mesh with a model server: found by meaning, for their caller, and by words alone without one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

import llmesh
from llmesh.api.model.v1 import model_pb2 as model
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceServicer
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest, RetrieveResponse
from tests.e2e.mesh import REPO, RunningMesh, running_mesh
from tests.eventually import eventually

# The stubs of the tool.
sys.path.append(str(REPO / "tools/handbook/search"))

from acme.handbook.v1.handbook_search_pb2_grpc import HandbookSearchStub

MODELS, HANDBOOK = "llmesh.api.model.v1.ModelService", "acme.handbook.v1.HandbookSearch"
PAGE = "# Pets\n## Dogs\nThey bark at the postman.\n## Cats\nThey purr on the sofa.\n"


class Models(ModelServiceServicer):
    """A model that takes a hound for something that barks."""

    def __init__(self) -> None:
        self.callers: list[llmesh.Caller] = []

    async def Embed(self, request: model.EmbedRequest, context: object) -> model.EmbedResponse:
        self.callers.append(llmesh.current_call().caller)
        near = [any(word in text for word in ("hound", "bark")) for text in request.texts]
        vectors = [model.Vector(values=[1, 0] if each else [0, 1]) for each in near]
        made = model.Provenance(model="toy", revision="1", weights_digest="sha256:0")
        return model.EmbedResponse(vectors=vectors, dimension=2, provenance=made)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    root = tmp_path_factory.mktemp("pages")
    root.joinpath("README.md").write_text(PAGE)
    with running_mesh() as running:
        running.start_tool("handbook/search", "--root", str(root))
        running.wait_ready(HANDBOOK)
        yield running


async def retrieve(mesh: RunningMesh, query: str) -> RetrieveResponse:
    async with llmesh.Mesh(mesh.address, mesh.token()) as client:
        return await HandbookSearchStub(client.channel).Retrieve(RetrieveRequest(query=query), timeout=30)


async def test_passages_are_found_by_meaning_while_the_model_server_can_be_asked(mesh: RunningMesh) -> None:
    before = await retrieve(mesh, "hound")
    assert (list(before.passages), bool(before.words_alone)) == ([], True)

    models = Models()  # pyright: ignore[reportAbstractUsage] the rest is not asked
    async with llmesh.Server(models, home=mesh.home, name="models"):
        await asyncio.to_thread(mesh.wait_ready, MODELS)

        async def by_meaning() -> RetrieveResponse:
            found = await retrieve(mesh, "hound")
            assert found.words_alone == ""
            return found

        # It asks again ten seconds after it was refused, then twenty.
        found = await eventually(by_meaning, within_s=120)
        assert [passage.citation.title for passage in found.passages] == ["Pets > Dogs"]

        [gateway] = [each for each in mesh.processes if each.name == "gateway"]
        await asyncio.to_thread(gateway.kill)
        alone = await retrieve(mesh, "sofa")
        assert alone.words_alone.startswith("the model server did not take the query: the gateway is away")
        assert [passage.citation.title for passage in alone.passages] == ["Pets > Cats"]
        mesh.start_gateway()
        await eventually(by_meaning, within_s=180)
    asked_for = {(caller.subject, caller.actor) for caller in models.callers}
    # The tool itself asked what its passages mean, and the reader what the query does.
    assert {(HANDBOOK, ""), ("ada", HANDBOOK)} <= asked_for

    async def without() -> None:
        after = await retrieve(mesh, "sofa")
        assert after.words_alone
        assert [passage.citation.title for passage in after.passages] == ["Pets > Cats"]

    await eventually(without)
