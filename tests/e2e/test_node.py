"""Another language: tools and a client in Node that use nothing of ours but .proto files."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from llmesh._client import open_channel
from llmesh.api.catalog.v1 import catalog_pb2 as catalog
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.identity import DevCaller
from tests.e2e.mesh import ECHO, OUTSIDER, OWNER, READER, REPO, RunningMesh, free_port, running_mesh
from tests.eventually import eventually

NODE = REPO / "tests/e2e/node"
INCLUDES = [REPO / "tests/tools/echo/protos", REPO / "protos", REPO / "third_party"]
OWN, FOREIGN = "acme.node.v1.Greeter", "foreign.v1.Greeter"
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def mesh() -> Iterator[RunningMesh]:
    """A mesh that finds two tools in Node by its file: one with LL-Mesh options, one without."""
    assert (NODE / "node_modules").is_dir(), "run `make node` first"
    with running_mesh() as running:
        own = f"unix:{running.home.tools}/greeter.sock"
        foreign = f"127.0.0.1:{free_port()}"
        start_greeter(running, own, OWN, reflection="raw")
        start_greeter(running, foreign, FOREIGN, reflection="library")
        facts = {"service": FOREIGN, "domain": "testing", "owner_team": "abroad", "effects": {"Greet": "read"}}
        running.write_file(endpoints=[{"address": own}, {"address": foreign, "services": [facts]}])
        running.start_echo()
        running.wait_ready(ECHO, OWN, FOREIGN)
        yield running


def start_greeter(mesh: RunningMesh, address: str, service: str, *, reflection: str) -> None:
    compiled = mesh.folder / f"{service}.binpb"
    proto = NODE / "protos" / service.removesuffix("Greeter").replace(".", "/") / "greeter.proto"
    includes = [f"-I{path}" for path in (NODE / "protos", REPO / "protos")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", *includes, "--include_imports"]
    subprocess.run([*protoc, f"--descriptor_set_out={compiled}", str(proto)], check=True, timeout=TIMEOUT_S)
    mesh.start(service, ("node", "tool.mjs", address, str(compiled), service, reflection), folder=NODE)


async def call(mesh: RunningMesh, path: str, name: str, *, caller: DevCaller = READER) -> str:
    """The text of the answer. StringValue has the shape of the tools' messages: one text, field 1."""
    async with open_channel(mesh.address) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[StringValue, StringValue] = channel.unary_unary(
            path, request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
        )
        return (await method(StringValue(value=name), metadata=mesh.bearer(caller), timeout=20)).value


async def tool(mesh: RunningMesh, service: str) -> catalog.Tool:
    async with open_channel(mesh.address) as channel:
        asked = catalog.GetToolRequest(service=service)
        return (await CatalogServiceStub(channel).GetTool(asked, metadata=mesh.bearer(OWNER))).tool


async def run_client(mesh: RunningMesh, method: str, request: object, *, caller: DevCaller) -> dict[str, Any]:
    """What client.mjs prints."""
    proto = INCLUDES[0] / "acme/testing/v1/echo.proto"
    arguments = (mesh.address, mesh.token(caller), str(proto), ":".join(map(str, INCLUDES)), ECHO, method)
    client = await asyncio.create_subprocess_exec(
        "node", "client.mjs", *arguments, json.dumps(request), cwd=NODE, stdout=subprocess.PIPE
    )
    async with asyncio.timeout(TIMEOUT_S):
        said, _ = await client.communicate()
    return json.loads(said)


async def test_a_tool_in_node_publishes_its_product_sheet_by_its_proto_alone(mesh: RunningMesh) -> None:
    found = await tool(mesh, OWN)
    assert (found.name, found.summary, found.domain, found.owner_team) == (
        "Node greeter", "Greets, in Node.", "testing", "Test Bench",
    )  # fmt: skip
    assert [(each.name, each.effect) for each in found.methods] == [("Greet", options.EFFECT_READ)]
    assert not found.unprotected_transport
    assert await call(mesh, f"/{OWN}/Greet", "Node") == "hello Node, says ada"


async def test_a_foreign_server_is_brought_in_by_the_mesh_file(mesh: RunningMesh) -> None:
    found = await tool(mesh, FOREIGN)
    assert (found.domain, found.owner_team, found.unprotected_transport) == ("testing", "abroad", True)
    effects = {each.name: each.effect for each in found.methods}
    assert effects == {"Greet": options.EFFECT_READ, "Forget": options.EFFECT_DESTRUCTIVE}
    assert await call(mesh, f"/{FOREIGN}/Greet", "you") == "hello you, says ada"


async def test_what_the_mesh_file_does_not_say_of_a_foreign_method_is_destructive(mesh: RunningMesh) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(mesh, f"/{FOREIGN}/Forget", "me")
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await call(mesh, f"/{FOREIGN}/Forget", "me", caller=OWNER) == ""


async def test_a_client_in_node_calls_with_a_bearer_token(mesh: RunningMesh) -> None:
    unary = await run_client(mesh, "Unary", {"text": "from Node"}, caller=READER)
    stream = await run_client(mesh, "ServerStream", {"text": "again", "count": 3}, caller=READER)
    assert [each["text"] for each in unary["answers"]] == ["from Node"]
    assert [each["text"] for each in stream["answers"]] == ["again"] * 3


async def test_a_client_in_node_reads_why_it_was_refused(mesh: RunningMesh) -> None:
    refused = await run_client(mesh, "Unary", {"text": "let me in"}, caller=OUTSIDER)
    assert refused["code"] == grpc.StatusCode.PERMISSION_DENIED.value[0]
    status = status_pb2.Status.FromString(base64.b64decode(refused["details"]))
    why = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(why)
    assert status.message == refused["message"]
    assert dict(why.metadata)["rule"] == "domain/testing/no-outsiders"
    assert dict(why.metadata)["reason"] == "outsiders may call no test tool"


async def test_a_server_that_is_taken_out_of_the_mesh_file_leaves_the_mesh(mesh: RunningMesh) -> None:
    own = f"unix:{mesh.home.tools}/greeter.sock"
    mesh.write_file(endpoints=[{"address": own}])

    async def is_gone() -> None:
        try:
            answer = await call(mesh, f"/{FOREIGN}/Greet", "you")
        except grpc.aio.AioRpcError as refused:
            answer = refused.code().name
        assert answer == "UNIMPLEMENTED"

    await eventually(is_gone)
    assert await call(mesh, f"/{OWN}/Greet", "still") == "hello still, says ada"
