"""What a server does with a call of each shape: messages checked, caller known, provenance sent."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.service import EchoServicer

import llmesh
from llmesh import _edge, testing
from llmesh.api.registry.v1 import registry_pb2
from llmesh.api.registry.v1.registry_pb2_grpc import RegistryServiceServicer, RegistryServiceStub


async def test_all_four_call_shapes_answer() -> None:
    async with testing.run(EchoServicer()) as tool:
        stub = EchoStub(tool.channel)
        assert (await stub.Unary(pb.UnaryRequest(text="a"))).text == "a"
        streamed = [answer.index async for answer in stub.ServerStream(pb.ServerStreamRequest(count=3))]
        joined = await stub.ClientStream(pb.ClientStreamRequest(text=text) for text in "abc")
        echoed = [answer.text async for answer in stub.Bidi(pb.BidiRequest(text=text) for text in "abc")]
    assert streamed == [0, 1, 2]
    assert (joined.text, joined.count) == ("a b c", 3)
    assert echoed == ["a", "b", "c"]


async def test_a_bidirectional_stream_answers_each_request_before_the_next() -> None:
    async with testing.run(EchoServicer()) as tool:
        call = EchoStub(tool.channel).Bidi()
        for text in ("a", "b"):
            await call.write(pb.BidiRequest(text=text))
            answer = await call.read()
            assert isinstance(answer, pb.BidiResponse)
            assert answer.text == text
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize(
    ("request_message", "field", "rule"),
    [
        (pb.UnaryRequest(text="a" * 1001), "text", "string.max_len"),
        (pb.UnaryRequest(items=[pb.Item(name="a"), pb.Item()]), "items[1].name", "string.min_len"),
        (pb.UnaryRequest(items_by_name={'k"1': pb.Item()}), 'items_by_name["k\\"1"].name', "string.min_len"),
        (pb.UnaryRequest(orders=pb.Orders(status=pb.Status(code=17))), "orders.status.code", "int32.gte_lte"),
    ],
    ids=["field", "list", "map", "nested"],
)
async def test_a_request_that_breaks_a_rule_is_refused_with_the_fields_path(
    request_message: pb.UnaryRequest, field: str, rule: str
) -> None:
    async with testing.run(EchoServicer()) as tool:
        with pytest.raises(llmesh.InvalidCall) as refused:
            await EchoStub(tool.channel).Unary(request_message)
    (violation,) = refused.value.violations
    assert (violation.field, violation.rule) == (field, rule)
    assert field in refused.value.message


@pytest.mark.parametrize(("count", "told"), [(3, 3), (100_000, 1)], ids=["a few", "very many"])
async def test_of_a_large_request_no_more_is_told_than_that_it_breaks_its_rules(count: int, told: int) -> None:
    """To find all that is wrong with it took as long as minutes, in which nobody else was answered."""
    async with testing.run(EchoServicer()) as tool:
        with pytest.raises(llmesh.InvalidCall) as refused:
            await EchoStub(tool.channel).Unary(pb.UnaryRequest(items=[pb.Item()] * count))
    assert len(refused.value.violations) == told


async def test_every_message_of_a_request_stream_is_checked() -> None:
    async with testing.run(EchoServicer()) as tool:
        stub = EchoStub(tool.channel)
        with pytest.raises(llmesh.InvalidCall):
            await stub.ClientStream(iter([pb.ClientStreamRequest(text="a"), pb.ClientStreamRequest()]))
        answers = aiter(stub.Bidi(iter([pb.BidiRequest(text="a"), pb.BidiRequest()])))
        assert (await anext(answers)).text == "a"
        with pytest.raises(llmesh.InvalidCall):
            await anext(answers)


class ReadingServicer(EchoServicer):
    """Uses the context's read and write instead of iterators."""

    async def Bidi(self, request_iterator: object, context: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] the other form that gRPC allows
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(pb.BidiResponse(text=request.text))


async def test_a_servicer_that_reads_and_writes_by_itself_is_checked_too() -> None:
    async with testing.run(ReadingServicer()) as tool:
        stub = EchoStub(tool.channel)
        assert [answer.text async for answer in stub.Bidi(iter([pb.BidiRequest(text="a")]))] == ["a"]
        with pytest.raises(llmesh.InvalidCall):
            async for _ in stub.Bidi(iter([pb.BidiRequest()])):
                pass


async def test_bytes_that_are_no_message_are_an_invalid_call() -> None:
    async with testing.run(EchoServicer()) as tool:
        for data in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe"):
            with pytest.raises(llmesh.InvalidCall) as refused:
                await tool.channel.unary_unary("/acme.testing.v1.Echo/Unary")(data)
            assert refused.value.reason == "MALFORMED"


class WrongAnswer(EchoServicer):
    """Answers with a message of another type."""

    async def Unary(self, request: object, context: object) -> pb.UnaryResponse:
        return pb.EraseRequest  # type: ignore[return-value]  # pyright: ignore: wrong on purpose


async def test_an_answer_of_the_wrong_type_is_an_internal_error() -> None:
    async with testing.run(WrongAnswer()) as tool:
        with pytest.raises(llmesh.ToolFailed, match="incident"):
            await EchoStub(tool.channel).Unary(pb.UnaryRequest())


class HalfRegistry(RegistryServiceServicer):
    """Leaves methods to the generated class."""

    async def Release(self, request: object, context: object) -> registry_pb2.ReleaseResponse:
        return registry_pb2.ReleaseResponse()


async def test_unknown_and_unwritten_methods_are_unimplemented_by_path() -> None:
    async with testing.run(HalfRegistry()) as tool:  # type: ignore[abstract]  # pyright: ignore: on purpose
        with pytest.raises(llmesh.Unimplemented, match=r"RegistryService/Renew"):
            await RegistryServiceStub(tool.channel).Renew(registry_pb2.RenewRequest(lease_id="a"))
        with pytest.raises(llmesh.Unimplemented, match=r"`/no\.Such/Method`"):
            await tool.channel.unary_unary("/no.Such/Method")(b"")


async def test_the_caller_is_typed() -> None:
    caller = llmesh.Caller(
        issuer="sso",
        subject="ada",
        roles=("engineering.editor", "support.reader"),
        domain="engineering",
        clearances=("confidential",),
        actor="acme.writing.v1.Text",
    )
    async with testing.run(EchoServicer(), caller=caller) as tool:
        seen = await EchoStub(tool.channel).WhoAmI(pb.WhoAmIRequest())
        nobody = await EchoStub(tool.as_(llmesh.Caller())).WhoAmI(pb.WhoAmIRequest())
    assert (seen.issuer, seen.subject, seen.domain, seen.actor) == ("sso", "ada", "engineering", "acme.writing.v1.Text")
    assert tuple(seen.roles) == caller.roles
    assert tuple(seen.clearances) == caller.clearances
    assert (nobody.subject, list(nobody.roles)) == ("", [])


@pytest.mark.parametrize("bad", ["a,b", "a\nb", "é"])
async def test_a_caller_that_no_header_can_hold_is_refused(bad: str) -> None:
    async with testing.run(EchoServicer()) as tool:
        with pytest.raises(ValueError, match="cannot be sent"):
            tool.as_(llmesh.Caller(subject=bad))


def test_there_is_no_call_outside_a_method() -> None:
    with pytest.raises(RuntimeError, match="no call here"):
        llmesh.current_call()


async def test_the_deadline_is_known_to_the_tool() -> None:
    async with testing.run(EchoServicer()) as tool:
        stub = EchoStub(tool.channel)
        # gRPC rounds up what it sends of a deadline.
        assert 0 < (await stub.Unary(pb.UnaryRequest(), timeout=60)).remaining_ms < 61_000
        assert (await stub.Unary(pb.UnaryRequest())).remaining_ms == 0


async def test_a_deadline_that_passes_is_deadline_exceeded() -> None:
    request = pb.UnaryRequest()
    request.orders.delay.FromSeconds(30)
    async with testing.run(EchoServicer()) as tool:
        with pytest.raises(llmesh.DeadlineExceeded):
            await EchoStub(tool.channel).Unary(request, timeout=0.1)


class Endless(EchoServicer):
    """Says what it rests on, and one thing more; ended: once it is no longer at it."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()
        self.remaining_s: float | None = None

    async def ServerStream(
        self, request: pb.ServerStreamRequest, context: object
    ) -> AsyncIterator[pb.ServerStreamResponse]:
        llmesh.current_call().cite(document="a.md")
        self.remaining_s = llmesh.current_call().remaining_s
        try:
            yield pb.ServerStreamResponse(text=request.text)
            await asyncio.Event().wait()
        finally:
            self.ended.set()


async def test_a_stream_of_answers_ends_by_a_status_before_the_mesh_would_break_it_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_edge, "_EARLY_S", 59.5)
    monkeypatch.setattr(_edge, "_EARLY_SHARE", 1.0)
    endless = Endless()
    async with testing.run(endless) as tool:
        call = EchoStub(tool.raw_channel).ServerStream(pb.ServerStreamRequest(text="a"), timeout=60)
        assert await call.read() == pb.ServerStreamResponse(text="a")
        # The words are the server's: what gRPC says of a deadline of its own is something else.
        assert await call.details() == "the time that the call had is up"
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await provenance(call) == [{"document": "a.md"}]
        await asyncio.wait_for(endless.ended.wait(), 30)
    # Who plans by it plans to be done by then.
    assert endless.remaining_s is not None
    assert endless.remaining_s <= 0.5


async def test_citations_follow_an_answer_and_an_error() -> None:
    orders = pb.Orders(cite={"document": "größe.md"})
    failing = pb.Orders(cite={"document": "b.md"}, crash="swordfish")
    aborting = pb.Orders(cite={"document": "c.md"}, status=pb.Status(code=5, message="gone"))
    async with testing.run(EchoServicer()) as tool:
        stub = EchoStub(tool.channel)
        call = stub.Unary(pb.UnaryRequest(orders=orders))
        await call
        assert await provenance(call) == [{"document": "größe.md"}]
        for order, document in ((failing, "b.md"), (aborting, "c.md")):
            call = stub.Unary(pb.UnaryRequest(orders=order))
            with pytest.raises(llmesh.MeshError):
                await call
            assert await provenance(call) == [{"document": document}]


async def provenance(call: grpc.aio.Call) -> object:
    found = dict((key, value) for key, value in await call.trailing_metadata())  # noqa: C402 Metadata is no mapping
    return json.loads(found["x-llmesh-provenance"])


def test_provenance_is_cut_to_its_limit_and_says_so() -> None:
    from llmesh.call import Call

    call = Call("/a/b", llmesh.Caller(), call_id="", remaining=lambda: None, mesh=Mock())
    assert call.provenance(limit_bytes=100) == ""
    for number in range(100):
        call.cite(document=f"guide-{number}.md", revision=number)
    cut = call.provenance(limit_bytes=500)
    assert len(cut) <= 500
    assert json.loads(cut)[0] == {"document": "guide-0.md", "revision": 0}
    assert json.loads(cut)[-1] == {"truncated": True}


def test_a_call_that_cites_without_end_holds_no_more_than_it_can_send() -> None:
    from llmesh.call import PROVENANCE_MAX_BYTES, Call

    call = Call("/a/b", llmesh.Caller(), call_id="", remaining=lambda: None, mesh=Mock())
    tracemalloc.start()
    try:
        for number in range(20_000):
            call.cite(document=f"guide-{number}.md")
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 100_000
    cut = call.provenance(limit_bytes=PROVENANCE_MAX_BYTES)
    assert PROVENANCE_MAX_BYTES - 60 < len(cut) <= PROVENANCE_MAX_BYTES
    assert json.loads(cut)[-1] == {"truncated": True}


@pytest.mark.parametrize(("fact_bytes", "is_whole"), [(4096 - 2 - 8, True), (4096 - 2 - 7, False)])
def test_citations_that_just_fit_are_whole(fact_bytes: int, is_whole: bool) -> None:  # noqa: FBT001
    from llmesh.call import PROVENANCE_MAX_BYTES, Call

    call = Call("/a/b", llmesh.Caller(), call_id="", remaining=lambda: None, mesh=Mock())
    call.cite(a="x" * fact_bytes)
    whole = [{"a": "x" * fact_bytes}]
    assert json.loads(call.provenance(limit_bytes=PROVENANCE_MAX_BYTES)) == (
        whole if is_whole else [{"truncated": True}]
    )


@pytest.mark.parametrize("fact", [object(), float("nan"), b"bytes"])
def test_a_fact_that_json_cannot_hold_is_refused_where_it_is_cited(fact: Any) -> None:
    from llmesh.call import Call

    call = Call("/a/b", llmesh.Caller(), call_id="", remaining=lambda: None, mesh=Mock())
    with pytest.raises((TypeError, ValueError)):
        call.cite(fact=fact)
    assert call.provenance(limit_bytes=100) == ""


class Cleaning(EchoServicer):
    """Says when a stream of its own has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    async def ServerStream(self, request: object, context: object) -> AsyncIterator[pb.ServerStreamResponse]:
        try:
            yield pb.ServerStreamResponse()
            await asyncio.Event().wait()
        finally:
            self.ended.set()


async def test_a_client_that_leaves_ends_the_servicers_stream() -> None:
    servicer = Cleaning()
    async with testing.run(servicer) as tool:
        call = EchoStub(tool.channel).ServerStream(pb.ServerStreamRequest(count=1))
        async for _ in call:
            break
        call.cancel()
        async with asyncio.timeout(60):
            await servicer.ended.wait()


async def test_messages_of_sixteen_mebibytes_pass_both_ways() -> None:
    size = 16 * 1024 * 1024
    async with testing.run(EchoServicer()) as tool:
        request = pb.UnaryRequest(padding=bytes(size - 64), orders=pb.Orders(padding_bytes=size - 64))
        assert len((await EchoStub(tool.channel).Unary(request)).padding) == size - 64


async def test_a_broken_call_harms_no_other() -> None:
    async with testing.run(EchoServicer()) as tool:
        stub = EchoStub(tool.channel)
        bad = stub.Unary(pb.UnaryRequest(orders=pb.Orders(crash="swordfish")))
        good = [stub.Unary(pb.UnaryRequest(text=str(number))) for number in range(50)]
        with pytest.raises(llmesh.ToolFailed):
            await bad
        assert [(await call).text for call in good] == [str(number) for number in range(50)]
