"""Fan-outs on the whole mesh: what tools see of them, whom they are made for, and what the records say."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as echo
from acme.testing.v1.echo_pb2_grpc import EchoStub
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.mesh.v1.mesh_pb2_grpc import MeshServiceStub
from llmesh.api.records.v1 import records_pb2 as records
from llmesh.api.records.v1.records_pb2_grpc import RecordServiceStub
from llmesh.caller import read_metadata
from llmesh.identity import DevCaller
from tests.e2e.mesh import ECHO, OUTSIDER, READER, Metadata, RunningMesh, running_mesh
from tests.eventually import eventually

FROM_THIS_MACHINE = """
version: 1
domain: testing
default: inherit
rules:
  - id: from-this-machine
    effect: forbid
    when: context.address != '127.0.0.1'
    reason: nobody calls from elsewhere
"""


def fan_out(
    mesh: RunningMesh, request: Message, *, caller: DevCaller = READER, more: Metadata = (), **asked: object
) -> tuple[str, list[pb.FanOutResponse]]:
    """The call's id, and all that it tells."""
    packed = Any()
    packed.Pack(request)
    with grpc.insecure_channel(mesh.address) as channel:
        call = MeshServiceStub(channel).FanOut(
            pb.FanOutRequest(request=packed, **asked),  # pyright: ignore[reportArgumentType]
            metadata=(*mesh.bearer(caller), *more),
            timeout=60,
        )
        told = list(call)
        return read_metadata(call.initial_metadata())["x-llmesh-call-id"], told


def test_a_tool_sees_of_a_branch_what_it_sees_of_a_call(mesh: RunningMesh) -> None:
    with grpc.insecure_channel(mesh.address) as channel:
        alone = EchoStub(channel).WhoAmI(echo.WhoAmIRequest(), metadata=mesh.bearer(), timeout=30)
    _, told = fan_out(mesh, echo.WhoAmIRequest())

    (branch,) = (each for message in told for each in message.branches)
    seen = echo.WhoAmIResponse()
    assert branch.responses[0].Unpack(seen)
    assert seen.call_id == branch.call_id
    # Envoy says the last of callers of the mesh port alone.
    differ = {"x-llmesh-parent", "x-envoy-external-address"}
    assert set(seen.metadata_keys) - differ == set(alone.metadata_keys) - differ
    for answer in (seen, alone):
        answer.ClearField("call_id")
        answer.ClearField("metadata_keys")
    assert seen == alone


def test_whom_the_rules_let_in_nowhere_gets_nothing_by_a_fan_out(mesh: RunningMesh) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        fan_out(mesh, echo.WhoAmIRequest(), caller=OUTSIDER)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_records_of_branches_have_the_fan_out_as_their_parent(mesh: RunningMesh) -> None:
    call_id, told = fan_out(mesh, echo.UnaryRequest(text="hello"))
    branches = {each.call_id for message in told for each in message.branches}

    async def is_recorded() -> None:
        with grpc.insecure_channel(mesh.address) as channel:
            asked = records.GetTreeRequest(call_id=call_id)
            tree = RecordServiceStub(channel).GetTree(asked, metadata=mesh.bearer(), timeout=10)
        ended = [each for each in tree.records if each.phase == records.Record.PHASE_END]
        assert {(each.service, each.parent) for each in ended} == {
            ("llmesh.api.mesh.v1.MeshService", ""),
            (ECHO, call_id),
        }
        assert branches <= {each.call_id for each in ended}
        assert {each.caller.actor for each in ended} == {""}

    asyncio.run(eventually(is_recorded, within_s=30))


def test_a_branch_comes_from_where_its_caller_does() -> None:
    with running_mesh(start=False) as running:
        (running.folder / "policies/domains/testing.yaml").write_text(FROM_THIS_MACHINE)
        running.start_gateway()
        running.start_envoy()
        running.start_echo()
        running.wait_ready(ECHO)

        elsewhere = ("x-forwarded-for", "192.0.2.1")
        _, told = fan_out(running, echo.UnaryRequest(text="hello"), more=(elsewhere,))

        (branch,) = (each for message in told for each in message.branches)
        assert branch.status.code == 0, branch
