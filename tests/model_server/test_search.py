"""Tools are found by what people mean, through a whole mesh. With the real model."""

from __future__ import annotations

import asyncio

import llmesh
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.identity import DevCaller
from tests.e2e.mesh import ECHO, OUTSIDER, READER
from tests.eventually import eventually
from tests.model_server.commands import blocked
from tests.model_server.models import CALL_S, SERVICE, START_S, ModelServer

TEXT = "acme.writing.v1.Text"
# It shares no word with what the tool says of itself: by words alone the tool is not found.
ASKED = "condense lengthy essay"


async def search(models: ModelServer, query: str, caller: DevCaller = READER) -> tuple[list[str], str]:
    """The services that are found, best first, and why by words alone, if so."""
    async with llmesh.Mesh(models.mesh.address, models.mesh.token(caller)) as client:
        request = pb.SearchToolsRequest(query=query, limit=100)
        found = await CatalogServiceStub(client.channel).SearchTools(request, timeout=CALL_S)
    return [result.tool.service for result in found.results], found.words_alone


async def by_meaning(models: ModelServer, query: str, caller: DevCaller = READER) -> list[str]:
    """The services that are found once all that the caller sees is learnt, and the model has time for the query."""

    async def whole() -> list[str]:
        found, words_alone = await search(models, query, caller)
        assert words_alone == ""
        return found

    return await eventually(whole, within_s=START_S, pause_s=0.5)


async def test_a_question_without_a_word_of_the_tool_finds_it_while_the_model_server_is_there(
    models: ModelServer,
) -> None:
    models.mesh.start_tool("writing/text")
    await asyncio.to_thread(models.mesh.wait_ready, TEXT)
    assert (await by_meaning(models, ASKED))[0] == TEXT

    async with blocked(models, f"{SERVICE}/Embed"):
        found, words_alone = await search(models, ASKED)
        assert TEXT not in found
        assert "it raves" in words_alone
        assert (await search(models, "summarise text"))[0][0] == TEXT
    assert (await by_meaning(models, ASKED))[0] == TEXT


async def test_a_tool_that_the_caller_may_not_see_is_not_found_by_what_it_means(models: ModelServer) -> None:
    models.mesh.start_echo("echo-searched")
    await asyncio.to_thread(models.mesh.wait_ready, ECHO)
    for query in ("answer with what it was sent", "give my input back to me"):
        assert ECHO in await by_meaning(models, query)
        found = await by_meaning(models, query, OUTSIDER)
        assert found
        assert not [service for service in found if service.startswith("acme.testing.")]
