"""What the mesh says of itself on its own port: reflection, health and refusals, each as the caller may see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from llmesh import Denied, InvalidCall, Mesh, MeshError, Unauthenticated
from llmesh._client import open_channel
from llmesh.identity import DevCaller
from tests.e2e.mesh import ECHO, OUTSIDER, OWNER, READER, RunningMesh

V1, V1ALPHA = "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"
PLATFORM_TOOLS = {
    "llmesh.api.blocks.v1.BlockService",
    "llmesh.api.catalog.v1.CatalogService",
    "llmesh.api.mesh.v1.MeshService",
    "llmesh.api.records.v1.RecordService",
    "grpc.health.v1.Health",
    V1,
    V1ALPHA,
}
WAIT_S = 60.0


@pytest.fixture
async def channel(mesh: RunningMesh) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(mesh.address) as opened:
        yield opened


async def reflect(
    mesh: RunningMesh, channel: grpc.aio.Channel, service: str, *requests: ServerReflectionRequest, caller: DevCaller
) -> Sequence[ServerReflectionResponse]:
    """The answers to the requests, on one stream."""
    method: grpc.aio.StreamStreamMultiCallable[ServerReflectionRequest, ServerReflectionResponse] = (
        channel.stream_stream(
            f"/{service}/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
    )
    call = method(iter(requests), timeout=WAIT_S, metadata=mesh.bearer(caller))
    return [answer async for answer in call]


def check(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse]:
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )


@pytest.mark.parametrize("service", [V1, V1ALPHA])
async def test_reflection_lists_what_the_caller_may_call(
    mesh: RunningMesh, channel: grpc.aio.Channel, service: str
) -> None:
    listing = ServerReflectionRequest(list_services="*")
    [seen] = await reflect(mesh, channel, service, listing, caller=READER)
    [outside] = await reflect(mesh, channel, service, listing, caller=OUTSIDER)
    assert {each.name for each in seen.list_services_response.service} == {ECHO, *PLATFORM_TOOLS}
    assert {each.name for each in outside.list_services_response.service} == PLATFORM_TOOLS


@pytest.mark.parametrize("service", [V1, V1ALPHA])
async def test_reflection_gives_a_contract_to_those_who_may_see_it(
    mesh: RunningMesh, channel: grpc.aio.Channel, service: str
) -> None:
    asking = ServerReflectionRequest(file_containing_symbol=ECHO)
    [seen] = await reflect(mesh, channel, service, asking, caller=READER)
    [outside] = await reflect(mesh, channel, service, asking, caller=OUTSIDER)
    files = [FileDescriptorProto.FromString(each) for each in seen.file_descriptor_response.file_descriptor_proto]
    assert "acme/testing/v1/echo.proto" in {file.name for file in files}
    assert outside.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_health_tells_of_tools_that_the_caller_may_see(mesh: RunningMesh, channel: grpc.aio.Channel) -> None:
    request = HealthCheckRequest(service=ECHO)
    answer = await check(channel)(request, metadata=mesh.bearer(READER))
    assert answer.status == HealthCheckResponse.SERVING
    hidden = check(channel)(request, metadata=mesh.bearer(OUTSIDER))
    assert await hidden.code() is grpc.StatusCode.NOT_FOUND
    whole = await check(channel)(HealthCheckRequest(), metadata=mesh.bearer(OUTSIDER))
    assert whole.status == HealthCheckResponse.SERVING


async def test_refusal_names_the_rule_and_its_reason(mesh: RunningMesh) -> None:
    async with Mesh(mesh.address, mesh.token(OUTSIDER)) as outside:
        with pytest.raises(Denied) as refused:
            await EchoStub(outside.channel).Unary(pb.UnaryRequest())
    async with Mesh(mesh.address, mesh.token(READER)) as reader:
        with pytest.raises(Denied) as unpermitted:
            await EchoStub(reader.channel).Erase(pb.EraseRequest())
    assert refused.value.metadata["rule"] == "domain/testing/no-outsiders"
    assert "outsiders may call no test tool" in refused.value.message
    assert unpermitted.value.reason == "NO_RULE_PERMITS"
    assert unpermitted.value.call_id


async def test_one_domain_owner_may_do_what_the_rules_say(mesh: RunningMesh) -> None:
    async with Mesh(mesh.address, mesh.token(OWNER)) as owner:
        assert await EchoStub(owner.channel).Erase(pb.EraseRequest()) == pb.EraseResponse()


@pytest.mark.parametrize("token", [None, "nonsense", "a.b.c"], ids=["no token", "no JWT", "broken"])
async def test_without_a_good_token_nothing_is_answered(mesh: RunningMesh, token: str | None) -> None:
    async with Mesh(mesh.address, token) as stranger:
        with pytest.raises(Unauthenticated) as refused:
            await EchoStub(stranger.channel).Unary(pb.UnaryRequest())
    assert "authorization: Bearer" in refused.value.message


async def test_a_tools_own_error_keeps_its_details(mesh: RunningMesh) -> None:
    async with Mesh(mesh.address, mesh.token(READER)) as reader:
        with pytest.raises(MeshError) as broken:
            await EchoStub(reader.channel).Unary(pb.UnaryRequest(text="a" * 1001))
        with pytest.raises(MeshError) as crashed:
            await EchoStub(reader.channel).Unary(pb.UnaryRequest(orders=pb.Orders(crash="the password is swordfish")))
    assert broken.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(broken.value, InvalidCall)
    assert [each.field for each in broken.value.violations] == ["text"]
    assert crashed.value.code is grpc.StatusCode.INTERNAL
    assert "swordfish" not in str(crashed.value)
