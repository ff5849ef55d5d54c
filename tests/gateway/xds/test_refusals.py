"""What refused callers read, from the real Envoy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc
import pytest
from google.rpc import error_details_pb2  # pyright: ignore[reportMissingTypeStubs]

from governance.bundle import parse_bundle
from llmesh.api.options.v1 import options_pb2 as options
from tests.envoy import Mesh, bearer, mesh, method_of, policy_of, token, tool_of
from tests.eventually import eventually
from tests.governance.rules import domain, rule
from tests.governance.rules import mesh as mesh_file

# Of an HTTP/2 frame: its type, flags (END_HEADERS) and stream.
HEADERS_OF_STREAM_1 = b"\x01\x04\x00\x00\x00\x01"
TICKETS = "/acme.support.v1.Tickets"
BUNDLE = parse_bundle(
    mesh_file(
        rule("reads", "permit", applies="{effects: [read]}"),
        rule("writes", "permit", "'editor' in caller.roles", applies="{effects: [write]}"),
    ),
    domain("support", rule("personal", "forbid", "'pii' in tool.data_classes && !('pii' in caller.clearances)")),
)


@pytest.fixture
async def running() -> AsyncGenerator[Mesh]:
    async with mesh() as made:
        await made.publish(
            made.tool(
                TICKETS[1:],
                method_of("Get"),
                method_of("Personal", data_classes=("pii",)),
                method_of("Write", options.EFFECT_WRITE),
                method_of("Burn", options.EFFECT_DESTRUCTIVE),
            ),
            made.tool("acme.support.v1.Secret", method_of("Get", data_classes=("pii",)), hidden=True),
            tool_of("acme.support.v1.Dead", f"unix:{made.folder}/dead.sock"),
            policy=policy_of(BUNDLE),
        )
        yield made


async def test_a_forbidden_call_is_told_the_rule_and_the_reason(running: Mesh) -> None:
    answer = await running.call(f"{TICKETS}/Personal")

    assert answer.code is grpc.StatusCode.PERMISSION_DENIED
    assert answer.message == "because personal (domain/support/personal)"
    assert (answer.info.reason, answer.info.domain) == ("RULE_FORBIDS", "llmesh")
    assert dict(answer.info.metadata) == {
        "rule": "domain/support/personal",
        "reason": "because personal",
        "service": "acme.support.v1.Tickets",
        "method": "Personal",
    }
    assert answer.metadata["x-llmesh-call-id"]


async def test_a_call_that_no_rule_permits_is_told_what_would(running: Mesh) -> None:
    write, burn = await running.call(f"{TICKETS}/Write"), await running.call(f"{TICKETS}/Burn")

    assert (write.code, burn.code) == (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.PERMISSION_DENIED)
    assert write.message == "no rule permits: because writes (mesh/writes)"
    assert burn.message == "no rule permits"
    assert write.info.reason == burn.info.reason == "NO_RULE_PERMITS"
    assert write.metadata["x-llmesh-call-id"]


async def test_a_caller_without_a_subject_is_nobody(running: Mesh) -> None:
    for subject in (..., "", None, " sam", "a\x00b"):
        answer = await running.call(f"{TICKETS}/Get", bearer(token(sub=subject)))
        assert answer.code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED), subject
    assert not running.backend.calls


async def test_an_unknown_method_is_unimplemented_and_named(running: Mesh) -> None:
    for path in (f"{TICKETS}/Nope", "/acme.nobody.v1.Nothing/Get", f"{TICKETS}/Get/more", "/x", "/"):
        answer = await running.call(path)

        assert answer.code is grpc.StatusCode.UNIMPLEMENTED
        assert answer.message.startswith(f"no method {path} on this mesh")
        assert answer.metadata["x-llmesh-call-id"]


async def test_a_hidden_tool_looks_unknown_to_those_who_may_not_call_it(running: Mesh) -> None:
    hidden = await running.call("/acme.support.v1.Secret/Get")
    unknown = await running.call("/acme.support.v1.Hollow/Get")
    cleared = await running.call("/acme.support.v1.Secret/Get", bearer(token(clearances=["pii"])))

    assert hidden.message.replace("Secret", "Hollow") == unknown.message
    assert hidden.code is unknown.code is grpc.StatusCode.UNIMPLEMENTED
    assert hidden.metadata.keys() == unknown.metadata.keys()
    assert cleared.code is grpc.StatusCode.OK


async def test_a_dead_tool_is_unavailable_with_a_delay(running: Mesh) -> None:
    answer = await running.call("/acme.support.v1.Dead/Get")

    assert answer.code is grpc.StatusCode.UNAVAILABLE
    assert answer.message == "no endpoint of acme.support.v1.Dead answers; try again in 1 s"
    assert answer.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1
    assert answer.info.reason == "TOOL_DOWN"
    assert "dead.sock" not in answer.message
    assert answer.metadata["x-llmesh-call-id"]


async def test_a_tool_with_as_many_calls_as_it_takes_is_exhausted_and_not_down(running: Mesh) -> None:
    busy = "/acme.support.v1.Busy"
    running.backend.held[f"{busy}/Get"] = asyncio.Event()
    await running.publish(running.tool(busy[1:], method_of("Get", max_concurrency=1)))

    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(running.call(f"{busy}/Get")) for _ in range(2)]
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        running.backend.held[f"{busy}/Get"].set()
    answer = done.pop().result()

    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answer.message == "acme.support.v1.Busy has as many such calls as it takes at once; try again in 1 s"
    assert answer.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1
    assert answer.info.reason == "TOOL_OVERLOADED"
    assert waiting.pop().result().code is grpc.StatusCode.OK


async def test_a_method_at_its_limit_leaves_the_tools_other_methods_alone(running: Mesh) -> None:
    busy = "/acme.support.v1.Busy"
    limits = {"One": 1, "Two": 2, "Any": 0}
    open_at = {"One": 1, "Two": 2, "Any": 5}
    running.backend.held = {f"{busy}/{name}": asyncio.Event() for name in limits}
    await running.publish(running.tool(busy[1:], *(method_of(name, max_concurrency=limits[name]) for name in limits)))

    async def are_open() -> None:
        assert {name: running.backend.calls[f"{busy}/{name}"] for name in limits} == open_at

    async with asyncio.TaskGroup() as tasks:
        opened = [
            tasks.create_task(running.call(f"{busy}/{name}", timeout_s=None))
            for name, count in open_at.items()
            for _ in range(count)
        ]
        await eventually(are_open)
        refused = [await running.call(f"{busy}/{name}") for name in ("One", "Two")]
        for event in running.backend.held.values():
            event.set()

    assert {answer.code for answer in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert {call.result().code for call in opened} == {grpc.StatusCode.OK}


async def test_a_call_that_the_tool_cut_is_not_said_to_have_found_no_tool(running: Mesh) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(HEADERS_OF_STREAM_1)
        writer.close()

    path = f"{running.folder}/cutter.sock"
    cutter = tool_of("acme.support.v1.Cutter", f"unix:{path}", method_of("Cut", idempotent=False))
    async with await asyncio.start_unix_server(hang_up, path):
        await running.publish(cutter)
        answer = await running.call("/acme.support.v1.Cutter/Cut")

    assert answer.code is grpc.StatusCode.UNAVAILABLE
    assert answer.message == "the call was cut: the tool ended the connection"
    assert answer.info.reason == "CALL_CUT"
    assert not answer.detail(error_details_pb2.RetryInfo).HasField("retry_delay")


async def test_a_long_reason_still_reaches_the_caller(running: Mesh) -> None:
    rules = [
        f"- {{id: r{number}, effect: permit, when: caller.domain == 'd{number}', reason: {'😀' * 300}}}"
        for number in range(60)
    ]
    bundle = parse_bundle(mesh_file(*rules), {})
    await running.publish(running.tool(TICKETS[1:]), policy=policy_of(bundle))

    answer = await running.call(f"{TICKETS}/Get")
    permitted = await running.call(f"{TICKETS}/Get", bearer(token(domain="d59")))

    assert answer.code is grpc.StatusCode.PERMISSION_DENIED
    assert answer.message.startswith("no rule permits: 😀")
    assert answer.message.endswith("...")
    assert permitted.code is grpc.StatusCode.OK
