"""Each kind of error, from a servicer to a client, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.service import EchoServicer
from google.protobuf import wrappers_pb2
from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]: it has stubs, but no py.typed
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

import llmesh
from llmesh import testing
from llmesh.errors import MeshError
from llmesh.status import error_from_status, status_from_error

KINDS: list[tuple[MeshError, grpc.StatusCode, dict[str, object]]] = [
    (
        llmesh.InvalidCall("bad", [llmesh.Violation("items[3].name", "is empty", "string.min_len")]),
        grpc.StatusCode.INVALID_ARGUMENT,
        {"violations": (llmesh.Violation("items[3].name", "is empty", "string.min_len"),)},
    ),
    (llmesh.Unauthenticated("who?"), grpc.StatusCode.UNAUTHENTICATED, {}),
    (llmesh.Denied("no", rule="mesh/default"), grpc.StatusCode.PERMISSION_DENIED, {"rule": "mesh/default"}),
    (
        llmesh.NotFound("no ticket", resource=("ticket", "T-1")),
        grpc.StatusCode.NOT_FOUND,
        {"resource": ("ticket", "T-1")},
    ),
    (
        llmesh.AlreadyExists("there", resource=("ticket", "T-1")),
        grpc.StatusCode.ALREADY_EXISTS,
        {"resource": ("ticket", "T-1")},
    ),
    (llmesh.FailedPrecondition("open it first"), grpc.StatusCode.FAILED_PRECONDITION, {}),
    (
        llmesh.FailedPrecondition("the answer is bad", [llmesh.Violation("name", "is empty", "string.min_len")]),
        grpc.StatusCode.FAILED_PRECONDITION,
        {"violations": (llmesh.Violation("name", "is empty", "string.min_len"),)},
    ),
    (llmesh.Conflict("changed meanwhile"), grpc.StatusCode.ABORTED, {}),
    (llmesh.Unavailable("away", retry_after_s=1.5), grpc.StatusCode.UNAVAILABLE, {"retry_after_s": 1.5}),
    (llmesh.Unavailable("away"), grpc.StatusCode.UNAVAILABLE, {"retry_after_s": None}),
    (
        llmesh.OverQuota("spent", retry_after_s=60, quota="tokens a day"),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        {"retry_after_s": 60.0, "quota": "tokens a day"},
    ),
    (llmesh.DeadlineExceeded("too slow"), grpc.StatusCode.DEADLINE_EXCEEDED, {}),
    (llmesh.Cancelled("given up"), grpc.StatusCode.CANCELLED, {}),
    (llmesh.Unimplemented("not yet"), grpc.StatusCode.UNIMPLEMENTED, {}),
    (llmesh.ToolFailed("the index is broken", reason="INDEX_BROKEN"), grpc.StatusCode.INTERNAL, {}),
]


class Failing(EchoServicer):
    """Fails in every shape with what make() returns."""

    def __init__(self, make: Callable[[], BaseException]) -> None:
        super().__init__()
        self.make = make

    async def Unary(self, request: pb.UnaryRequest, context: object) -> pb.UnaryResponse:
        raise self.make()

    async def ServerStream(
        self, request: pb.ServerStreamRequest, context: object
    ) -> AsyncIterator[pb.ServerStreamResponse]:
        yield pb.ServerStreamResponse()
        raise self.make()

    async def ClientStream(
        self, request_iterator: AsyncIterator[pb.ClientStreamRequest], context: object
    ) -> pb.ClientStreamResponse:
        async for _ in request_iterator:
            raise self.make()
        return pb.ClientStreamResponse()

    async def Bidi(
        self, request_iterator: AsyncIterator[pb.BidiRequest], context: object
    ) -> AsyncIterator[pb.BidiResponse]:
        async for _ in request_iterator:
            yield pb.BidiResponse()
            raise self.make()


async def calls(channel: grpc.aio.Channel) -> AsyncIterator[MeshError]:
    """The error of one call of each shape."""
    stub = EchoStub(channel)
    with pytest.raises(MeshError) as unary:
        await stub.Unary(pb.UnaryRequest())
    yield unary.value
    with pytest.raises(MeshError) as server_stream:
        async for _ in stub.ServerStream(pb.ServerStreamRequest()):
            pass
    yield server_stream.value
    with pytest.raises(MeshError) as client_stream:
        await stub.ClientStream(iter([pb.ClientStreamRequest(text="a")]))
    yield client_stream.value
    with pytest.raises(MeshError) as bidi:
        async for _ in stub.Bidi(iter([pb.BidiRequest(text="a")])):
            pass
    yield bidi.value


@pytest.mark.parametrize(("raised", "code", "facts"), KINDS, ids=lambda value: getattr(value, "name", None))
async def test_each_kind_arrives_as_itself_in_each_call_shape(
    raised: MeshError, code: grpc.StatusCode, facts: dict[str, object]
) -> None:
    async with testing.run(Failing(lambda: raised)) as tool:
        found = [error async for error in calls(tool.channel)]
    assert len(found) == 4
    for error in found:
        assert type(error) is type(raised)
        assert (error.code, error.message, error.reason) == (code, raised.message, raised.reason)
        assert {name: getattr(error, name) for name in facts} == facts
        assert code.name in str(error)


async def test_a_status_repeats_code_and_message_so_foreign_clients_accept_it() -> None:
    message = "größer als 100 %\nand more"
    async with testing.run(Failing(lambda: llmesh.ToolFailed(message))) as tool:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await EchoStub(tool.raw_channel).Unary(pb.UnaryRequest())
    # It raises where they differ.
    status = cast("status_pb2.Status", cast("Any", rpc_status).from_call(failed.value))
    assert status.message == message


@pytest.mark.parametrize("crash", [ValueError, KeyError, AssertionError, RecursionError, StopAsyncIteration])
async def test_an_unknown_error_tells_the_caller_its_incident_and_nothing_else(
    crash: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    async with testing.run(Failing(lambda: crash("swordfish"))) as tool:
        found = [error async for error in calls(tool.channel)]
    for error in found:
        cause = error.__cause__
        assert isinstance(cause, grpc.aio.AioRpcError)
        assert error.code is grpc.StatusCode.INTERNAL
        assert error.message == f"internal error (incident {error.metadata['incident']})"
        assert "swordfish" not in f"{cause!r}{cause.trailing_metadata()!r}"
        assert error.metadata["incident"] in [getattr(record, "incident", "") for record in caplog.records]


async def test_errors_of_a_task_group_count_as_the_first_of_them() -> None:
    group = ExceptionGroup("tasks", [ExceptionGroup("inner", [llmesh.NotFound("gone")]), llmesh.Conflict("changed")])
    async with testing.run(Failing(lambda: group)) as tool:
        with pytest.raises(llmesh.NotFound):
            await EchoStub(tool.channel).Unary(pb.UnaryRequest())


async def test_a_task_group_with_an_unknown_error_is_unknown() -> None:
    group = ExceptionGroup("tasks", [llmesh.NotFound("gone"), ValueError("swordfish")])
    async with testing.run(Failing(lambda: group)) as tool:
        with pytest.raises(llmesh.ToolFailed, match="incident"):
            await EchoStub(tool.channel).Unary(pb.UnaryRequest())


async def test_a_servicer_may_abort_in_grpcs_own_way() -> None:
    order = pb.Orders(status=pb.Status(code=9, message="first things first"))
    async with testing.run(EchoServicer()) as tool:
        with pytest.raises(llmesh.FailedPrecondition, match="first things first"):
            await EchoStub(tool.channel).Unary(pb.UnaryRequest(orders=order))


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_every_code_reaches_the_client(code: grpc.StatusCode) -> None:
    order = pb.Orders(status=pb.Status(code=code.value[0], message="as ordered"))
    async with testing.run(EchoServicer()) as tool:
        with pytest.raises(MeshError) as failed:
            await EchoStub(tool.channel).Unary(pb.UnaryRequest(orders=order))
    assert (failed.value.code, failed.value.message) == (code, "as ordered")


async def test_an_error_that_cannot_be_sent_is_an_incident() -> None:
    unsendable = llmesh.InvalidCall("bad", [llmesh.Violation("\ud800", "swordfish")])
    async with testing.run(Failing(lambda: unsendable)) as tool:
        with pytest.raises(llmesh.ToolFailed, match=r"^internal error \(incident"):
            await EchoStub(tool.channel).Unary(pb.UnaryRequest())


@given(
    message=st.text(max_size=3000),
    fields=st.lists(st.text(max_size=300), max_size=40),
    facts=st.dictionaries(st.text(max_size=20), st.text(max_size=600), max_size=4),
)
def test_a_status_always_fits_grpcs_metadata(message: str, fields: list[str], facts: dict[str, str]) -> None:
    violations = [llmesh.Violation(field, "is wrong") for field in fields]
    status = status_from_error(llmesh.InvalidCall(message, violations, metadata=facts))
    base64_and_percent_encoded = len(status.SerializeToString()) * 4 / 3 + 3 * len(status.message.encode())
    assert base64_and_percent_encoded + 2048 < 8000
    read = error_from_status(status)
    assert (read.message, read.reason) == (status.message, "INVALID_CALL")


def test_details_of_unknown_types_are_kept_packed() -> None:
    status = status_pb2.Status(code=7, message="no")
    status.details.add().Pack(wrappers_pb2.StringValue(value="kept"))
    status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    error = error_from_status(status)
    assert isinstance(error, llmesh.Denied)
    assert len(error.details) == 2
    assert len(status_from_error(error).details) == 3
