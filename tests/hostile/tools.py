"""Every hostile server on a whole mesh at once, while a good tool is called."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from gateway.sources.hold import LEAST
from llmesh import Mesh
from llmesh._client import open_channel
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from tests.e2e.mesh import ECHO, PLATFORM, REPO, RunningMesh
from tests.e2e.traffic import OK, Traffic
from tests.eventually import eventually
from tests.hostile.cases import Case, cases

# The slowest is read twice, for as long as the mesh file lets an endpoint take.
JUDGED_WITHIN_S = 60.0
# To ask for all endpoints costs the gateway something.
PAUSE_S = 0.2


def edit_mesh_file(mesh: RunningMesh, **changed: object) -> None:
    """Change parts of the mesh file, and leave the others."""
    content: dict[str, Any] = {**yaml.safe_load(mesh.file.read_text()), **changed}
    draft = mesh.file.with_suffix(".draft")
    draft.write_text(yaml.safe_dump(content))
    draft.replace(mesh.file)


@asynccontextmanager
async def hostile_tools(mesh: RunningMesh) -> AsyncGenerator[Mapping[str, Case]]:
    """All of them as endpoints of the mesh, by their addresses, once each has been judged; gone afterwards."""
    folder = mesh.folder / "hostile"
    folder.mkdir()
    known = yaml.safe_load(mesh.file.read_text())["endpoints"]
    servers = mesh.start("hostile", (sys.executable, "-m", "tests.hostile.serve", str(folder)), folder=REPO)
    found = {case.address(str(folder)): case for case in cases()}
    try:
        await eventually(lambda: _said(servers.log, "serving"))
        edit_mesh_file(mesh, endpoints=[*known, *({"address": address} for address in found)])
        await eventually(lambda: _judged(mesh, found), within_s=JUDGED_WITHIN_S, pause_s=PAUSE_S)
        yield found
    finally:
        await _take_out(mesh, list(found), known)
        servers.stop()


@asynccontextmanager
async def good_calls(mesh: RunningMesh) -> AsyncGenerator[Traffic]:
    """Calls to the echo tool, one after another, until the block ends."""
    metadata = mesh.bearer()
    async with open_channel(mesh.address) as channel:
        untyped: Any = channel
        unary = untyped.unary_unary(f"/{ECHO}/Unary")
        async with Traffic(lambda: unary(b"", metadata=metadata), at_once=1) as traffic:
            yield traffic


async def harm(mesh: RunningMesh) -> tuple[int, int, int]:
    """How much all of them harm calls to the echo tool: cases, good calls, and how many of those failed."""
    async with good_calls(mesh) as traffic:
        async with hostile_tools(mesh) as found:
            await traffic.more(100)
        await traffic.more(100)
    return len(found), traffic.outcomes.total(), traffic.outcomes.total() - traffic.outcomes[OK]


def unlike(case: Case, endpoint: pb.Endpoint) -> str:
    """How an endpoint differs from what must become of it; empty if it does not."""
    failed = {step.service: (step.name, step.reason) for step in endpoint.steps if not step.passed}
    if failed != dict(case.refused):
        return f"{case.name}: fails at {failed}, not at {dict(case.refused)}"
    if set(endpoint.services) != set(case.admitted):
        return f"{case.name}: serves {list(endpoint.services)}, not {case.admitted}"
    return ""


async def endpoints(mesh: RunningMesh) -> Mapping[str, pb.Endpoint]:
    """Every endpoint of the mesh by its address."""
    async with Mesh(mesh.address, mesh.token(PLATFORM)) as platform:
        listed = await CatalogServiceStub(platform.channel).ListEndpoints(pb.ListEndpointsRequest())
    return {endpoint.address: endpoint for endpoint in listed.endpoints}


async def _judged(mesh: RunningMesh, found: Mapping[str, Case]) -> None:
    known = await endpoints(mesh)
    wrong = [unlike(case, known.get(address, pb.Endpoint())) for address, case in found.items()]
    assert not any(wrong), "\n".join(filter(None, wrong))


async def _take_out(mesh: RunningMesh, addresses: Sequence[str], known: Sequence[object]) -> None:
    """Half at a time: where more go at once, the mesh believes that it is wrong, and keeps them."""
    while addresses:
        addresses = addresses[: (len(addresses) + 1) // 2] if len(addresses) >= LEAST else []
        edit_mesh_file(mesh, endpoints=[*known, *({"address": address} for address in addresses)])
        left = len(known) + len(addresses)
        await eventually(lambda left=left: _fewer(mesh, left), pause_s=PAUSE_S)


async def _fewer(mesh: RunningMesh, count: int) -> None:
    assert len([each for each in (await endpoints(mesh)).values() if each.source == "file"]) == count


async def _said(log: Path, word: str) -> None:
    assert word in await asyncio.to_thread(log.read_text)
