"""Calls that a tool makes for its caller, through the real Envoy, with the tokens that the gateway mints."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc
import pytest

from gateway.catalog import Method
from governance.bundle import parse_bundle
from llmesh.api.options.v1 import options_pb2 as options
from tests.envoy import Mesh, Metadata, bearer, mesh, method_of, policy_of, token
from tests.governance.rules import mesh as mesh_file
from tests.governance.rules import rule

A, B, C = (f"acme.support.v1.{name}" for name in "ABC")
ALL = policy_of(parse_bundle(mesh_file(rule("all", "permit", "caller.domain != 'blocked'")), {}))


def using(name: str, *uses: str) -> Method:
    return method_of(name, options=options.Method(uses=uses))


@pytest.fixture
async def running() -> AsyncGenerator[Mesh]:
    async with mesh() as made:
        await made.publish(
            made.tool(A, using("Ask", f"{B}/Ask", f"{C}/Get"), method_of("Get")),
            made.tool(B, using("Ask", f"{A}/Ask", f"{C}/Get")),
            made.tool(C, method_of("Get"), method_of("Other")),
            policy=ALL,
        )
        yield made


async def delegated(running: Mesh, path: str, metadata: Metadata | None = None) -> Metadata:
    """The token that a tool is given with a call, as the tool sends it."""
    answer = await running.call(path, metadata)
    assert answer.code is grpc.StatusCode.OK, answer
    return (("llmesh-delegation", answer.seen["llmesh-delegation"]),)


async def test_a_tool_calls_another_for_its_caller(running: Mesh) -> None:
    sam = bearer(token(sub="sam", roles=["editor"], domain="support", clearances=["pii"]))
    first = await running.call(f"/{A}/Ask", sam)

    second = await running.call(f"/{C}/Get", (("llmesh-delegation", first.seen["llmesh-delegation"]),))

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


async def test_what_the_contract_does_not_list_is_refused(running: Mesh) -> None:
    answer = await running.call(f"/{C}/Other", await delegated(running, f"/{A}/Ask"))

    assert answer.code is grpc.StatusCode.PERMISSION_DENIED
    assert answer.info.reason == "NOT_DELEGATED"
    assert answer.message.startswith(f"{A}/Ask may not call {C}/Other for its caller")


async def test_a_loop_is_refused_with_its_path(running: Mesh) -> None:
    first = await delegated(running, f"/{A}/Ask")
    second = await delegated(running, f"/{B}/Ask", first)

    answer = await running.call(f"/{A}/Ask", second)

    assert (answer.code, answer.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "DELEGATION_LOOP")
    assert answer.message.startswith(f"{A}/Ask -> {B}/Ask -> {A}/Ask: a loop")
