"""What a program reads of a fan-out, whatever the mesh says."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc.status_pb2 import Status

import llmesh
from llmesh import testing
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.mesh.v1.mesh_pb2_grpc import MeshServiceServicer
from llmesh.api.options.v1.options_pb2 import First, Merge
from llmesh.api.retrieval.v1.retrieval_pb2 import Passage, RetrieveRequest, RetrieveResponse
from llmesh.status import status_from_error
from tests.eventually import eventually

if TYPE_CHECKING:
    from google.protobuf.message import Message

    Context = grpc.aio.ServicerContext[Any, Any]

REQUEST = RetrieveRequest(query="tea")
TOOL = "acme.tea.v1.Tea"


def packed(message: Message) -> Packed:
    found = Packed()
    found.Pack(message)
    return found


def found(*texts: str) -> RetrieveResponse:
    return RetrieveResponse(passages=[Passage(text=text) for text in texts])


def branch(method: str, *answers: Message, status: Status | None = None, **more: Any) -> pb.Branch:
    told = [answer if isinstance(answer, Packed) else packed(answer) for answer in answers]
    return pb.Branch(tool=TOOL, method=method, responses=told, status=status or Status(), **more)


class Saying(MeshServiceServicer):
    """Says these messages, then fails or never ends if told so."""

    def __init__(self, *messages: pb.FanOutResponse, failure: Exception | None = None, hangs: bool = False) -> None:
        self._messages, self._failure, self._hangs = messages, failure, hangs
        self.asked: list[pb.FanOutRequest] = []
        self.open = 0
        self.remaining_s: float | None = None

    async def FanOut(self, request: pb.FanOutRequest, context: Context) -> AsyncIterator[pb.FanOutResponse]:
        self.asked.append(request)
        self.remaining_s = llmesh.current_call().remaining_s
        self.open += 1
        try:
            for message in self._messages:
                yield message
            if self._failure:
                raise self._failure
            if self._hangs:
                await asyncio.Event().wait()
        finally:
            self.open -= 1


def ended(**more: Any) -> pb.Summary:
    return pb.Summary(end=pb.Summary.END_ALL_ENDED, met=True, **more)


async def heard(servicer: Saying) -> list[llmesh.Branch[RetrieveResponse]]:
    async with testing.run(servicer) as tool, llmesh.Mesh(tool.server.address) as mesh:
        return [each async for each in mesh.fan_out(REQUEST, RetrieveResponse)]


async def test_each_branch_is_typed_and_says_all_that_is_known() -> None:
    latency = Duration(nanos=20_000_000)
    first = branch(
        "A", found("green"), latency=latency, attempt_count=2, call_id="c-1", provenance='[{"source": "tin"}]'
    )

    [told] = await heard(Saying(pb.FanOutResponse(branches=[first], summary=ended())))

    assert told.response.passages[0].text == "green"
    assert told == llmesh.Branch(
        TOOL,
        "A",
        (found("green"),),
        ended=True,
        latency_s=0.02,
        attempts=2,
        provenance=({"source": "tin"},),
        call_id="c-1",
    )


async def test_failed_branch_has_its_kind_of_error_and_ends_nothing() -> None:
    denied = status_from_error(llmesh.Denied("not for you", rule="mesh/no"))
    late = status_from_error(llmesh.DeadlineExceeded("late"))
    servicer = Saying(
        pb.FanOutResponse(branches=[branch("A", status=denied, call_id="c-1"), branch("B", status=late)]),
        pb.FanOutResponse(branches=[branch("C", found("green"))], summary=ended()),
    )

    first, second, third = await heard(servicer)

    assert isinstance(first.error, llmesh.Denied)
    assert (first.error.rule, first.error.call_id) == ("mesh/no", "c-1")
    assert isinstance(second.error, llmesh.DeadlineExceeded)
    assert third.error is None
    with pytest.raises(llmesh.Denied, match="not for you"):
        _ = first.response


async def test_stream_comes_in_pieces_of_which_the_last_has_ended() -> None:
    piece = pb.Branch(tool=TOOL, method="S", responses=[packed(found("a")), packed(found("b"))])
    servicer = Saying(
        pb.FanOutResponse(branches=[piece]), pb.FanOutResponse(branches=[branch("S", found("c"))], summary=ended())
    )

    first, last = await heard(servicer)

    assert ([len(first.responses), len(last.responses)], first.ended, last.ended) == ([2, 1], False, True)
    with pytest.raises(LookupError, match=r"acme.tea.v1.Tea/S` has 2 responses here"):
        _ = first.response


LIES = {
    "another type": (Passage(text="a"), llmesh.InvalidCall, "OTHER_TYPE"),
    "no message": (Packed(type_url=packed(found()).type_url, value=b"\xff\xff"), llmesh.ToolFailed, "MALFORMED"),
    "no type": (Packed(type_url="", value=b""), llmesh.InvalidCall, "OTHER_TYPE"),
}


@pytest.mark.parametrize(("answer", "kind", "reason"), LIES.values(), ids=LIES)
async def test_answer_that_is_none_is_the_branchs_error_alone(
    answer: Message, kind: type[llmesh.MeshError], reason: str
) -> None:
    lying, honest = branch("A", answer), branch("B", found("green"))

    first, second = await heard(Saying(pb.FanOutResponse(branches=[lying, honest], summary=ended())))

    assert isinstance(first.error, kind)
    assert (first.error.reason, first.responses) == (reason, ())
    assert second.response == found("green")


@pytest.mark.parametrize("text", ["{", "{}", "3", "[" * 100_000, '["words", 3]'], ids=range(5))
async def test_provenance_that_is_none_is_left_out(text: str) -> None:
    [told] = await heard(Saying(pb.FanOutResponse(branches=[branch("A", found(), provenance=text)], summary=ended())))

    assert told.provenance == ()


async def test_without_a_type_answers_are_of_the_stubs_that_are_there_else_as_they_came() -> None:
    unknown = Packed(type_url="type.googleapis.com/acme.nowhere.v1.Answer", value=b"\x0a\x01a")
    servicer = Saying(pb.FanOutResponse(branches=[branch("A", found("a")), branch("B", unknown)], summary=ended()))

    async with testing.run(servicer) as tool, llmesh.Mesh(tool.server.address) as mesh:
        first, second = [each.response async for each in mesh.fan_out(REQUEST)]

    assert (first, second) == (found("a"), unknown)


async def test_what_is_asked_for_is_sent() -> None:
    servicer = Saying(pb.FanOutResponse(summary=ended()))
    async with testing.run(servicer) as tool, llmesh.Mesh(tool.server.address) as mesh:
        selector = pb.Selector(methods=["acme.tea.v1.Tea/A"])
        for stated in (
            mesh.fan_out(REQUEST),
            mesh.fan_out(REQUEST, where="tool.domain == 'tea'", quorum=2, timeout_s=7),
            mesh.fan_out(REQUEST, where=selector, completion=pb.COMPLETION_BEST_EFFORT, allow_writes=True),
            mesh.fan_out(REQUEST, merge=Merge(first=First())),
        ):
            assert [each async for each in stated] == []

    plain, quorum, named, merging = servicer.asked
    assert plain == pb.FanOutRequest(request=packed(REQUEST), selector=pb.Selector())
    assert (quorum.selector.where, quorum.completion, quorum.quorum) == (
        "tool.domain == 'tea'",
        pb.COMPLETION_QUORUM,
        2,
    )
    assert (named.selector, named.completion, named.allow_writes) == (selector, pb.COMPLETION_BEST_EFFORT, True)
    assert merging.merge.WhichOneof("how") == "first"


SLIPS: Sequence[tuple[Any, str]] = (
    ({"wheer": "tool.domain == 'tea'"}, "a fan-out takes no wheer; it takes where, "),
    ({"merge": "default"}, "`merge` is `default`, and must be a llmesh.api.options.v1 Merge"),
    ({"quorum": -1}, "`quorum` is -1, and says how many must answer"),
)


async def test_what_no_fan_out_takes_is_refused_before_anything_is_sent() -> None:
    async with llmesh.Mesh("unix:none") as mesh:
        for slip, told in SLIPS:
            with pytest.raises(TypeError, match=told):
                mesh.fan_out(REQUEST, **slip)


async def test_its_time_is_the_calls_deadline() -> None:
    servicer = Saying(pb.FanOutResponse(summary=ended()))
    async with testing.run(servicer) as tool, llmesh.Mesh(tool.server.address) as mesh:
        assert [each async for each in mesh.fan_out(REQUEST, timeout_s=60)] == []

    assert servicer.remaining_s is not None
    assert 0 < servicer.remaining_s <= 60


async def test_leaving_early_cancels_the_call() -> None:
    servicer = Saying(pb.FanOutResponse(branches=[branch("A", found("a"))]), hangs=True)
    async with testing.run(servicer) as tool, llmesh.Mesh(tool.server.address) as mesh:
        fan_out = mesh.fan_out(REQUEST, RetrieveResponse)
        async for _ in fan_out:
            assert servicer.open == 1
            break

        async def is_closed() -> None:
            assert servicer.open == 0

        await eventually(is_closed)
        with pytest.raises(RuntimeError, match="has not ended"):
            _ = fan_out.summary
        with pytest.raises(RuntimeError, match="read once"):
            await fan_out.gathered()


async def test_whoever_waits_may_be_cancelled() -> None:
    servicer = Saying(hangs=True)
    async with testing.run(servicer) as tool, llmesh.Mesh(tool.server.address) as mesh:
        waiting = asyncio.create_task(mesh.fan_out_all(REQUEST))

        async def is_open(count: int) -> None:
            assert servicer.open == count

        await eventually(lambda: is_open(1))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await eventually(lambda: is_open(0))


async def test_call_that_fails_raises_after_the_branches_that_came() -> None:
    servicer = Saying(
        pb.FanOutResponse(branches=[branch("A", found("a"))]), failure=llmesh.OverQuota("too many", retry_after_s=2)
    )
    async with testing.run(servicer) as tool, llmesh.Mesh(tool.server.address) as mesh:
        branches = aiter(mesh.fan_out(REQUEST))
        assert (await anext(branches)).method == "A"
        with pytest.raises(llmesh.OverQuota, match="too many"):
            await anext(branches)


async def test_all_at_once_has_the_merged_message_of_its_type() -> None:
    summary = ended(merged=packed(found("best")))
    servicer = Saying(pb.FanOutResponse(branches=[branch("A", found("a")), branch("B", found("b"))], summary=summary))
    async with testing.run(servicer) as tool, llmesh.Mesh(tool.server.address) as mesh:
        gathered = await mesh.fan_out_all(REQUEST, RetrieveResponse)

    assert gathered.merged == found("best")
    assert [each.method for each in gathered.branches] == ["A", "B"]
    assert gathered.summary == summary
    assert servicer.asked[0].HasField("merge")
    assert servicer.asked[0].merge.WhichOneof("how") is None


async def test_what_was_not_merged_says_why_and_what_failed() -> None:
    summary = pb.Summary(end=pb.Summary.END_ALL_ENDED, unmerged="not enough have answered")
    failed = branch("A", status=status_from_error(llmesh.Denied("not for you")))
    servicer = Saying(pb.FanOutResponse(branches=[failed], summary=summary))
    async with testing.run(servicer) as tool, llmesh.Mesh(tool.server.address) as mesh:
        gathered = await mesh.fan_out_all(REQUEST)

    with pytest.raises(llmesh.Unavailable, match=r"not enough have answered \(acme.tea.v1.Tea/A: not for you\)"):
        _ = gathered.merged


async def test_where_no_loop_runs_a_plain_loop_reads_it() -> None:
    summary = ended(merged=packed(found("best")))
    servicer = Saying(
        pb.FanOutResponse(branches=[branch("A", found("a"))]),
        pb.FanOutResponse(branches=[branch("B", found("b"))], summary=summary),
    )

    def read(address: str) -> tuple[list[str], RetrieveResponse]:
        fan_out = llmesh.Mesh(address).fan_out(REQUEST, RetrieveResponse, merge=Merge())
        return [each.response.passages[0].text for each in fan_out], fan_out.merged

    async with testing.run(servicer) as tool:
        assert await asyncio.to_thread(read, tool.server.address) == (["a", "b"], found("best"))


async def test_leaving_a_plain_loop_early_cancels_the_call_and_leaves_nothing() -> None:
    servicer = Saying(pb.FanOutResponse(branches=[branch("A", found("a"))]), hangs=True)

    def read(address: str) -> int:
        for _ in llmesh.Mesh(address).fan_out(REQUEST):
            break
        gc.collect()
        return servicer.open

    async def is_closed() -> None:
        assert servicer.open == 0

    async with testing.run(servicer) as tool:
        await asyncio.to_thread(read, tool.server.address)
        await eventually(is_closed)


async def test_plain_loop_within_a_loop_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="use `async for`"):
        list(llmesh.Mesh("127.0.0.1:1").fan_out(REQUEST))


async def test_mesh_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="use `async with"):
        await llmesh.Mesh("127.0.0.1:1").fan_out_all(REQUEST)
