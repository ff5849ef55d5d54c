"""Whom a fan-out through the real Envoy asks, and what is told of the others."""

from __future__ import annotations

import base64
import json
from typing import Any as Untyped

import grpc
import pytest
from google.protobuf.any_pb2 import Any

from gateway.services import mesh
from governance.bundle import parse_bundle
from governance.delegation import FAN_OUT
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1.retrieval_pb2 import Passage, RetrieveResponse
from tests.envoy import bearer, policy_of, token
from tests.eventually import eventually
from tests.gateway.fanout.behaviours import gives
from tests.gateway.fanout.world import (
    DESTRUCTIVE,
    EIGHT,
    OPEN,
    WRITE,
    eight,
    refused,
    rpc,
    told_as,
    world,
)
from tests.gateway.xds.delegation import carrying, minted

# Who has the role `insider` may call what is in support, everybody the rest.
NARROW = policy_of(
    parse_bundle(
        """
        version: 1
        rules:
        - id: open
          effect: permit
          reason: everyone may
          applies: {effects: [read]}
          when: tool.domain != 'support'
        - {id: inside, effect: permit, reason: insiders may, when: "'insider' in caller.roles"}
        """,
        {},
    )
)
INSIDER = bearer(token(roles=["insider"]))


async def test_every_tool_that_takes_the_request_answers() -> None:
    async with eight() as running:
        told = await running.fan_out()

        assert told.codes == {f"Tool{index}": 0 for index in range(8)}
        for name, items in told.items.items():
            answer = RetrieveResponse()
            assert [each.Unpack(answer) for each in items] == [True]
            assert [each.text for each in answer.passages] == [f"/{name}"]
        assert told.summary == pb.Summary(end=pb.Summary.END_ALL_ENDED, met=True, asked_count=8, answered_count=8)
        assert all(each.attempt_count == 1 and each.call_id for each in told.branches.values())


async def test_a_capability_says_how_answers_are_merged() -> None:
    async with world() as running:
        await running.publish(*(running.tool(name) for name in EIGHT[:3]))
        for index, name in enumerate(EIGHT[:3]):
            found = ("shared", 0.1 * index), (f"own {index}", 0.5 - 0.1 * index)
            running.tools.behaviours[f"/{name}/Retrieve"] = gives(*found)

        told = await running.fan_out(merge=options.Merge())

        merged = RetrieveResponse()
        assert told.summary.merged.Unpack(merged)
        assert [each.text for each in merged.passages] == ["own 0", "own 1", "own 2", "shared"]
        assert not told.summary.unmerged


async def test_a_large_answer_and_the_message_of_all_come_apart() -> None:
    async with world() as running:
        await running.publish(running.tool(EIGHT[0]))
        text = "x" * (3 << 19)
        running.tools.behaviours[f"/{EIGHT[0]}/Retrieve"] = gives((text, 1))

        told = await running.fan_out(merge=options.Merge())

        assert told.codes == {"Tool0": 0}
        merged = RetrieveResponse()
        assert told.summary.merged.Unpack(merged)
        assert [each.text for each in merged.passages] == [text]
        assert [len(message.branches) for message in told.messages] == [1, 0]


async def test_a_merged_message_that_clients_would_not_take_is_not_sent() -> None:
    async with eight() as running:
        for name in EIGHT:
            running.tools.behaviours[f"/{name}/Retrieve"] = gives(("x" * (1 << 19), 1))

        told = await running.fan_out(merge=options.Merge(concatenate=options.Concatenate(field="passages")))

        assert told.summary.unmerged == "the merged message has more than 3932160 bytes"
        assert not told.summary.HasField("merged")
        assert (told.summary.met, told.summary.answered_count) == (True, 8)


async def test_denied_methods_are_named_only_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "DENIED_MOST", 1)
    async with world() as running:
        writes = (rpc(name, effect=WRITE) for name in ("One", "Two"))
        await running.publish(running.tool("acme.a.v1.Tool", rpc(), *writes, domain="a"), policy=NARROW)

        told = await running.fan_out()

        assert (told.summary.denied_count, list(told.summary.denied)) == (2, ["acme.a.v1.Tool/One"])


async def test_the_selector_picks_by_what_the_product_sheet_says() -> None:
    async with world() as running:
        await running.publish(
            running.tool("acme.a.v1.One", domain="a", sheet='labels { key: "language" value: "en" }'),
            running.tool("acme.a.v1.Two", domain="a", sheet="lifecycle { stage: STAGE_STABLE }"),
            running.tool("acme.b.v1.Three", rpc(options="cost: COST_LOW"), domain="b"),
        )

        async def picked(**selector: Untyped) -> set[str]:
            told = await running.fan_out(selector=pb.Selector(**selector))
            return set(told.codes)

        assert await picked(domains=["a"]) == {"One", "Two"}
        assert await picked(tools=["acme.b.v1.Three", "acme.a.v1.One"]) == {"One", "Three"}
        assert await picked(methods=["acme.a.v1.Two/Retrieve"]) == {"Two"}
        assert await picked(stages=[options.STAGE_STABLE]) == {"Two"}
        assert await picked(labels={"language": "en"}) == {"One"}
        assert await picked(where="tool.cost == Cost.COST_LOW || tool.labels['language'] == 'en'") == {"One", "Three"}
        assert await picked(limit=2) == {"One", "Two"}
        assert await picked(domains=["a"], where="tool.stage == Stage.STAGE_STABLE") == {"Two"}


@pytest.mark.parametrize(
    ("asked", "code", "reason"),
    [
        ({"selector": pb.Selector(where="tool.colour == 'red'")}, grpc.StatusCode.INVALID_ARGUMENT, "BAD_SELECTOR"),
        ({"selector": pb.Selector(where="caller.domain == 'a'")}, grpc.StatusCode.INVALID_ARGUMENT, "BAD_SELECTOR"),
        ({"selector": pb.Selector(domains=["nowhere"])}, grpc.StatusCode.NOT_FOUND, "NO_METHOD_LEFT"),
        ({"selector": pb.Selector(methods=["acme.support.v1.Nobody/Get"])}, grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
        ({"request": Passage(text="x")}, grpc.StatusCode.NOT_FOUND, "UNKNOWN_TYPE"),
        ({"quorum": 3}, grpc.StatusCode.INVALID_ARGUMENT, "BAD_QUORUM"),
        ({"completion": pb.COMPLETION_QUORUM}, grpc.StatusCode.INVALID_ARGUMENT, "BAD_QUORUM"),
        ({"completion": pb.COMPLETION_QUORUM, "quorum": 9}, grpc.StatusCode.INVALID_ARGUMENT, "BAD_QUORUM"),
        (
            {"merge": options.Merge(concatenate=options.Concatenate(field="pages"))},
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_MERGE",
        ),
        (
            {"merge": options.Merge(top_k=options.TopK(field="passages", score="text"))},
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_MERGE",
        ),
    ],
)
async def test_what_is_wrong_with_a_fan_out_is_said_before_anything_is_sent(
    asked: dict[str, Untyped], code: grpc.StatusCode, reason: str
) -> None:
    async with eight() as running:
        assert told_as(await refused(running, **asked)) == (code, reason)


async def test_a_request_that_is_none_of_its_type_is_refused() -> None:
    async with eight() as running:
        for url, value in (
            ("type.googleapis.com/llmesh.api.retrieval.v1.RetrieveRequest", b"\xff"),
            ("evil.example/llmesh.api.retrieval.v1.RetrieveRequest", b""),
            ("", b""),
        ):
            sent = pb.FanOutRequest(request=Any(type_url=url, value=value))
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await anext(aiter(running.send(sent)))
            assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert not running.tools.calls


async def test_what_is_picked_and_not_asked_is_counted() -> None:
    async with world() as running:
        several = (rpc(), rpc("Write", effect=WRITE), rpc("Drop", effect=DESTRUCTIVE))
        await running.publish(*(running.tool(name, *several) for name in EIGHT[:3]), policy=OPEN)

        left = (await running.fan_out(selector=pb.Selector(limit=2))).summary.unasked_count
        assert left == 1 + 3 + 3
        assert (await running.fan_out(allow_writes=True)).summary.unasked_count == 3
        named = pb.Selector(methods=[f"{EIGHT[0]}/Retrieve"])
        assert (await running.fan_out(selector=named)).summary.unasked_count == 0


async def test_denied_methods_are_counted_and_named_only_where_the_caller_sees_their_tool() -> None:
    async with world() as running:
        await running.publish(
            running.tool("acme.a.v1.Open", domain="a"),
            running.tool("acme.a.v1.Half", rpc(), rpc("Write", effect=WRITE), domain="a"),
            running.tool("acme.support.v1.Closed"),
            running.tool("acme.support.v1.Secret", sheet="hidden: true"),
            policy=NARROW,
        )

        told = await running.fan_out(allow_writes=True)

        assert set(told.branches) == {"acme.a.v1.Open/Retrieve", "acme.a.v1.Half/Retrieve"}
        assert told.summary.denied_count == 2
        assert list(told.summary.denied) == ["acme.a.v1.Half/Write"]
        assert "Closed" not in str(told.messages)
        assert "Secret" not in str(told.messages)
        nothing = await running.fan_out(metadata=INSIDER, selector=pb.Selector(where="tool.hidden"))
        assert nothing.codes == {"Secret": 0}


async def test_nothing_tells_a_type_that_only_hidden_tools_take_from_one_that_nobody_takes() -> None:
    async with world() as running:
        await running.publish(running.tool("acme.support.v1.Secret", sheet="hidden: true"), policy=NARROW)
        hidden = await refused(running)
        await running.publish(running.tool("acme.support.v1.Other", rpc(takes="llmesh.api.retrieval.v1.Passage")))
        absent = await refused(running)

        assert (str(hidden).split(", call")[0], told_as(hidden)) == (str(absent).split(", call")[0], told_as(absent))
        named = pb.Selector(methods=["acme.support.v1.Secret/Retrieve"])
        assert (await refused(running, selector=named)).reason == "UNKNOWN_TYPE"


async def test_a_caller_sees_exactly_the_branches_that_calling_one_by_one_would_have_allowed() -> None:
    async with world() as running:
        tools = [
            *(running.tool(f"acme.a.v1.Tool{index}", domain="a") for index in range(3)),
            *(running.tool(f"acme.support.v1.Tool{index}") for index in range(3)),
            running.tool("acme.support.v1.Secret", sheet="hidden: true"),
        ]
        await running.publish(*tools, policy=NARROW)
        for metadata in (bearer(token()), INSIDER):
            alone: set[str] = set()
            for tool in tools:
                answer = await running.envoy.call(f"/{tool.service}/Retrieve", metadata)
                if answer.code is grpc.StatusCode.OK:
                    alone.add(f"{tool.service}/Retrieve")
            told = await running.fan_out(metadata=metadata)
            assert set(told.branches) == alone
            assert {each.status.code for each in told.branches.values()} == {0}


async def test_a_tool_that_fans_out_for_its_caller_asks_no_more_than_its_contract_lists() -> None:
    async with eight() as running:
        listed = (FAN_OUT, *(f"/{name}/Retrieve" for name in EIGHT[:3]))
        given = carrying(minted(path=["/acme.a.v1.Agent/Ask"], methods=listed))

        told = await running.fan_out(metadata=given)

        assert set(told.codes) == {"Tool0", "Tool1", "Tool2"}
        assert set(told.codes.values()) == {0}
        assert told.summary.denied_count == 5

        async def agent_acts() -> None:
            branches = [line for line in running.envoy.logged() if line["path"] in listed[1:]]
            assert [line["actor"] for line in branches] == ["acme.a.v1.Agent"] * 3

        await eventually(agent_acts, within_s=20)
        without = carrying(minted(path=["/acme.a.v1.Agent/Ask"], methods=listed[1:]))
        with pytest.raises(grpc.aio.AioRpcError) as refused_call:
            await running.fan_out(metadata=without)
        assert refused_call.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_no_caller_says_what_it_was_given_or_from_where_it_calls() -> None:
    """What the gateway is told of a fan-out's call is told by Envoy alone."""
    async with eight() as running:
        claims = {"path": [], "methods": [f"/{EIGHT[0]}/Retrieve"]}
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        forged = (("x-llmesh-delegated", payload), ("x-llmesh-address", "192.0.2.1"))

        told = await running.fan_out(metadata=(*bearer(token()), *forged))

        assert len(told.codes) == 8
        await running.logs_branches("127.0.0.1")


async def test_writes_are_asked_only_if_allowed_and_what_cannot_be_undone_never() -> None:
    async with world() as running:
        methods = rpc(), rpc("Write", effect=WRITE), rpc("Erase", effect=DESTRUCTIVE)
        await running.publish(running.tool("acme.a.v1.Tool", *methods), policy=OPEN)

        assert set((await running.fan_out()).branches) == {"acme.a.v1.Tool/Retrieve"}
        both = {"acme.a.v1.Tool/Retrieve", "acme.a.v1.Tool/Write"}
        assert set((await running.fan_out(allow_writes=True)).branches) == both
        assert running.tools.calls == {"/acme.a.v1.Tool/Retrieve": 2, "/acme.a.v1.Tool/Write": 1}
        running.tools.calls.clear()
        for name, allowed in (("Erase", True), ("Write", False)):
            selector = pb.Selector(methods=[f"acme.a.v1.Tool/{name}"])
            error = await refused(running, selector=selector, allow_writes=allowed)
            assert told_as(error) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_SELECTOR")


async def test_naming_a_method_that_the_caller_may_not_call_tells_nothing_of_what_it_does() -> None:
    async with world() as running:
        methods = rpc(), rpc("Write", effect=WRITE), rpc("Erase", effect=DESTRUCTIVE)
        await running.publish(
            running.tool("acme.a.v1.Half", *methods, domain="a"),
            running.tool("acme.support.v1.Closed", *methods),
            policy=NARROW,
        )
        for effect in ("Retrieve", "Write", "Erase"):
            unseen = await refused(running, selector=pb.Selector(methods=[f"acme.support.v1.Closed/{effect}"]))
            absent = await refused(running, selector=pb.Selector(methods=[f"acme.absent.v1.Closed/{effect}"]))
            assert told_as(unseen) == told_as(absent)
            told = str(unseen).split(", call")[0].replace("acme.support", "acme.absent")
            assert told == str(absent).split(", call")[0]
        for effect in ("Write", "Erase"):
            denied = await refused(running, selector=pb.Selector(methods=[f"acme.a.v1.Half/{effect}"]))
            assert told_as(denied) == (grpc.StatusCode.NOT_FOUND, "NO_METHOD_LEFT")


async def test_a_tool_with_a_type_of_its_own_by_the_same_name_is_asked_nothing() -> None:
    async with world() as running:
        own = 'message_type { name: "RetrieveRequest" field { name: "query" number: 1 type: TYPE_STRING } }'
        method = rpc(takes="acme.evil.v1.RetrieveRequest")
        evil = running.tool("acme.evil.v1.Search", method, types=own, domain="evil")
        await running.publish(evil, running.tool(EIGHT[0]))

        told = await running.fan_out()

        assert set(told.codes) == {"Tool0"}
        assert not running.tools.calls["/acme.evil.v1.Search/Retrieve"]
