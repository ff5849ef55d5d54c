"""Reflection of the whole mesh over a real socket, in both versions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple, cast

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from gateway.catalog import Contract
from governance.contract.digest import digest
from governance.contract.normalise import normalise
from governance.words import Caller
from tests.gateway.services.world import (
    AGENT,
    COMMON,
    DOC_SEARCH,
    DOCS,
    ENGINEER,
    ESCALATIONS,
    NOBODY,
    TICKET_TOOL,
    Mesh,
    by,
    files_of,
    mesh,
    small_mesh,
    tool_of,
)

Request = pb.ServerReflectionRequest
NOT_FOUND, INVALID_ARGUMENT = 5, 3


async def _ask(
    running: Mesh, caller: Caller, *requests: pb.ServerReflectionRequest, version: str = "v1"
) -> list[pb.ServerReflectionResponse]:
    converse = running.services.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=pb.ServerReflectionRequest.SerializeToString,
        response_deserializer=pb.ServerReflectionResponse.FromString,
    )
    return [response async for response in converse(iter(requests), metadata=by(caller))]


def _files(response: pb.ServerReflectionResponse) -> list[FileDescriptorProto]:
    files = response.file_descriptor_response.file_descriptor_proto
    return [FileDescriptorProto.FromString(data) for data in files]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        pytest.param(ENGINEER, [DOC_SEARCH, TICKET_TOOL], id="engineer"),
        pytest.param(AGENT, [ESCALATIONS, TICKET_TOOL], id="agent"),
    ],
)
async def test_services_are_those_the_caller_sees(version: str, caller: Caller, expected: list[str]) -> None:
    async with mesh(*small_mesh().values()) as running:
        [response] = await _ask(running, caller, Request(list_services="*", host="here"), version=version)
    names = [service.name for service in response.list_services_response.service]
    assert [name for name in names if name.startswith("acme.")] == expected
    assert {"grpc.reflection.v1.ServerReflection", "llmesh.api.catalog.v1.CatalogService"} <= set(names)
    assert (response.valid_host, response.original_request.list_services) == ("here", "*")


async def test_nobody_is_told_of_no_service() -> None:
    async with mesh(*small_mesh().values()) as running:
        [response] = await _ask(running, NOBODY, Request(list_services="*"))
    assert response.WhichOneof("message_response") == "list_services_response"
    assert list(response.list_services_response.service) == []


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        pytest.param(DOC_SEARCH, "acme/engineering/v1/docs.proto", id="service"),
        pytest.param(f"{DOC_SEARCH}.Find", "acme/engineering/v1/docs.proto", id="method"),
        pytest.param("acme.engineering.v1.FindRequest", "acme/engineering/v1/docs.proto", id="message"),
        pytest.param("acme.engineering.v1.FindRequest.query", "acme/engineering/v1/docs.proto", id="field"),
        pytest.param("acme.engineering.v1.Kind", "acme/engineering/v1/docs.proto", id="enum"),
        pytest.param("acme.engineering.v1.KIND_GUIDE", "acme/engineering/v1/docs.proto", id="value of an enum"),
        pytest.param("acme.support.v1.colour", "acme/support/v1/tickets.proto", id="extension"),
        pytest.param("acme.common.v1.Page", "acme/common/v1/common.proto", id="imported message"),
        pytest.param(
            "google.protobuf.FieldDescriptorProto.Type", "google/protobuf/descriptor.proto", id="nested in an import"
        ),
        pytest.param("grpc.reflection.v1.ServerReflection", "grpc/reflection/v1/reflection.proto", id="reflection v1"),
        pytest.param("grpc.health.v1.Health.Check", "grpc_health/v1/health.proto", id="health"),
    ],
)
async def test_symbol_answers_with_its_file_first_and_all_it_imports(symbol: str, file: str) -> None:
    async with mesh(*small_mesh().values()) as running:
        [response] = await _ask(running, ENGINEER, Request(file_containing_symbol=symbol))
    files = _files(response)
    assert files[0].name == file
    _link(files)


@pytest.mark.parametrize(
    "request_of_nothing",
    [
        pytest.param(Request(file_containing_symbol=ESCALATIONS), id="service not seen"),
        pytest.param(Request(file_containing_symbol=f"{ESCALATIONS}.Escalate"), id="method not seen"),
        pytest.param(Request(file_containing_symbol="acme.nowhere.v1.Nothing"), id="symbol"),
        pytest.param(Request(file_containing_symbol=""), id="empty symbol"),
        pytest.param(Request(file_by_filename="acme/nowhere.proto"), id="file"),
        pytest.param(
            Request(
                file_containing_extension=pb.ExtensionRequest(
                    containing_type="acme.support.v1.Ticket", extension_number=102
                )
            ),
            id="extension",
        ),
        pytest.param(Request(all_extension_numbers_of_type="acme.nowhere.v1.Nothing"), id="extended type"),
    ],
)
async def test_what_is_not_there_or_not_seen_is_not_found(request_of_nothing: pb.ServerReflectionRequest) -> None:
    async with mesh(*small_mesh().values()) as running:
        known = Request(file_containing_symbol=TICKET_TOOL)
        refused, after = await _ask(running, ENGINEER, request_of_nothing, known)
    assert refused.error_response.error_code == NOT_FOUND
    assert refused.original_request == request_of_nothing
    # The stream goes on.
    assert _files(after)


async def test_files_of_a_tool_that_is_not_seen_are_not_found_by_name() -> None:
    async with mesh(*small_mesh().values()) as running:
        [response] = await _ask(running, AGENT, Request(file_by_filename="acme/engineering/v1/docs.proto"))
    assert response.error_response.error_code == NOT_FOUND


async def test_request_that_asks_nothing_is_invalid() -> None:
    async with mesh() as running:
        [response] = await _ask(running, ENGINEER, Request())
    assert response.error_response.error_code == INVALID_ARGUMENT


async def test_file_leaves_out_services_that_are_not_seen() -> None:
    async with mesh(*small_mesh().values()) as running:
        for caller, expected in ((ENGINEER, ["Tickets"]), (AGENT, ["Tickets", "Escalations"])):
            [response] = await _ask(running, caller, Request(file_containing_symbol=TICKET_TOOL))
            assert [service.name for service in _files(response)[0].service] == expected


SECRETS = """
  name: "acme/support/v1/secrets.proto" package: "acme.support.v1" syntax: "proto2"
  dependency: "llmesh/api/options/v1/options.proto" dependency: "acme/support/v1/parts.proto"
  dependency: "google/protobuf/descriptor.proto"
  message_type {
    name: "OpenRequest"
    field { name: "shared" number: 1 type: TYPE_MESSAGE type_name: ".acme.support.v1.Shared" label: LABEL_OPTIONAL }
    extension_range { start: 100 end: 200 }
  }
  message_type { name: "Shared" }
  message_type { name: "Loose" field { name: "id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
  message_type {
    name: "ClosedRequest"
    nested_type { name: "Inner" enum_type { name: "E" value { name: "CLOSED_WORD" number: 0 } } }
    field { name: "part" number: 1 type: TYPE_MESSAGE type_name: ".acme.support.v1.ClosedPart" label: LABEL_OPTIONAL }
    field { name: "shared" number: 2 type: TYPE_MESSAGE type_name: ".acme.support.v1.Shared" label: LABEL_OPTIONAL }
    field { name: "own" number: 3 type: TYPE_MESSAGE type_name: ".acme.support.v1.ClosedRequest" label: LABEL_OPTIONAL }
    extension {
      name: "inner" number: 101 type: TYPE_STRING label: LABEL_OPTIONAL extendee: ".acme.support.v1.OpenRequest"
    }
    extension_range { start: 100 end: 200 }
  }
  extension {
    name: "closed_more" number: 100 type: TYPE_ENUM type_name: ".acme.support.v1.ClosedKind"
    label: LABEL_OPTIONAL extendee: ".acme.support.v1.ClosedRequest"
  }
  extension {
    name: "note" number: 50001 type: TYPE_STRING label: LABEL_OPTIONAL extendee: ".google.protobuf.MessageOptions"
  }
  enum_type { name: "ClosedKind" value { name: "CLOSED_KIND" number: 0 } }
  service {
    name: "Tickets"
    method { name: "GetTicket" input_type: ".acme.support.v1.OpenRequest" output_type: ".acme.support.v1.Shared" }
  }
  service {
    name: "Escalations"
    method { name: "Escalate" input_type: ".acme.support.v1.ClosedRequest" output_type: ".acme.support.v1.Shared" }
  }
"""
PARTS = """
  name: "acme/support/v1/parts.proto" package: "acme.support.v1" syntax: "proto3"
  message_type { name: "ClosedPart" field { name: "word" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
"""
CLOSED = (
    *("ClosedRequest", "ClosedRequest.part", "ClosedRequest.Inner", "ClosedRequest.Inner.CLOSED_WORD"),
    *("ClosedPart", "ClosedPart.word", "ClosedKind", "CLOSED_KIND", "closed_more", "ClosedRequest.inner"),
)


async def test_what_only_a_service_that_is_not_seen_uses_cannot_be_read_through_its_neighbour() -> None:
    both = [tool_of(name, SECRETS, PARTS) for name in (TICKET_TOOL, ESCALATIONS)]
    attacks = [
        *(Request(file_containing_symbol=f"acme.support.v1.{name}") for name in CLOSED),
        *(Request(all_extension_numbers_of_type=f"acme.support.v1.{name}") for name in CLOSED[:1]),
        *(
            Request(
                file_containing_extension=pb.ExtensionRequest(
                    containing_type=f"acme.support.v1.{name}", extension_number=number
                )
            )
            for name, number in (("ClosedRequest", 100), ("OpenRequest", 101))
        ),
    ]
    ways_in = [
        Request(file_containing_symbol=TICKET_TOOL),
        Request(file_containing_symbol="acme.support.v1.Loose"),
        Request(file_by_filename="acme/support/v1/secrets.proto"),
        Request(file_by_filename="acme/support/v1/parts.proto"),
    ]
    async with mesh(*both) as running:
        refused = await _ask(running, ENGINEER, *attacks)
        answers = await _ask(running, ENGINEER, *ways_in)
        told = await _ask(running, AGENT, *attacks, *ways_in)
    assert {response.error_response.error_code for response in refused} == {NOT_FOUND}
    files = [file for response in answers for file in _files(response)]
    own = [file for file in files if file.package == "acme.support.v1"]
    assert "losed" not in str(own)
    assert "CLOSED" not in str(own)
    for response in answers:
        _link(_files(response))
    kept = {message.name for file in own for message in file.message_type}
    assert kept == {"OpenRequest", "Shared", "Loose"}
    assert not any(response.HasField("error_response") for response in told)


async def test_extensions_are_found_by_type_and_number() -> None:
    asked = pb.ExtensionRequest(containing_type="acme.support.v1.Ticket", extension_number=101)
    async with mesh(*small_mesh().values()) as running:
        extension, numbers, none = await _ask(
            running,
            ENGINEER,
            Request(file_containing_extension=asked),
            Request(all_extension_numbers_of_type="acme.support.v1.Ticket"),
            Request(all_extension_numbers_of_type="acme.engineering.v1.FindRequest"),
        )
    assert _files(extension)[0].name == "acme/support/v1/tickets.proto"
    assert list(numbers.all_extension_numbers_response.extension_number) == [101]
    assert numbers.all_extension_numbers_response.base_type_name == "acme.support.v1.Ticket"
    assert list(none.all_extension_numbers_response.extension_number) == []
    assert none.WhichOneof("message_response") == "all_extension_numbers_response"


async def test_file_of_a_name_that_two_contracts_use_is_that_of_the_contract_that_answered_last() -> None:
    tools = small_mesh()
    files = files_of(COMMON.replace('"size"', '"length"'), DOCS)
    other = replace(tools[DOC_SEARCH], contract=Contract(digest(normalise(files)), normalise(files)))
    by_name = Request(file_by_filename="acme/common/v1/common.proto")
    async with mesh(other, tools[TICKET_TOOL]) as running:
        responses = await _ask(
            running,
            ENGINEER,
            Request(file_containing_symbol=DOC_SEARCH),
            by_name,
            Request(file_containing_symbol=TICKET_TOOL),
            by_name,
        )
    assert [_files(responses[i])[0].message_type[0].field[0].name for i in (1, 3)] == ["length", "size"]


async def test_tool_that_goes_is_gone_on_a_stream_that_is_open() -> None:
    async with mesh(*small_mesh().values()) as running:
        converse = running.services.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=pb.ServerReflectionRequest.SerializeToString,
            response_deserializer=pb.ServerReflectionResponse.FromString,
        )
        stream = converse(metadata=by(ENGINEER))
        answered: list[int] = []
        for _ in range(2):
            await stream.write(Request(file_containing_symbol=TICKET_TOOL))
            response = await stream.read()
            assert isinstance(response, pb.ServerReflectionResponse)
            answered.append(response.error_response.error_code)
            await running.post()
        await stream.done_writing()
    assert answered == [0, NOT_FOUND]


async def test_contract_read_by_a_reflection_client_links_and_is_the_same() -> None:
    async with mesh(*small_mesh().values()) as running:
        address = f"unix:{running.home.own(running.home.services_socket)}"
        name, read = await asyncio.to_thread(_read_as_client, address)
    assert name == DOC_SEARCH
    assert read == digest(tool_of(DOC_SEARCH, COMMON, DOCS).contract.files)


def _read_as_client(address: str) -> tuple[str, str]:
    """The service's name and the contract's digest, by grpcio's own reflection client."""
    with grpc.insecure_channel(address) as plain:
        channel = grpc.intercept_channel(plain, _AsEngineer())
        database = ProtoReflectionDescriptorDatabase(channel)
        [name] = [name for name in database.get_services() if name.startswith("acme.engineering.")]
        service = DescriptorPool(database).FindServiceByName(name)
        waiting, files = [service.file], dict[str, FileDescriptorProto]()
        while waiting:
            file = waiting.pop()
            if file.name not in files:
                files[file.name] = FileDescriptorProto.FromString(file.serialized_pb)
                waiting.extend(file.dependencies)
        return service.full_name, digest(normalise(files.values()))


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str], ...]
    credentials: grpc.CallCredentials | None = None
    wait_for_ready: bool | None = None
    compression: grpc.Compression | None = None


class _AsEngineer(grpc.StreamStreamClientInterceptor):
    """Adds the metadata that Envoy would."""

    def intercept_stream_stream(  # pyright: ignore[reportIncompatibleMethodOverride]: its types are private
        self,
        continuation: Callable[[grpc.ClientCallDetails, object], object],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: object,
    ) -> object:
        details = _Details(client_call_details.method, client_call_details.timeout, by(ENGINEER))
        return continuation(cast("grpc.ClientCallDetails", details), request_iterator)


def _link(files: Iterable[FileDescriptorProto]) -> None:
    waiting, pool = {file.name: file for file in files}, DescriptorPool()

    def add(file: FileDescriptorProto) -> None:
        for name in file.dependency:
            if name in waiting:
                add(waiting.pop(name))
        pool.Add(file)

    while waiting:
        add(waiting.pop(next(iter(waiting))))
