"""The loop that keeps Envoy in step with catalog and policy, with the real Envoy."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any as Untyped

import grpc
import pytest

from gateway import bearing as gateway_bearing
from gateway import compiled as compiled_tools
from gateway import control as gateway_control
from gateway.blocks.blocks import Blocks
from gateway.blocks.words import Block, Kind, Target
from gateway.catalog import Catalog, CatalogBoard, Contract, Tool
from gateway.control import Control
from gateway.keys import TURN_S, Keys
from gateway.policy import POLL_S, PolicyError
from gateway.snapshot.blocks import Surroundings
from gateway.snapshot.build import EXTENSION, ROUTES, Resource
from gateway.snapshot.caller import VERIFY
from governance.residue import Residue
from governance.words import Caller
from llmesh.home import Home
from tests.envoy import KEYS, READS, Mesh, mesh
from tests.eventually import eventually
from tests.gateway.blocks.world import OPS, blocks_in
from tests.gateway.fakes import FakeClock
from tests.gateway.policy_files import BROKEN, Folder

TICKETS, OTHER, PLATFORM = "acme.support.v1.Tickets", "acme.support.v1.Other", "llmesh.api.catalog.v1.CatalogService"
SAM = Caller("corp", "sam")
NOBODY_READS = READS.replace("effect: permit", "effect: forbid").replace("everyone reads", "closed today")


@dataclass(slots=True)
class Controlled:
    """A mesh under control; time passes when the test says so."""

    mesh: Mesh
    folder: Folder
    control: Control
    found: CatalogBoard
    shown: CatalogBoard
    clock: FakeClock
    blocks: Blocks

    async def edit(self, name: str, text: str) -> None:
        """Edit a policy file, and let the gateway look."""
        self.folder.write(name, text)
        await self.clock.pass_(POLL_S)

    async def shows(self, service: str) -> Catalog:
        """The first shown catalog that has a service."""
        async with asyncio.timeout(60):
            async for catalog in self.shown.watch():
                if service in catalog.tools:
                    return catalog
        raise AssertionError

    async def answers(self, service: str, code: grpc.StatusCode) -> str:
        """Wait until calls to a service end with a code; its message."""

        async def answered() -> str:
            answer = await self.mesh.call(f"/{service}/Get", timeout_s=10)
            assert answer.code is code
            return answer.message

        return await eventually(answered)


@asynccontextmanager
async def controlled(path: Path) -> AsyncGenerator[Controlled]:
    folder, clock = Folder.make(path), FakeClock()
    keys = Keys(Home(path / "home").create(), clock)
    found, shown = CatalogBoard(), CatalogBoard()
    async with mesh() as running:
        platform = (running.tool(PLATFORM, domain="platform"),)
        blocks = blocks_in(path, clock)
        control = Control(found, shown, running.publisher, folder.files(), platform, keys=keys, blocks=blocks)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(control.run(clock))
            yield Controlled(running, folder, control, found, shown, clock, blocks)
            task.cancel()


async def test_a_tool_is_shown_once_it_can_be_called(tmp_path: Path) -> None:
    async with controlled(tmp_path) as made:
        tool = made.mesh.tool(TICKETS)
        await made.found.post({TICKETS: tool}, {})

        async for catalog in made.shown.watch():
            if TICKETS in catalog.tools:
                break
        await asyncio.wait_for(made.mesh.channel.channel_ready(), 60)
        assert (await made.mesh.call(f"/{TICKETS}/Get")).code is grpc.StatusCode.OK
        assert (await made.mesh.call(f"/{PLATFORM}/Get")).code is grpc.StatusCode.OK


async def test_nothing_is_published_before_anything_was_found(tmp_path: Path) -> None:
    async with controlled(tmp_path) as made:
        await made.clock.pass_(10 * POLL_S)

        assert made.mesh.publisher.revision == 0


async def test_a_rule_that_is_edited_is_in_force_and_its_reason_told(tmp_path: Path) -> None:
    async with controlled(tmp_path) as made:
        tool = made.mesh.tool(TICKETS)
        await made.found.post({TICKETS: tool}, {})
        await made.answers(TICKETS, grpc.StatusCode.OK)
        assert made.control.permitted(tool, SAM) == {"Get"}

        await made.edit("mesh.yaml", NOBODY_READS)
        assert await made.answers(TICKETS, grpc.StatusCode.PERMISSION_DENIED) == "closed today (mesh/reads)"
        assert made.control.permitted(tool, SAM) == frozenset()

        await made.edit("mesh.yaml", READS)
        await made.answers(TICKETS, grpc.StatusCode.OK)
        assert made.control.permitted(tool, SAM) == {"Get"}


async def test_only_tools_whose_rules_changed_are_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_tool, compiled = compiled_tools.build_tool, list[str]()

    def build(tool: Tool, residues: Mapping[str, Residue], **facts: Untyped) -> Mapping[str, Resource]:
        compiled.append(tool.service)
        return build_tool(tool, residues, **facts)

    monkeypatch.setattr(compiled_tools, "build_tool", build)
    closed = "{id: closed, effect: forbid, reason: closed today, applies: {services: [" + TICKETS + "]}}"
    async with controlled(tmp_path) as made:
        await made.found.post({name: made.mesh.tool(name) for name in (TICKETS, OTHER)}, {})
        await made.answers(TICKETS, grpc.StatusCode.OK)
        assert sorted(compiled) == sorted([TICKETS, OTHER, PLATFORM])

        compiled.clear()
        await made.edit("mesh.yaml", READS.replace("rules: [", f"rules: [{closed}, "))
        assert await made.answers(TICKETS, grpc.StatusCode.PERMISSION_DENIED) == "closed today (mesh/closed)"
        await made.answers(OTHER, grpc.StatusCode.OK)
        assert compiled == [TICKETS]


async def test_delegation_keys_that_are_turned_over_reach_envoy_though_nothing_else_changed(tmp_path: Path) -> None:
    async with controlled(tmp_path) as made:
        await made.found.post({TICKETS: made.mesh.tool(TICKETS)}, {})
        await made.shows(TICKETS)
        before = made.mesh.publisher.wanted(EXTENSION)[VERIFY]

        made.clock.stand_still(TURN_S)
        await made.clock.pass_(POLL_S)

        async def published() -> None:
            assert made.mesh.publisher.wanted(EXTENSION)[VERIFY] != before

        await eventually(published)


async def test_a_broken_edit_changes_nothing_for_callers(tmp_path: Path) -> None:
    async with controlled(tmp_path) as made:
        await made.found.post({TICKETS: made.mesh.tool(TICKETS)}, {})
        await made.answers(TICKETS, grpc.StatusCode.OK)
        before = made.control.loaded

        await made.edit("mesh.yaml", BROKEN)

        assert made.control.loaded is before
        await made.answers(TICKETS, grpc.StatusCode.OK)


async def test_a_tool_that_is_gone_is_unknown(tmp_path: Path) -> None:
    async with controlled(tmp_path) as made:
        await made.found.post({TICKETS: made.mesh.tool(TICKETS)}, {})
        await made.answers(TICKETS, grpc.StatusCode.OK)

        await made.found.post({}, {})

        await made.answers(TICKETS, grpc.StatusCode.UNIMPLEMENTED)
        await made.answers(PLATFORM, grpc.StatusCode.OK)


async def test_whether_a_tool_may_act_is_not_known_of_what_is_not_there_or_hidden_from_it(tmp_path: Path) -> None:
    async with controlled(tmp_path) as made:
        tool, hidden = made.mesh.tool(TICKETS), made.mesh.tool(OTHER, hidden=True)
        known, nobody = Caller("llmesh", "acme.support.v1.Actor", domain="support"), Caller()

        assert made.control.may_act(tool, "Get", known)
        assert made.control.may_act(hidden, "Get", known)
        assert made.control.may_act(tool, "Get", nobody) is False
        assert made.control.may_act(hidden, "Get", nobody) is None
        assert made.control.may_act(tool, "Gone", known) is None


async def test_a_tool_cannot_take_the_place_of_the_platforms(tmp_path: Path) -> None:
    async with controlled(tmp_path) as made:
        impostor = replace(made.mesh.tool(PLATFORM, domain="support"), contract=Contract("the impostor's", ()))
        await made.found.post({PLATFORM: impostor, TICKETS: made.mesh.tool(TICKETS)}, {})
        await made.answers(TICKETS, grpc.StatusCode.OK)

        routes = made.mesh.publisher.wanted("type.googleapis.com/envoy.config.route.v3.RouteConfiguration")
        assert b"the impostor's" not in routes[PLATFORM].value


async def test_a_tool_that_cannot_be_compiled_is_refused_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_tool, broken = compiled_tools.build_tool, {TICKETS}

    def build(tool: Tool, residues: Mapping[str, Residue], **facts: Untyped) -> Mapping[str, Resource]:
        if tool.service in broken:
            raise ValueError("nobody thought of this")
        return build_tool(tool, residues, **facts)

    monkeypatch.setattr(compiled_tools, "build_tool", build)
    async with controlled(tmp_path) as made:
        told: list[str] = []
        made.control.compiled.on_broken = lambda service, words: told.append(f"{service} broken: {words}")
        made.control.compiled.on_mended = lambda service: told.append(f"{service} mended")
        tickets, other = made.mesh.tool(TICKETS), made.mesh.tool(OTHER)

        await made.found.post({TICKETS: tickets, OTHER: other}, {})
        await made.answers(OTHER, grpc.StatusCode.OK)
        await made.answers(TICKETS, grpc.StatusCode.UNIMPLEMENTED)
        await made.found.post({TICKETS: tickets}, {})
        await made.answers(OTHER, grpc.StatusCode.UNIMPLEMENTED)
        assert told == [f"{TICKETS} broken: the gateway cannot compile {TICKETS}: its log says why"]
        assert TICKETS not in made.shown.current.tools

        broken.clear()
        await made.found.post({TICKETS: made.mesh.tool(TICKETS)}, {})
        await made.answers(TICKETS, grpc.StatusCode.OK)
        assert told[1:] == [f"{TICKETS} mended"]


async def test_a_tool_that_envoy_refuses_is_not_shown_or_shown_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_tool, poisoned = compiled_tools.build_tool, {TICKETS}

    def build(tool: Tool, residues: Mapping[str, Residue], **facts: Untyped) -> Mapping[str, Resource]:
        built = build_tool(tool, residues, **facts)
        junk = {ROUTES: Resource(f"junk {tool.sheet.summary}", b"\xff\xff\xff")}
        return {**built, **junk} if tool.service in poisoned else built

    monkeypatch.setattr(compiled_tools, "build_tool", build)
    async with controlled(tmp_path) as made:
        tickets, other = (made.mesh.tool(service, summary="first") for service in (TICKETS, OTHER))
        await made.found.post({TICKETS: tickets, OTHER: other}, {})
        await made.answers(OTHER, grpc.StatusCode.OK)
        assert [name for name, _ in made.mesh.refused] == [TICKETS]
        assert (await made.shows(OTHER)).tools.keys() == {OTHER}

        poisoned.symmetric_difference_update({TICKETS, OTHER})
        tickets, other = (made.mesh.tool(service, summary="second") for service in (TICKETS, OTHER))
        await made.found.post({TICKETS: tickets, OTHER: other}, {})
        catalog = await made.shows(TICKETS)
        assert [name for name, _ in made.mesh.refused] == [TICKETS, OTHER]
        assert {name: tool.sheet.summary for name, tool in catalog.tools.items()} == {TICKETS: "second", OTHER: "first"}
        assert (await made.mesh.call(f"/{OTHER}/Get")).code is grpc.StatusCode.OK


@pytest.fixture
def refused_hidden_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Envoy refuses what hidden tools' rules make of what is blocked."""
    build_blocks = gateway_bearing.build_blocks

    def build(in_force: Iterable[Block], surroundings: Surroundings) -> Resource:
        poisoned = any(surroundings.hidden.values())
        return Resource("junk", b"\xff\xff\xff") if poisoned else build_blocks(in_force, surroundings)

    monkeypatch.setattr(gateway_bearing, "build_blocks", build)


@pytest.mark.usefixtures("refused_hidden_rules")
async def test_blocks_that_envoy_refuses_late_are_in_force_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with controlled(tmp_path) as made:
        hidden, other = made.mesh.tool(TICKETS, hidden=True), made.mesh.tool(OTHER)
        await made.found.post({TICKETS: hidden, OTHER: other}, {})
        await made.answers(TICKETS, grpc.StatusCode.OK)
        await made.answers(OTHER, grpc.StatusCode.OK)

        # However late Envoy answers, it is later than anybody waits.
        monkeypatch.setattr(gateway_control, "SHOW_AFTER_S", 0.0)
        await made.blocks.block(Target(Kind.TOOL, TICKETS), "it leaks", by=OPS)
        await made.answers(TICKETS, grpc.StatusCode.UNIMPLEMENTED)
        await made.blocks.block(Target(Kind.TOOL, OTHER), "it lies", by=OPS)
        await made.answers(OTHER, grpc.StatusCode.PERMISSION_DENIED)


@pytest.mark.usefixtures("refused_hidden_rules")
async def test_blocks_that_envoy_refuses_for_a_hidden_tools_rules_are_in_force_without_them(tmp_path: Path) -> None:
    async with controlled(tmp_path) as made:
        hidden, other = made.mesh.tool(TICKETS, hidden=True), made.mesh.tool(OTHER)
        await made.found.post({TICKETS: hidden, OTHER: other}, {})
        await made.answers(TICKETS, grpc.StatusCode.OK)

        await made.blocks.block(Target(Kind.TOOL, TICKETS), "it leaks", by=OPS)
        await made.answers(TICKETS, grpc.StatusCode.UNIMPLEMENTED)
        assert await made.control.enforce_blocks()
        await made.blocks.block(Target(Kind.TOOL, OTHER), "it lies", by=OPS)
        await made.answers(OTHER, grpc.StatusCode.PERMISSION_DENIED)
        await made.blocks.unblock(Target(Kind.TOOL, TICKETS), by=OPS)
        await made.answers(TICKETS, grpc.StatusCode.OK)
        await made.answers(OTHER, grpc.StatusCode.PERMISSION_DENIED)


ENDS = """
import sys
import gateway.{module} as part
from gateway import __main__ as gateway

async def end(*_):
    {how}

part.{name}.run = end
sys.argv = ["gateway", "--home", {home!r}, "--mesh-file", {mesh!r}]
gateway.main()
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for sockets; tmp_path may not."""
    with tempfile.TemporaryDirectory(prefix="llmesh-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("how", ["raise ValueError('nobody thought of this')", "return"])
@pytest.mark.parametrize(("module", "name"), [("control", "Control"), ("discovery.discovery", "Discovery")])
async def test_a_gateway_of_which_a_part_ends_ends(short: Path, module: str, name: str, how: str) -> None:
    folder = Folder.make(short)
    mesh_file = short / "mesh.yaml"
    mesh_file.write_text(f"listen: 127.0.0.1:8700\npolicies: {folder.policies}\n")
    program = ENDS.format(module=module, name=name, how=how, home=str(folder.home.path), mesh=str(mesh_file))

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE)
    try:
        _, said = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()

    assert process.returncode == 1
    assert ("nobody thought of this" if how != "return" else "a part of the gateway ended") in said.decode()
    assert [json.loads(line)["event"] for line in said.splitlines()][-1] == "gateway failed"


@pytest.mark.parametrize("module", ["gateway", "gateway.bootstrap"])
async def test_a_gateway_that_cannot_start_says_why_in_its_log_and_in_words_to_who_asks(
    tmp_path: Path, module: str
) -> None:
    mesh_file = tmp_path / "mesh.yaml"
    mesh_file.write_text("listen: 127.0.0.1:8700\nprocesess: []\n")
    argv = (sys.executable, "-m", module, "--home", str(tmp_path), "--mesh-file", str(mesh_file))

    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()

    assert process.returncode == 1
    error = json.loads(said)["error"] if module == "gateway" else said.decode().removeprefix("gateway: ")
    assert error.startswith(f"{mesh_file}:2: `procesess`")


async def test_without_any_policy_there_is_no_gateway(tmp_path: Path) -> None:
    folder = Folder.make(tmp_path)
    folder.write("mesh.yaml", BROKEN)
    async with mesh(xds=False) as running:
        with pytest.raises(PolicyError):
            Control(CatalogBoard(), CatalogBoard(), running.publisher, folder.files(), (), keys=KEYS)
