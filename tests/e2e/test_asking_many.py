"""One question to every retrieval tool of a whole mesh, by those who ask: a program, the command line, a tool."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import llmesh
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest, RetrieveResponse
from llmesh.identity import DevCaller
from tests.e2e.mesh import READER, REPO, RunningMesh, running_mesh

if TYPE_CHECKING:
    from acme.support.v1 import answer_pb2

DOCS, PACKAGES, HANDBOOK = (
    "acme.engineering.v1.DocSearch",
    "acme.engineering.v1.PackageSearch",
    "acme.handbook.v1.HandbookSearch",
)
TICKETS, ANSWERS = "acme.support.v1.Tickets", "acme.support.v1.Answers"
EDITOR = DevCaller("eve", roles=("editor",), domain="support")
NO_GO_BETWEEN = f"""
  - id: no-go-between
    effect: forbid
    applies: {{services: [{HANDBOOK}]}}
    when: caller.actor == '{ANSWERS}' && caller.subject == 'noor'
    reason: noor reads the handbook herself
"""
NOOR = DevCaller("noor", domain="engineering")
NODE = REPO / "tests/e2e/node"
BOTH = "tool.domain in ['engineering', 'handbook']"
QUESTION = RetrieveRequest(query="how to call a tool with a timeout", limit=3)


@pytest.fixture(scope="module")
def mesh() -> Iterator[RunningMesh]:
    with running_mesh(start=False) as running:
        with (running.folder / "policies/mesh.yaml").open("a") as rules:
            rules.write(NO_GO_BETWEEN)
        running.start_gateway()
        running.start_envoy()
        paths = "engineering/doc_search", "engineering/package_search", "handbook/search"
        for path in (*paths, "support/tickets", "support/answer"):
            running.start_tool(path)
        running.wait_ready(DOCS, PACKAGES, HANDBOOK, TICKETS, ANSWERS)
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


async def answered(
    mesh: RunningMesh, caller: DevCaller, *, text: str = "", title: str = ""
) -> tuple[answer_pb2.AnswerTicketResponse, Sequence[dict[str, str]]]:
    """What answers a text, or a ticket of this title that is made first; and what it rests on."""
    from acme.support.v1 import answer_pb2
    from acme.support.v1.answer_pb2_grpc import AnswersStub
    from acme.support.v1.tickets_pb2 import CreateTicketRequest
    from acme.support.v1.tickets_pb2_grpc import TicketsStub

    request = answer_pb2.AnswerTicketRequest(text=text)
    if title:
        async with llmesh.Mesh(mesh.address, mesh.token(EDITOR)) as client:
            made = await TicketsStub(client.channel).CreateTicket(CreateTicketRequest(title=title))
            request = answer_pb2.AnswerTicketRequest(id=made.ticket.id)
    async with llmesh.Mesh(mesh.address, mesh.token(caller)) as client:
        call = AnswersStub(client.channel).AnswerTicket(request, timeout=60)
        answer = await call
        cited = dict(await call.trailing_metadata() or ())["x-llmesh-provenance"]
    return answer, json.loads(str(cited))


async def test_a_question_is_answered_from_every_domain_with_sources(mesh: RunningMesh) -> None:
    answer, cited = await answered(mesh, READER, text="how to call a tool with a timeout")

    assert not answer.unanswered
    assert len(answer.sources) == 5
    assert all(each.passage.citation.digest for each in answer.sources)
    scores = [each.passage.score for each in answer.sources]
    assert scores == sorted(scores, reverse=True)
    assert [each["tool"] for each in cited] == [each.tool for each in answer.sources]


async def test_without_a_model_server_the_passages_come_alone_and_say_why(mesh: RunningMesh) -> None:
    answer, _ = await answered(mesh, READER, text="how to call a tool with a timeout")

    assert not answer.HasField("reply")
    assert answer.note.startswith("there is no reply: no model server is on this mesh")


async def test_a_ticket_is_read_and_answered_in_the_callers_name(mesh: RunningMesh) -> None:
    answer, _ = await answered(mesh, EDITOR, title="Add a user to a group")
    assert PACKAGES in {each.tool for each in answer.sources}

    with pytest.raises(llmesh.Denied, match="callers from outside support need the clearance pii"):
        await answered(mesh, READER, title="Add a user to a group")


async def test_rules_see_for_whom_a_tool_asks_and_which_tool_it_is(mesh: RunningMesh) -> None:
    answer, _ = await answered(mesh, NOOR, text="how to call a tool with a timeout")
    async with llmesh.Mesh(mesh.address, mesh.token(NOOR)) as client:
        alone = await client.fan_out_all(QUESTION, timeout_s=60)

    assert [(each.method, each.code) for each in answer.unanswered] == [(f"{HANDBOOK}/Retrieve", "NOT_FOUND")]
    assert HANDBOOK not in {each.tool for each in answer.sources}
    assert alone.summary.answered_count == 3


def command(
    mesh: RunningMesh, *arguments: str, caller: DevCaller = READER, terminal: bool = False
) -> subprocess.CompletedProcess[str]:
    """What `llmesh fanout` says."""
    seen = {"TTY_COMPATIBLE": "1", "TERM": "xterm", "COLUMNS": "200"} if terminal else {"NO_COLOR": "1"}
    env = {**os.environ, "LLMESH_HOME": str(mesh.home.path), "LLMESH_TOKEN": mesh.token(caller), **seen}
    program = (sys.executable, "-P", "-c", "from llmesh.cli import main; main()", "fanout")
    return subprocess.run(
        (*program, *arguments, "--address", mesh.address),
        env=env,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


RETRIEVE = "llmesh.api.retrieval.v1.RetrieveRequest"
JSON = '{"query": "how to call a tool with a timeout", "limit": 2}'


@pytest.mark.parametrize("terminal", [False, True], ids=["piped", "at a terminal"])
def test_the_command_shows_a_row_for_each_tool_and_how_it_ended(mesh: RunningMesh, terminal: bool) -> None:  # noqa: FBT001
    ran = command(mesh, RETRIEVE, JSON, terminal=terminal)

    assert (ran.returncode, ran.stderr) == (0, "")
    for tool in (DOCS, PACKAGES, HANDBOOK):
        assert f"{tool}/Retrieve" in ran.stdout
    assert "3 answered: all have ended" in ran.stdout
    assert ("3 ended, " in ran.stdout) is terminal


def test_for_programs_the_command_writes_a_line_a_branch_then_the_summary(mesh: RunningMesh) -> None:
    ran = command(
        mesh, "RetrieveRequest", JSON, "--where", "tool.domain == 'engineering'", "--merge", "default", "--json"
    )

    *branches, last = map(json.loads, ran.stdout.splitlines())
    assert {each["tool"] for each in branches} == {DOCS, PACKAGES}
    for each in branches:
        assert (each["ended"], each["error"], each["attempts"]) == (True, None, 1)
        assert len(each["responses"][0]["passages"]) == 2
    assert (last["summary"]["met"], last["summary"]["answered_count"]) == (True, 2)
    assert len(last["merged"]["passages"]) == 4


def test_the_command_ends_when_enough_have_answered(mesh: RunningMesh) -> None:
    ran = command(mesh, RETRIEVE, JSON, "--quorum", "1", "--merge", "first")

    assert ran.returncode == 0
    assert ": enough have answered" in ran.stdout
    assert json.loads(ran.stdout[ran.stdout.index("\n{") :])["passages"]


def test_the_command_is_content_with_what_has_come_if_that_is_asked(mesh: RunningMesh) -> None:
    ran = command(mesh, RETRIEVE, "{}", "--best-effort")

    assert (ran.returncode, "0 answered, 3 failed: all have ended" in ran.stdout) == (0, True)
    assert command(mesh, RETRIEVE, JSON, "--best-effort", "--quorum", "1").returncode == 2


def test_the_command_has_methods_write_only_if_they_may(mesh: RunningMesh) -> None:
    asked = "acme.support.v1.CreateTicketRequest", '{"title": "by many"}'

    refused = command(mesh, *asked, caller=EDITOR)
    assert (refused.returncode, "which needs `--allow-writes`" in refused.stderr) == (1, True)
    ran = command(mesh, *asked, "--allow-writes", "--json", caller=EDITOR)

    branch, last = map(json.loads, ran.stdout.splitlines())
    assert (branch["method"], branch["responses"][0]["ticket"]["title"]) == ("CreateTicket", "by many")
    assert last["summary"]["met"]


WRONG = {
    "an unknown type": (("acme.Nothing", "{}"), "no method that you may know of takes `acme.Nothing`"),
    "no JSON": ((RETRIEVE, "{"), "the request is not JSON"),
    "another request": ((RETRIEVE, '{"quarry": 1}'), 'no field named "quarry"'),
    "a type in another case": (("retrieverequest", "{}"), f"(nearest: `{RETRIEVE}`)"),
    "a request that breaks its rules": ((RETRIEVE, "{}"), "mend the request: all who failed refuse it as it is"),
    "no merge": ((RETRIEVE, JSON, "--merge", "best"), "`best` says no merge"),
    "a merge of no field": ((RETRIEVE, JSON, "--merge", '{"concatenate": {"field": "pages"}}'), "INVALID_ARGUMENT"),
    "nobody picked": ((RETRIEVE, JSON, "--where", "false"), "NOT_FOUND"),
    "no condition": (
        (RETRIEVE, JSON, "--where", "tool."),
        "`--where` is no condition on `tool`, which has `service`, ",
    ),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_the_command_fails_in_words(mesh: RunningMesh, arguments: Sequence[str], said: str) -> None:
    ran = command(mesh, *arguments)

    assert ran.returncode == 1
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


async def ask_in_node(mesh: RunningMesh, type_name: str, request: object, *where: str) -> Sequence[Any]:
    """The lines that fanout.mjs prints."""
    assert (NODE / "node_modules").is_dir(), "run `make node` first"
    includes = f"{REPO / 'protos'}:{REPO / 'third_party'}"
    arguments = (mesh.address, mesh.token(), includes, type_name, json.dumps(request), *where)
    client = await asyncio.create_subprocess_exec("node", "fanout.mjs", *arguments, cwd=NODE, stdout=subprocess.PIPE)
    async with asyncio.timeout(60):
        said, _ = await client.communicate()
    return [json.loads(line) for line in said.splitlines()]


async def test_a_client_in_node_asks_them_with_nothing_but_proto_files(mesh: RunningMesh) -> None:
    *branches, last = await ask_in_node(mesh, RETRIEVE, {"query": "call a tool", "limit": 2}, BOTH)

    assert {each["tool"]: each["code"] for each in branches} == {DOCS: 0, PACKAGES: 0, HANDBOOK: 0}
    for each in branches:
        [answer] = each["responses"]
        assert len(answer["passages"]) == 2
        assert answer["passages"][0]["citation"]["digest"]
    assert (last["summary"]["end"], last["summary"]["answered_count"]) == ("END_ALL_ENDED", 3)


async def test_a_client_in_node_reads_why_nobody_was_asked(mesh: RunningMesh) -> None:
    [told] = await ask_in_node(mesh, RETRIEVE, {"query": "call a tool"}, "tool.domain == 'nowhere'")

    assert told["code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert "the selector does not pick" in told["message"]
