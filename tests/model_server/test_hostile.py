"""Callers attack by the types that they send, and by the methods that they name. With a real engine on a mesh."""

from __future__ import annotations

import asyncio

import pytest
from grpc_health.v1 import health_pb2  # pyright: ignore[reportMissingTypeStubs]: it ships none

import llmesh
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceStub
from llmesh.identity import DevCaller
from tests.e2e.mesh import ECHO, OUTSIDER, READER
from tests.llmesh.schema.shapes import files, message, sent
from tests.model_server.models import CALL_S, SERVICE, SHARE, START_S, ModelServer, asked, chat, pieces


def costly() -> pb.GenerateMessageRequest:
    """A type of thousands of rules, each within what one may take."""
    every = "true"
    for depth in range(3):
        every = f"[{'1,' * 19}1].all(a{depth}, {every})"
    rules = "".join(
        f'option (buf.validate.message).cel = {{ id: "x{at}" expression: "{every}" }};' for at in range(8000)
    )
    return pb.GenerateMessageRequest(
        prompt="a", type="M", descriptors=sent(message(f"message M {{ {rules} bool b = 1; }}"))
    )


async def test_types_that_take_without_end_leave_all_others_served(models: ModelServer) -> None:
    ticket = pb.GenerateMessageRequest(prompt="a", type="acme.shapes.v1.Ticket", descriptors=files())
    request = costly()
    async with (
        llmesh.Mesh(f"unix:{models.socket}") as direct,
        llmesh.Mesh(models.mesh.address, models.mesh.token(READER)) as mesh,
    ):
        stub, other = ModelServiceStub(direct.channel), ModelServiceStub(mesh.channel)
        calls = [asyncio.ensure_future(stub.GenerateMessage(request, timeout=START_S)) for _ in range(SHARE + 1)]
        # One too many is told so before any work, and then the others are there.
        refused_first, hostile = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        full = refused_first.pop().exception()
        assert isinstance(full, llmesh.OverQuota)
        assert (full.reason, bool(full.retry_after_s)) == ("QUEUE_FULL", True)
        assert (await other.GenerateMessage(ticket, timeout=CALL_S)).message.value
        assert (await pieces(other, asked(max_tokens=4)))[-1].finish_reason
        assert await models.health() == health_pb2.HealthCheckResponse.SERVING
        refused = await asyncio.gather(*hostile, return_exceptions=True)
        assert {each.reason for each in refused if isinstance(each, llmesh.InvalidCall)} == {"TOO_COSTLY"}
        assert (await stub.GenerateMessage(ticket, timeout=CALL_S)).message.value


async def test_a_method_that_a_caller_does_not_see_is_neither_told_nor_chosen(models: ModelServer) -> None:
    models.mesh.start_echo("echo-unseen")
    await asyncio.to_thread(models.mesh.wait_ready, ECHO)
    seen, unseen, none = f"{SERVICE}/CountTokens", f"{ECHO}/Unary", f"{ECHO}/Nope"

    async def chosen(by: DevCaller, *methods: str) -> str:
        request = pb.ChooseCallRequest(
            conversation=chat("Who am I?").conversation, candidates=[pb.Candidate(method=each) for each in methods]
        )
        async with llmesh.Mesh(models.mesh.address, models.mesh.token(by)) as mesh:
            return (await ModelServiceStub(mesh.channel).ChooseCall(request, timeout=CALL_S)).method

    assert await chosen(READER, unseen) == unseen
    assert await chosen(OUTSIDER, seen) == seen
    told = list[str]()
    for method in (unseen, none):
        with pytest.raises(llmesh.NotFound) as refused:
            await chosen(OUTSIDER, seen, method)
        told.append(refused.value.message.replace(method, ""))
    assert told[0] == told[1]


async def test_no_space_is_written_where_a_message_needs_none(models: ModelServer) -> None:
    only = '{"b":true}'
    wanted = message("message M { bool b = 1 [(buf.validate.field).bool.const = true]; }")
    request = pb.GenerateMessageRequest(
        prompt="a", type="M", descriptors=sent(wanted), sampling=pb.Sampling(temperature=2)
    )
    async with models.stub() as stub:
        told = [await stub.GenerateMessage(request, timeout=CALL_S) for _ in range(20)]
    # A token is a byte at least, and one ends the text.
    assert max(each.usage.output_token_count for each in told) <= len(only) + 1
