"""A tool's contract, read by reflection under both names."""

from __future__ import annotations

import pytest
from acme.testing.v1.echo_pb2 import DESCRIPTOR as ECHO
from echo_tool.service import EchoServicer
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2 as pb  # pyright: ignore[reportMissingTypeStubs]: pyright has them

from llmesh import testing
from llmesh.api.options.v1 import options_pb2
from llmesh.reflection import V1, V1ALPHA

VERSIONS = pytest.mark.parametrize("service", [V1, V1ALPHA])


async def ask(tool: testing.ToolUnderTest, service: str, **asked: str) -> pb.ServerReflectionResponse:
    request = json_format.ParseDict(asked, pb.ServerReflectionRequest())
    reflect = tool.channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=pb.ServerReflectionRequest.SerializeToString,
        response_deserializer=pb.ServerReflectionResponse.FromString,
    )
    (answer,) = [answer async for answer in reflect(iter([request]))]
    return answer


def files_of(answer: pb.ServerReflectionResponse) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    parse = descriptor_pb2.FileDescriptorProto.FromString
    files = [parse(data) for data in answer.file_descriptor_response.file_descriptor_proto]
    return {file.name: file for file in files}


@VERSIONS
async def test_the_services_are_listed(service: str) -> None:
    async with testing.run(EchoServicer()) as tool:
        answer = await ask(tool, service, list_services="")
    assert [found.name for found in answer.list_services_response.service] == [
        "acme.testing.v1.Echo",
        "grpc.health.v1.Health",
        V1,
        V1ALPHA,
    ]


@VERSIONS
@pytest.mark.parametrize(
    "symbol", ["acme.testing.v1.Echo", "acme.testing.v1.Echo.Unary", "grpc.health.v1.Health", V1, V1ALPHA]
)
async def test_a_symbols_answer_holds_all_files_it_needs(service: str, symbol: str) -> None:
    async with testing.run(EchoServicer()) as tool:
        files = files_of(await ask(tool, service, file_containing_symbol=symbol))
    assert {name for file in files.values() for name in file.dependency} <= files.keys()
    pool = descriptor_pool.DescriptorPool()
    add(pool, files)
    assert pool.FindServiceByName(symbol.removesuffix(".Unary"))


def add(pool: descriptor_pool.DescriptorPool, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    waiting = dict(files)
    while waiting:
        ready = [name for name, file in waiting.items() if not waiting.keys() & set(file.dependency)]
        for name in ready:
            pool.Add(waiting.pop(name))


@VERSIONS
async def test_the_options_of_a_contract_are_carried(service: str) -> None:
    async with testing.run(EchoServicer()) as tool:
        files = files_of(await ask(tool, service, file_by_filename=ECHO.name))
    options = files[ECHO.name].service[0].options
    assert options.Extensions[options_pb2.tool].domain == "testing"


@VERSIONS
async def test_what_is_not_there_is_not_found(service: str) -> None:
    async with testing.run(EchoServicer()) as tool:
        for asked in ({"file_by_filename": "no.proto"}, {"file_containing_symbol": "no.Such"}, {}):
            answer = await ask(tool, service, **asked)
            assert answer.error_response.error_code == (5 if asked else 3)


async def test_v1_answers_with_its_own_messages() -> None:
    async with testing.run(EchoServicer()) as tool:
        files = files_of(await ask(tool, V1, file_containing_symbol=V1))
        pool = descriptor_pool.DescriptorPool()
        add(pool, files)
        request = message_factory.GetMessageClass(
            pool.FindMessageTypeByName("grpc.reflection.v1.ServerReflectionRequest")
        )
        response = message_factory.GetMessageClass(
            pool.FindMessageTypeByName("grpc.reflection.v1.ServerReflectionResponse")
        )
        reflect = tool.channel.stream_stream(
            f"/{V1}/ServerReflectionInfo",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        (answer,) = [answer async for answer in reflect(iter([request(list_services="")]))]
    assert len(json_format.MessageToDict(answer)["listServicesResponse"]["service"]) == 4
