"""How large messages may be: in each direction, in every call shape, compressed or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.service import EchoServicer
from google.protobuf import descriptor_pb2, descriptor_pool

import llmesh
from llmesh import _services, testing
from llmesh._sizes import MESSAGE_MAX_BYTES, Sizes, sizes_of
from llmesh.api.options.v1 import options_pb2 as options

if TYPE_CHECKING:
    from acme.testing.v1.echo_pb2_grpc import EchoAsyncStub

REQUEST, RESPONSE = 100, 50
# What a padding costs in a message beside its bytes: its field's number and its length.
FIELD = 2
WAYS = [grpc.Compression.NoCompression, grpc.Compression.Gzip]


@pytest.fixture
async def echo(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EchoAsyncStub]:
    """The echo tool with small messages."""

    def small(service: str, method: str) -> Sizes:
        return Sizes(f"{service}/{method}", REQUEST, RESPONSE)

    monkeypatch.setattr(_services, "sizes_of", small)
    async with testing.run(EchoServicer()) as tool:
        yield EchoStub(tool.channel)


def ordered(padding_bytes: int) -> pb.Orders:
    return pb.Orders(padding_bytes=padding_bytes)


@pytest.mark.parametrize("compression", WAYS, ids=["plain", "gzip"])
async def test_a_request_has_as_many_bytes_as_the_contract_says_and_no_more(
    echo: EchoAsyncStub, compression: grpc.Compression
) -> None:
    await echo.Unary(pb.UnaryRequest(padding=bytes(REQUEST - FIELD)), compression=compression)

    with pytest.raises(llmesh.InvalidCall) as refused:
        await echo.Unary(pb.UnaryRequest(padding=bytes(REQUEST - FIELD + 1)), compression=compression)
    assert refused.value.message == (
        "the request has more than 100 bytes, which is the most that acme.testing.v1.Echo/Unary takes"
    )
    assert (refused.value.reason, refused.value.metadata) == ("REQUEST_TOO_LARGE", {"max_bytes": "100"})


async def test_what_is_small_only_as_it_travels_is_too_large(echo: EchoAsyncStub) -> None:
    with pytest.raises(llmesh.InvalidCall, match="more than 100 bytes"):
        await echo.Unary(pb.UnaryRequest(padding=bytes(10_000_000)), compression=grpc.Compression.Gzip)


async def test_each_message_of_a_stream_is_held_to_the_size_and_not_their_sum(echo: EchoAsyncStub) -> None:
    fits, larger = (pb.ClientStreamRequest(text="a" * (REQUEST - FIELD + more)) for more in (0, 1))

    with pytest.raises(llmesh.ToolFailed, match="the response has more"):
        # Ten that fit make a response that does not.
        await echo.ClientStream(iter([fits] * 10))
    with pytest.raises(llmesh.InvalidCall, match=r"the most that acme\.testing\.v1\.Echo/ClientStream takes"):
        await echo.ClientStream(iter([fits, larger]))


async def test_a_stream_is_answered_up_to_the_message_that_is_too_large(echo: EchoAsyncStub) -> None:
    call = echo.Bidi(pb.BidiRequest(text="a" * size) for size in (10, REQUEST - FIELD + 1))

    found: list[str] = []
    with pytest.raises(llmesh.InvalidCall, match="more than 100 bytes"):
        found.extend([answer.text async for answer in call])
    assert found in ([], ["a" * 10])


async def test_a_response_that_is_larger_than_the_contract_says_is_the_tools_fault(echo: EchoAsyncStub) -> None:
    answer = await echo.Unary(pb.UnaryRequest(orders=ordered(RESPONSE - FIELD)))
    assert answer.ByteSize() == RESPONSE

    with pytest.raises(llmesh.ToolFailed) as failed:
        await echo.Unary(pb.UnaryRequest(orders=ordered(RESPONSE - FIELD + 1)))
    assert failed.value.message == (
        "the response has more than 50 bytes, which is the most that acme.testing.v1.Echo/Unary gives"
    )
    assert failed.value.reason == "RESPONSE_TOO_LARGE"


async def test_a_stream_of_responses_ends_before_the_one_that_is_too_large(echo: EchoAsyncStub) -> None:
    found: list[int] = []

    async def read() -> None:
        async for answer in echo.ServerStream(pb.ServerStreamRequest(padding_sizes=[1, 40, RESPONSE])):
            found.append(len(answer.padding))  # noqa: PERF401 - kept when the rest fails

    with pytest.raises(llmesh.ToolFailed, match=r"the most that acme\.testing\.v1\.Echo/ServerStream gives"):
        await read()
    assert found == [1, 40]


def test_a_contract_says_how_large_messages_may_be() -> None:
    method = descriptor_pb2.MethodDescriptorProto(name="Sized", input_type=".sized.v1.A", output_type=".sized.v1.A")
    stated = method.options.Extensions[options.method]
    stated.max_request_bytes, stated.max_response_bytes = 64, 1 << 40
    unsaid = descriptor_pb2.MethodDescriptorProto(name="Unsaid", input_type=".sized.v1.A", output_type=".sized.v1.A")
    file = descriptor_pb2.FileDescriptorProto(name="sized.proto", package="sized.v1")
    file.message_type.add(name="A")
    file.service.add(name="S", method=[method, unsaid])
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())

    assert sizes_of("sized.v1.S", "Sized") == Sizes("sized.v1.S/Sized", 64, MESSAGE_MAX_BYTES)
    for name in ("Unsaid", "Unknown"):
        assert sizes_of("sized.v1.S", name) == Sizes(f"sized.v1.S/{name}", MESSAGE_MAX_BYTES, MESSAGE_MAX_BYTES)
