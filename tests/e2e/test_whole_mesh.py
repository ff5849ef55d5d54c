"""`llmesh up` with the reference tools, called as their pages say, and what it does when a part dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from acme.writing.v1 import text_pb2
from acme.writing.v1.text_pb2_grpc import TextStub

from llmesh._client import open_channel
from llmesh.home import Home
from llmesh.identity import DEV, DevIssuer
from llmesh.supervisor.processes import ProcessId, marked
from llmesh.supervisor.state import read_state
from llmesh.supervisor.supervise import MARK
from tests.e2e.mesh import REPO, free_port
from tests.eventually import eventually

TOOLS = {
    "doc_search": "engineering/doc_search",
    "package_search": "engineering/package_search",
    "handbook": "handbook/search",
    "answer": "support/answer",
    "tickets": "support/tickets",
    "text": "writing/text",
}
COMMAND_TIMEOUT_S = 90
# Patience, and no promise.
BACK_WITHIN_S = 60.0


KEPT_OUT = """
  - id: kept-out
    effect: forbid
    applies: {services: [acme.engineering.v1.DocSearch]}
    when: caller.subject == 'max'
    reason: max has read enough
"""


@dataclass(frozen=True)
class Command:
    """The installed command, for one mesh."""

    home: Home

    def __call__(self, *arguments: str) -> str:
        """What it prints. Raises CalledProcessError, with what it says."""
        program = (sys.executable, "-P", "-c", "from llmesh.cli import main; main()")
        env = {**os.environ, "LLMESH_HOME": str(self.home.path), "NO_COLOR": "1"}
        ran = subprocess.run(
            (*program, *arguments), env=env, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
        if ran.returncode:
            raise subprocess.CalledProcessError(ran.returncode, arguments, ran.stdout, ran.stderr)
        return ran.stdout

    def call(self, method: str, request: object = None, *, as_: str = "dev") -> Sequence[Any]:
        """The answers of `llmesh call`, as the caller of that name."""
        said = self("call", method, json.dumps(request or {}), "--json", "--as", as_)
        return [json.loads(line) for line in said.splitlines()]


@pytest.fixture(scope="module")
def llmesh() -> Iterator[Command]:
    """A mesh that is up, and ends with every one of its processes."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        home = Home.find(folder / "m")
        processes = "".join(f"  - {{name: {tool}, folder: {REPO}/tools/{path}}}\n" for tool, path in TOOLS.items())
        policies = folder / "policies"
        shutil.copytree(REPO / "governance/policies", policies)
        with (policies / "mesh.yaml").open("a") as rules:
            rules.write(KEPT_OUT)
        mesh_file = folder / "mesh.yaml"
        operations = f"operations: 127.0.0.1:{free_port()}\n"
        mesh_file.write_text(
            f"listen: 127.0.0.1:{free_port()}\n{operations}policies: {policies}\nprocesses:\n{processes}"
        )
        command = Command(home)
        try:
            command("up", "--detach", "--timeout", "60", "--mesh-file", str(mesh_file))
            yield command
        finally:
            command("down")
            left = [*marked(f"{MARK}={home.path}")]
            for process in left:
                os.kill(process.pid, signal.SIGKILL)
            assert left == []


def test_doc_search_finds_what_the_docs_say(llmesh: Command) -> None:
    request = {"query": "asyncio timeout", "limit": 3}
    [found] = llmesh.call("acme.engineering.v1.DocSearch/Retrieve", request)
    assert found["passages"][0]["citation"]["title"] == "asyncio.timeout"
    assert len(found["passages"]) == 3


def test_package_search_finds_what_is_installed(llmesh: Command) -> None:
    [found] = llmesh.call("acme.engineering.v1.PackageSearch/Retrieve", {"query": "add a user to a group", "limit": 3})
    assert "adduser" in [passage["attributes"]["package"] for passage in found["passages"]]


def test_handbook_finds_how_to_start_the_mesh(llmesh: Command) -> None:
    request = {"query": "how do I start the mesh", "limit": 3}
    [found] = llmesh.call("acme.handbook.v1.HandbookSearch/Retrieve", request)
    assert any("llmesh up" in passage["text"] or "make up" in passage["text"] for passage in found["passages"])


def test_text_answers_in_all_four_shapes(llmesh: Command) -> None:
    service = "acme.writing.v1.Text"
    [measured] = llmesh.call(f"{service}/Measure", {"text": "The mesh is up. Call a tool!"})
    assert measured["statistics"]["wordCount"] == "7"
    split = llmesh.call(f"{service}/Split", {"text": "今日は。元気？"})  # noqa: RUF001 as in its page
    assert [each["sentence"] for each in split] == ["今日は。", "元気？"]  # noqa: RUF001 as in its page
    [counted] = llmesh.call(f"{service}/Count", [{"chunk": "The mesh "}, {"chunk": "is up."}])
    assert counted["statistics"]["wordCount"] == "4"
    annotated = llmesh.call(f"{service}/Annotate", [{"line": "Call the the tool."}, {"line": "Fine."}])
    assert [len(each.get("notes", [])) for each in annotated] == [1, 0]


def test_tickets_are_written_by_editors_and_deleted_by_owners_alone(llmesh: Command) -> None:
    service = "acme.support.v1.Tickets"
    llmesh("login", "--as", "ed", "--role", "editor", "--domain", "support")
    request = {"title": "Cannot sign in", "priority": "PRIORITY_HIGH"}
    [made] = llmesh.call(f"{service}/CreateTicket", request, as_="ed")
    ticket = made["ticket"]["id"]
    [listed] = llmesh.call(f"{service}/ListTickets", {"state": "TICKET_STATE_OPEN"}, as_="ed")
    assert ticket in [each["id"] for each in listed["tickets"]]
    for caller in ("dev", "ed"):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            llmesh.call(f"{service}/DeleteTicket", {"id": ticket}, as_=caller)
        assert "what cannot be undone needs the role owner" in refused.value.stderr
    llmesh("login", "--as", "olga", "--role", "owner", "--domain", "support")
    assert llmesh.call(f"{service}/DeleteTicket", {"id": ticket}, as_="olga") == [{}]


def test_search_finds_a_tool_by_words(llmesh: Command) -> None:
    assert "acme.engineering.v1.DocSearch" in llmesh("tools", "search", "documentation of python")


def test_who_may_not_see_a_tool_still_reads_which_rule_keeps_it_from_them(llmesh: Command) -> None:
    llmesh("login", "--as", "max")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        llmesh("call", "acme.engineering.v1.DocSearch/Retrieve", "{}", "--as", "max")
    assert "max has read enough (mesh/kept-out)" in refused.value.stderr
    with pytest.raises(subprocess.CalledProcessError) as unknown:
        llmesh("call", "acme.engineering.v1.Nothing/Retrieve", "{}", "--as", "max")
    assert "is not on the mesh" in unknown.value.stderr
    llmesh("login", "--as", "dev", "--role", "developer", "--domain", "engineering")


def child(home: Home, name: str) -> ProcessId:
    state = read_state(home)
    assert state is not None
    return next(each.process for each in state.children if each.name == name)


def address_of(home: Home) -> str:
    state = read_state(home)
    assert state is not None
    return state.address


async def measure(home: Home) -> None:
    """One call on a connection of its own."""
    metadata = (("authorization", f"Bearer {DevIssuer.open(home).mint(DEV)}"),)
    async with open_channel(address_of(home)) as channel:
        await TextStub(channel).Measure(text_pb2.MeasureRequest(text="a"), metadata=metadata, timeout=10)


async def test_another_envoy_answers_when_it_dies(
    llmesh: Command, record_property: Callable[[str, object], None]
) -> None:
    before = child(llmesh.home, "envoy")
    os.kill(before.pid, signal.SIGKILL)
    died = time.monotonic()
    await eventually(lambda: measure(llmesh.home), within_s=BACK_WITHIN_S)
    record_property("back_after_ms", round((time.monotonic() - died) * 1000))
    assert child(llmesh.home, "envoy") != before


@pytest.mark.parametrize("name", ["gateway", "tickets"])
async def test_what_dies_is_started_again_and_others_are_left_alone(llmesh: Command, name: str) -> None:
    before = {each: child(llmesh.home, each) for each in ("gateway", "envoy", *TOOLS)}
    os.kill(before[name].pid, signal.SIGKILL)
    await measure(llmesh.home)

    async def is_back() -> None:
        assert child(llmesh.home, name).alive()
        assert child(llmesh.home, name) != before[name]

    await eventually(is_back)
    assert {each: child(llmesh.home, each) for each in before if each != name} == {
        each: process for each, process in before.items() if each != name
    }
    await measure(llmesh.home)


async def test_a_stranger_is_let_in_nowhere(llmesh: Command) -> None:
    async with open_channel(address_of(llmesh.home)) as channel:
        call = TextStub(channel).Measure(text_pb2.MeasureRequest(text="a"))
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
