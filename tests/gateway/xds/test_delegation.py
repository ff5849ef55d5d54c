"""Calls that a tool makes for its caller, through the real Envoy, with the tokens that the gateway mints."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any as Untyped

import grpc
import pytest
from joserfc import jws

from gateway.keys import TURN_S, Keys
from governance.bundle import parse_bundle
from governance.delegation import MAX_HOPS, Delegation, derive, refusal
from governance.words import Caller
from llmesh._delegation import AWAY_KEY, DELEGATION_KEY
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.home import Home
from tests.e2e.admin import get
from tests.envoy import KEYS, Mesh, bearer, mesh, method_of, policy_of, serve_xds, token
from tests.eventually import eventually
from tests.gateway.fakes import FakeClock
from tests.gateway.turned import turn
from tests.gateway.xds.delegation import ALL, A, B, C, carrying, delegated, minted, three_tools, using
from tests.governance.rules import mesh as mesh_file
from tests.governance.rules import rule

DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture
async def running() -> AsyncGenerator[Mesh]:
    async with three_tools() as made:
        yield made


def claims(text: str) -> dict[str, Untyped]:
    return json.loads(jws.extract_compact(text.encode()).payload)


async def test_a_tool_calls_another_for_its_caller(running: Mesh) -> None:
    sam = bearer(token(sub="sam", roles=["editor"], domain="support", clearances=["pii"]))
    first = await running.call(f"/{A}/Ask", sam)

    second = await running.call(f"/{C}/Get", carrying(first.seen["llmesh-delegation"]))

    derived = ("issuer", "subject", "roles", "domain", "clearances", "actor", "parent")
    assert {name: second.seen.get(f"x-llmesh-{name}") for name in derived} == {
        "issuer": "corp",
        "subject": "sam",
        "roles": "editor",
        "domain": "support",
        "clearances": "pii",
        "actor": A,
        "parent": first.seen["x-llmesh-call-id"],
    }
    assert "llmesh-delegation" not in second.seen
    assert first.seen["x-llmesh-mesh"] == f"127.0.0.1:{running.port}"


async def test_a_method_that_uses_none_gets_no_token(running: Mesh) -> None:
    assert "llmesh-delegation" not in (await running.call(f"/{A}/Get")).seen


@pytest.mark.parametrize(
    ("timeout_s", "most_s"), [pytest.param(5, 6, id="the caller's"), pytest.param(None, 31, id="the contract's")]
)
async def test_a_token_ends_with_the_call(running: Mesh, timeout_s: float | None, most_s: float) -> None:
    before = time.time()
    seen = (await running.call(f"/{A}/Ask", timeout_s=timeout_s)).seen
    after = time.time()

    ends = claims(seen["llmesh-delegation"])["exp"]
    assert before + most_s - 1 <= ends <= after + most_s + 0.1


async def test_a_token_ends_no_later_than_the_one_that_its_call_came_with(running: Mesh) -> None:
    ends = int(time.time()) + 20
    given = minted(path=[f"/{A}/Ask"], methods=[f"/{B}/Ask"], exp=ends)

    handed_on = await delegated(running, f"/{B}/Ask", carrying(given))

    assert claims(handed_on)["exp"] == ends


async def test_what_the_contract_does_not_list_is_refused(running: Mesh) -> None:
    answer = await running.call(f"/{C}/Other", carrying(await delegated(running, f"/{A}/Ask")))

    assert (answer.code, answer.info.reason) == (DENIED, "NOT_DELEGATED")
    assert answer.message == (
        f"{A}/Ask may not call {C}/Other for its caller: its contract must list that under `uses`, and the rules must "
        "permit it to the tool itself"
    )


async def test_of_what_is_not_on_the_mesh_a_tool_is_told_so(running: Mesh) -> None:
    gone = f"{C}/Gone", "acme.gone.v1.Gone/Get"
    tools = running.tool(A, using("Ask", f"{C}/Get", *gone)), running.tool(C, method_of("Get"))
    await running.publish(*tools, policy=ALL)
    given = carrying(await delegated(running, f"/{A}/Ask"))

    answers = [await running.call(f"/{name}", given) for name in gone]

    assert {(answer.code, answer.info.reason) for answer in answers} == {(DENIED, "NOT_DELEGATED")}
    assert [answer.message for answer in answers] == [
        f"{A}/Ask may not call {name} for its caller: it is not on the mesh" for name in gone
    ]


async def test_a_loop_is_refused_with_its_path(running: Mesh) -> None:
    first = await delegated(running, f"/{A}/Ask")
    second = await delegated(running, f"/{B}/Ask", carrying(first))

    answer = await running.call(f"/{A}/Ask", carrying(second))

    assert (answer.code, answer.info.reason) == (DENIED, "DELEGATION_LOOP")
    assert answer.message.startswith(f"{A}/Ask -> {B}/Ask -> {A}/Ask: a loop")


async def test_no_more_than_so_many_tools_stand_between_a_caller_and_a_call() -> None:
    names = [f"acme.support.v1.T{number}" for number in range(MAX_HOPS + 2)]
    async with mesh() as running:
        tools = [running.tool(one, using("Ask", f"{next_one}/Ask")) for one, next_one in pairwise(names)]
        await running.publish(*tools, running.tool(names[-1], method_of("Ask")), policy=ALL)
        text = await delegated(running, f"/{names[0]}/Ask")
        for name in names[1:MAX_HOPS]:
            text = await delegated(running, f"/{name}/Ask", carrying(text))

        last = await running.call(f"/{names[MAX_HOPS]}/Ask", carrying(text))
        assert last.code is grpc.StatusCode.OK
        answer = await running.call(f"/{names[-1]}/Ask", carrying(last.seen["llmesh-delegation"]))

    assert (answer.code, answer.info.reason) == (DENIED, "TOO_MANY_HOPS")
    assert " -> ".join(f"{name}/Ask" for name in names) in answer.message


async def test_rules_see_who_acts(running: Mesh) -> None:
    tool = running.tool(C, method_of("Get"), method_of("Other"))
    no_a = mesh_file(rule("all", "permit"), rule("not-for-a", "forbid", f"caller.actor == '{A}'"))
    a = running.tool(A, using("Ask", f"{C}/Get"))
    await running.publish(a, tool, policy=policy_of(parse_bundle(no_a, {})))

    answer = await running.call(f"/{C}/Get", carrying(await delegated(running, f"/{A}/Ask")))

    assert (answer.code, answer.info.metadata["rule"]) == (DENIED, "mesh/not-for-a")
    assert (await running.call(f"/{C}/Get")).code is grpc.StatusCode.OK


async def test_what_the_tool_itself_is_not_permitted_it_may_call_for_nobody(running: Mesh) -> None:
    write = method_of("Write", options.EFFECT_WRITE)
    tools = running.tool(A, using("Ask", f"{C}/Get", f"{C}/Write")), running.tool(C, method_of("Get"), write)
    reads = rule("reads", "permit", applies="{effects: [read]}")
    editors = mesh_file(reads, rule("writes", "permit", "'editor' in caller.roles"))
    await running.publish(*tools, policy=policy_of(parse_bundle(editors, {})))
    editor = bearer(token(roles=["editor"]))
    given = carrying(await delegated(running, f"/{A}/Ask", editor))

    assert (await running.call(f"/{C}/Write", editor)).code is grpc.StatusCode.OK
    assert (await running.call(f"/{C}/Write", given)).info.reason == "NOT_DELEGATED"
    assert (await running.call(f"/{C}/Get", given)).code is grpc.StatusCode.OK


async def test_what_a_caller_may_no_longer_do_no_tool_does_for_them(running: Mesh) -> None:
    given = carrying(await delegated(running, f"/{A}/Ask"))
    eve = mesh_file(rule("eve", "permit", "caller.subject == 'eve'"))
    await running.publish(running.tool(C, method_of("Get")), policy=policy_of(parse_bundle(eve, {})))

    assert (await running.call(f"/{C}/Get", given)).info.reason == "NO_RULE_PERMITS"


async def test_while_the_gateway_is_away_tools_are_called_without_a_token_and_told_so() -> None:
    async with mesh(xds=False) as running:
        async with serve_xds(running.publisher, running.folder / "xds.sock", running.tokens()):
            tool = running.tool(A, using("Ask", f"{C}/Get"), method_of("Get"))
            await running.publish(tool, running.tool(C, method_of("Get")), policy=ALL)
            given = carrying(minted(path=[f"/{B}/Ask"], methods=[f"/{A}/Ask"]))
            before = await running.call(f"/{A}/Ask", given)

        own, handed_on, other = [
            await running.call(f"/{A}/Ask"),
            await running.call(f"/{A}/Ask", given),
            await running.call(f"/{A}/Get"),
        ]
        assert {each.code for each in (before, own, handed_on, other)} == {grpc.StatusCode.OK}
        # Nor does the tool get the token that its caller came with.
        assert [DELEGATION_KEY in each.seen for each in (before, own, handed_on)] == [True, False, False]
        assert [AWAY_KEY in each.seen for each in (before, own, handed_on, other)] == [False, True, True, False]


async def test_what_the_rules_deny_is_denied_while_the_gateway_is_away() -> None:
    async with mesh(xds=False) as running:
        async with serve_xds(running.publisher, running.folder / "xds.sock", running.tokens()):
            eve = mesh_file(rule("eve", "permit", "caller.subject == 'eve'"))
            tool = running.tool(A, using("Ask", f"{C}/Get"))
            await running.publish(tool, policy=policy_of(parse_bundle(eve, {})))

        assert (await running.call(f"/{A}/Ask", bearer(token(sub="eve")))).code is grpc.StatusCode.OK
        assert (await running.call(f"/{A}/Ask", bearer(token(sub="sam")))).info.reason == "NO_RULE_PERMITS"


async def test_what_a_key_signed_is_believed_until_the_next_but_one(running: Mesh, tmp_path: Path) -> None:
    clock = FakeClock()
    keys = Keys(Home(tmp_path / "m").create(), clock)
    first = keys.signing()
    for believed in (True, True, False):
        await running.publish(running.tool(C, method_of("Get")), policy=replace(ALL, delegation_keys=keys.path))
        answer = await running.call(f"/{C}/Get", carrying(minted(key=first)))
        assert answer.code is (grpc.StatusCode.OK if believed else grpc.StatusCode.UNAUTHENTICATED)
        await turn(keys, clock, TURN_S)


async def test_keys_show_in_no_dump_and_tokens_in_no_log(running: Mesh) -> None:
    given = await delegated(running, f"/{A}/Ask")
    await running.call(f"/{C}/Get", carrying(given))

    async def logged() -> None:
        assert {line["path"] for line in running.logged()} >= {f"/{A}/Ask", f"/{C}/Get"}

    await eventually(logged)
    dump = await asyncio.to_thread(get, running.folder / "admin.sock", "/config_dump")
    written = "".join(path.read_text(errors="replace") for path in running.folder.glob("*.*l*") if path.is_file())
    for secret in (given, given.split(".")[1], str(KEYS.signing().as_dict(private=True)["k"])):
        assert secret not in str(dump)
        assert secret not in written


@pytest.mark.parametrize(
    "method",
    [f"/{C}/Get", f"/{C}/Other", f"/{B}/Ask", f"/{A}/Ask", "/x", f"/{C}/G%65t", f"/{C}/Gét"],
)
async def test_envoy_refuses_as_the_core_does(running: Mesh, method: str) -> None:
    caller = Caller("corp", "sam", ("r1", "r2"), "support", ("pii",))
    path = tuple(f"/acme.support.v1.T{number}/Ask" for number in range(2))
    for taken in (path, (*path, f"/{B}/Ask"), path * 3):
        delegation = Delegation(caller, taken, (f"/{C}/Get", f"/{A}/Ask"), "parent", int(time.time()) + 60)
        expected = refusal(delegation.claims(), method)
        answer = await running.call(method, carrying(minted(delegation)))
        if expected:
            assert (answer.code, answer.message) == (DENIED, expected.message)
            assert answer.info.reason == expected.reason
        elif answer.code is grpc.StatusCode.OK:
            assert derive(delegation.claims()) == replace(caller, actor=answer.seen["x-llmesh-actor"])
