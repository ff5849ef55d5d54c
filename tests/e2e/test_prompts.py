"""A tool that a prompt alone implements, on a whole mesh: without a model server and with one; who reads the prompt."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from acme.support.v1.triage_pb2 import CATEGORY_ACCESS, URGENCY_LOW, TriageTicketRequest, TriageTicketResponse
from acme.support.v1.triage_pb2_grpc import TriageStub

import llmesh
from llmesh import Denied, Unavailable, catalog
from llmesh.api.records.v1 import records_pb2 as records
from llmesh.api.records.v1.records_pb2_grpc import RecordServiceStub
from llmesh.identity import DevCaller
from tests.e2e.mesh import READER, REPO, RunningMesh, running_mesh
from tests.e2e.recorded import AUDITOR
from tests.eventually import eventually
from tests.models import MODELS, WARNING

TRIAGE = "acme.support.v1.Triage"
AGENT = DevCaller("sam", domain="support")
TICKET = TriageTicketRequest(text="I cannot sign in.")
PROMPT = (REPO / "tools/support/triage/triage/prompts/triage.jinja").read_bytes()
DIGEST = hashlib.sha256(PROMPT).hexdigest()


@pytest.fixture(scope="module")
def mesh() -> Iterator[RunningMesh]:
    with running_mesh() as running:
        running.start_tool("support/triage")
        running.wait_ready(TRIAGE)
        yield running


@pytest.fixture
def with_models(mesh: RunningMesh) -> RunningMesh:
    """The same, from now on with a model server."""
    mesh.start("models", (sys.executable, "-m", "tests.models"), folder=REPO)
    mesh.wait_ready(MODELS)
    return mesh


async def triage(mesh: RunningMesh) -> tuple[TriageTicketResponse, list[dict[str, Any]], str]:
    """What is answered, its provenance, and the call's id."""
    async with llmesh.Mesh(mesh.address, mesh.token(AGENT)) as client:
        call = TriageStub(client.channel).TriageTicket(TICKET, timeout=60)
        answer = await call
        trailers = dict(await call.trailing_metadata() or ())
        headers = dict(await call.initial_metadata() or ())
    return answer, json.loads(str(trailers["x-llmesh-provenance"])), str(headers["x-llmesh-call-id"])


async def test_without_a_model_server_the_caller_is_told_what_to_do(mesh: RunningMesh) -> None:
    with pytest.raises(Unavailable, match=r"no model server is on this mesh.*`make model`") as caught:
        await triage(mesh)

    assert caught.value.reason == "NO_MODEL_SERVER"


async def test_a_tools_domain_reads_its_prompts_and_another_does_not(mesh: RunningMesh) -> None:
    async with llmesh.Mesh(mesh.address, mesh.token(AGENT)) as client:
        (prompt,) = await catalog.list_prompts(client.channel, service=TRIAGE)
    async with llmesh.Mesh(mesh.address, mesh.token(READER)) as client:
        with pytest.raises(Denied) as caught:
            await catalog.list_prompts(client.channel, service=TRIAGE)

    assert (prompt.name, prompt.digest, prompt.text) == ("triage", DIGEST, PROMPT.decode())
    assert list(prompt.methods) == [f"{TRIAGE}/TriageTicket"]
    assert caught.value.reason == "NOT_YOUR_DOMAIN"


async def test_a_model_that_joins_sorts_the_ticket_for_the_caller(with_models: RunningMesh) -> None:
    answer, cited, call_id = await triage(with_models)

    assert (answer.category, answer.urgency, answer.summary) == (CATEGORY_ACCESS, URGENCY_LOW, "Some summary.")
    assert cited[0] == {"prompt": "triage", "digest": DIGEST}
    assert (cited[1]["model"], cited[2]) == ("tests/tiny", {"warning": WARNING})
    await eventually(lambda: _is_told(with_models, call_id), within_s=60)


async def _is_told(mesh: RunningMesh, call_id: str) -> None:
    """The record says which prompt and model it was, and that the model was asked for the caller."""
    async with llmesh.Mesh(mesh.address, mesh.token(AUDITOR)) as client:
        asked = records.GetTreeRequest(call_id=call_id)
        tree = (await RecordServiceStub(client.channel).GetTree(asked, timeout=30)).records
    (own,) = [each for each in tree if each.call_id == call_id]
    (asking,) = [each for each in tree if each.parent == call_id]
    assert DIGEST in own.provenance
    assert "tests/tiny" in own.provenance
    assert (asking.service, asking.caller.subject, asking.caller.actor) == (MODELS, "sam", TRIAGE)
