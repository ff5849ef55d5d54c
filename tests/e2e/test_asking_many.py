"""One question to every retrieval tool of a whole mesh, by those who ask: a program, the command line, a tool."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import llmesh
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest, RetrieveResponse
from tests.e2e.mesh import RunningMesh, running_mesh

DOCS, PACKAGES, HANDBOOK = (
    "acme.engineering.v1.DocSearch",
    "acme.engineering.v1.PackageSearch",
    "acme.handbook.v1.HandbookSearch",
)
BOTH = "tool.domain in ['engineering', 'handbook']"
QUESTION = RetrieveRequest(query="how to call a tool with a timeout", limit=3)


@pytest.fixture(scope="module")
def mesh() -> Iterator[RunningMesh]:
    with running_mesh() as running:
        for path in ("engineering/doc_search", "engineering/package_search", "handbook/search"):
            running.start_tool(path)
        running.wait_ready(DOCS, PACKAGES, HANDBOOK)
        yield running


async def test_every_tool_that_takes_the_question_answers_in_its_own_words(mesh: RunningMesh) -> None:
    async with llmesh.Mesh(mesh.address, mesh.token()) as client:
        told = {each.tool: each async for each in client.fan_out(QUESTION, RetrieveResponse, where=BOTH, timeout_s=60)}

    assert set(told) == {DOCS, PACKAGES, HANDBOOK}
    sources = {each.response.passages[0].citation.source for each in told.values()}
    assert len(sources) == 3
    for each in told.values():
        assert each.attempts == 1
        assert each.call_id
        assert each.provenance[0]["source"] in sources


async def test_answers_are_merged_as_the_request_says_the_best_first(mesh: RunningMesh) -> None:
    async with llmesh.Mesh(mesh.address, mesh.token()) as client:
        gathered = await client.fan_out_all(QUESTION, RetrieveResponse, where=BOTH, timeout_s=60)

    scores = [passage.score for passage in gathered.merged.passages]
    answered = [passage.score for each in gathered.branches for passage in each.response.passages]
    assert scores == sorted(answered, reverse=True)
    assert gathered.summary.answered_count == 3


def test_a_program_without_a_loop_asks_them_too(mesh: RunningMesh) -> None:
    asked = llmesh.Mesh(mesh.address, mesh.token()).fan_out(QUESTION, where="tool.domain == 'engineering'")

    assert {each.tool for each in asked} == {DOCS, PACKAGES}
    assert asked.summary.met


async def test_nobody_to_ask_is_told_before_anything_is_sent(mesh: RunningMesh) -> None:
    async with llmesh.Mesh(mesh.address, mesh.token()) as client:
        with pytest.raises(llmesh.NotFound, match="the selector does not pick"):
            await client.fan_out_all(QUESTION, where="tool.domain == 'nowhere'")
        with pytest.raises(llmesh.InvalidCall):
            await client.fan_out_all(QUESTION, where="tool.domain ==")


async def test_leaving_the_loop_leaves_nothing_open(mesh: RunningMesh) -> None:
    async with llmesh.Mesh(mesh.address, mesh.token()) as client:
        async for _ in client.fan_out(QUESTION, timeout_s=60):
            break
        again = await asyncio.wait_for(client.fan_out_all(QUESTION, timeout_s=60), 60)

    assert again.summary.answered_count == 3
