"""What a call becomes on its way through the real Envoy."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from typing import Any as Untyped

import grpc
import pytest

from gateway.catalog import Endpoint
from gateway.snapshot.build import EXTENSION, ROUTES, Resource, Resources, build
from gateway.snapshot.caller import CALLER
from gateway.xds.messages import message_type, serialize
from governance.bundle import parse_bundle
from governance.language import LanguageError, compile_rule
from llmesh.api.options.v1 import options_pb2 as options
from tests.envoy import Mesh, bearer, mesh, method_of, policy_of, token
from tests.eventually import eventually
from tests.governance.rules import mesh as mesh_file
from tests.governance.rules import rule

ALL = policy_of(parse_bundle(mesh_file(rule("all", "permit", "caller.domain != 'blocked'")), {}))
SERVICE = "acme.support.v1.Tickets"


@pytest.fixture
async def running() -> AsyncGenerator[Mesh]:
    async with mesh() as made:
        tool = made.tool(
            SERVICE,
            method_of("Get"),
            method_of("Short", deadline=timedelta(seconds=10)),
            method_of("Write", options.EFFECT_WRITE),
            method_of("Safe", options.EFFECT_WRITE, idempotent=True),
        )
        await made.publish(tool, policy=ALL)
        yield made


async def test_a_client_cannot_say_who_it_is_nor_steer_envoy(running: Mesh) -> None:
    spoofed = {
        "x-llmesh-subject": "root",
        "x-llmesh-roles": "owner",
        "x-llmesh-domain": "support",
        "x-llmesh-clearances": "pii",
        "x-llmesh-actor": "robot",
        "x-llmesh-issuer": "other",
        "x-llmesh-call-id": "mine",
        "x-llmesh-anything": "else",
        "x-envoy-retry-on": "unavailable",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-original-path": "/other",
        "x-forwarded-for": "10.0.0.1",
        "x-forwarded-client-cert": "By=me",
        "x-request-id": "mine",
    }

    answer = await running.call(f"/{SERVICE}/Get", (*bearer(token(sub="sam")), *spoofed.items(), ("x-own", "kept")))

    derived = {
        name: answer.seen.get(f"x-llmesh-{name}") for name in ("subject", "roles", "domain", "clearances", "actor")
    }
    assert derived == {"subject": "sam", "roles": "", "domain": "", "clearances": "", "actor": ""}
    assert answer.seen["x-llmesh-issuer"] == "corp"
    assert "x-llmesh-anything" not in answer.seen
    assert "authorization" not in answer.seen
    assert not {name for name in answer.seen if name.startswith("x-envoy-retry") or name == "x-forwarded-client-cert"}
    assert "mine" not in answer.seen.values()
    assert "10.0.0.1" not in answer.seen.values()
    assert answer.seen["x-own"] == "kept"


async def test_every_answer_carries_the_call_id_that_the_tool_saw(running: Mesh) -> None:
    first, second = await running.call(f"/{SERVICE}/Get"), await running.call(f"/{SERVICE}/Get")

    assert first.metadata["x-llmesh-call-id"] == first.seen["x-llmesh-call-id"] != ""
    assert first.metadata["x-llmesh-call-id"] != second.metadata["x-llmesh-call-id"]


@pytest.mark.parametrize(
    ("method", "timeout_s", "least_s", "most_s"),
    [
        pytest.param("Get", None, 15, 30, id="none stated: the contract's"),
        pytest.param("Get", 14, 0, 14, id="shorter than the contract's: the caller's"),
        pytest.param("Get", 500, 15, 30, id="longer than the contract's: capped"),
        pytest.param("Short", None, 0, 10, id="none stated, a short contract"),
        pytest.param("Short", 500, 0, 10, id="capped at a short contract"),
    ],
)
async def test_the_tool_learns_how_long_it_has(
    running: Mesh, method: str, timeout_s: float | None, least_s: float, most_s: float
) -> None:
    answer = await running.call(f"/{SERVICE}/{method}", timeout_s=timeout_s)

    # gRPC clients round what they send up a little.
    assert least_s < json.loads(answer.body)["remaining_s"] < most_s + 0.1


@pytest.mark.parametrize(
    ("method", "failures", "code", "calls"),
    [
        pytest.param("Get", 1, grpc.StatusCode.OK, 2, id="a read is tried once more"),
        pytest.param("Get", 5, grpc.StatusCode.UNAVAILABLE, 2, id="and no more than that"),
        pytest.param("Write", 1, grpc.StatusCode.UNAVAILABLE, 1, id="a write never"),
        pytest.param("Safe", 1, grpc.StatusCode.OK, 2, id="unless it is idempotent"),
    ],
)
async def test_only_what_changes_nothing_is_sent_twice(
    running: Mesh, method: str, failures: int, code: grpc.StatusCode, calls: int
) -> None:
    running.backend.failing = failures

    answer = await running.call(f"/{SERVICE}/{method}")

    assert answer.code is code
    assert running.backend.calls[f"/{SERVICE}/{method}"] == calls


async def test_a_tools_own_failure_is_passed_on_as_it_is(running: Mesh) -> None:
    running.backend.failing = 1

    answer = await running.call(f"/{SERVICE}/Write")

    assert (answer.code, answer.message) == (grpc.StatusCode.UNAVAILABLE, "not now")


async def test_an_endpoint_that_is_dead_is_stepped_over(running: Mesh) -> None:
    tool = running.tool(SERVICE)
    both = (Endpoint(f"unix:{running.folder}/dead.sock", "file"), *tool.endpoints)
    await running.publish(replace(tool, endpoints=both, ready=frozenset(both)), policy=ALL)

    answers = [await running.call(f"/{SERVICE}/Get") for _ in range(20)]

    assert {answer.code for answer in answers} == {grpc.StatusCode.OK}


async def test_an_endpoint_that_is_not_ready_is_not_called(running: Mesh) -> None:
    tool = running.tool(SERVICE)
    await running.publish(replace(tool, ready=frozenset()), policy=ALL)

    assert (await running.call(f"/{SERVICE}/Get")).code is grpc.StatusCode.UNAVAILABLE
    assert not running.backend.calls


async def test_a_call_is_logged_once_without_its_token_or_content(running: Mesh) -> None:
    text = token(sub="sam")
    answer = await running.call(f"/{SERVICE}/Get", bearer(text))

    async def found() -> dict[str, Untyped]:
        lines = [line for line in running.logged() if line["call_id"] == answer.metadata["x-llmesh-call-id"]]
        assert len(lines) == 1
        return lines[0]

    line = await eventually(found)
    assert (line["path"], line["issuer"], line["caller"]) == (f"/{SERVICE}/Get", "corp", "sam")
    assert (line["contract"], line["code"]) == ("digest", "OK")
    assert text not in json.dumps(line)


def without_rules(resources: Resources) -> Resources:
    """The resources, no route of which brings rules of its own."""
    message: Untyped = message_type("envoy.config.route.v3.RouteConfiguration").FromString(
        resources[ROUTES][SERVICE].value
    )
    for route in message.virtual_hosts[0].routes:
        del route.typed_per_filter_config["llmesh.rules"]
    return {**resources, ROUTES: {SERVICE: Resource("without rules", serialize(message))}}


async def test_a_route_that_brings_no_rules_is_open_to_nobody(running: Mesh) -> None:
    resources = build({SERVICE: running.tool(SERVICE)}, ALL)
    await running.publish_resources(without_rules(resources))

    assert (await running.call(f"/{SERVICE}/Get")).code is grpc.StatusCode.PERMISSION_DENIED
    assert not running.backend.calls


@pytest.mark.parametrize("line", ['headers:replace("x-llmesh-call-id"', 'headers:replace("x-llmesh-roles"'])
async def test_a_caller_that_is_derived_in_part_may_call_nothing(running: Mesh, line: str) -> None:
    resources = build({SERVICE: running.tool(SERVICE)}, ALL)
    config: Untyped = message_type("envoy.config.core.v3.TypedExtensionConfig").FromString(
        resources[EXTENSION][CALLER].value
    )
    lua: Untyped = message_type("envoy.extensions.filters.http.lua.v3.Lua").FromString(config.typed_config.value)
    script = lua.default_source_code.inline_string
    assert line in script
    lua.default_source_code.inline_string = script.replace(line, f'error("nobody thought of this") {line}')
    config.typed_config.value = serialize(lua)
    failing = {**resources[EXTENSION], CALLER: Resource("failing", serialize(config))}

    await running.publish_resources({**resources, EXTENSION: failing})

    assert (await running.call(f"/{SERVICE}/Get")).code is grpc.StatusCode.PERMISSION_DENIED
    assert not running.backend.calls


def compiles(text: str) -> bool:
    try:
        compile_rule(text)
    except LanguageError:
        return False
    return True


async def test_many_deep_rules_are_taken_by_envoy(running: Mesh) -> None:
    deep, deeper = "", "caller.subject == 'sam'"
    while compiles(deeper):
        deep, deeper = deeper, f"!(caller.domain == 'd0' ? caller.domain != 'd0' : !({deeper}))"
    rules = [rule(f"r{number:03}", "permit", f"caller.domain == 'd{number}'") for number in range(400)]
    policy = policy_of(parse_bundle(mesh_file(rule("deep", "permit", deep), *rules), {}))

    await running.publish(running.tool(SERVICE), policy=policy)

    assert running.refused == []
    assert (await running.call(f"/{SERVICE}/Get", bearer(token(domain="d399")))).code is grpc.StatusCode.OK
    assert (await running.call(f"/{SERVICE}/Get", bearer(token(sub="sam")))).code is grpc.StatusCode.OK
    assert (await running.call(f"/{SERVICE}/Get", bearer(token(sub="eve")))).code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_tool_without_methods_harms_nothing(running: Mesh) -> None:
    empty = replace(running.tool("acme.support.v1.Empty"), methods=())
    await running.publish(empty, running.tool(SERVICE), policy=ALL)

    assert running.refused == []
    assert (await running.call("/acme.support.v1.Empty/Get")).code is grpc.StatusCode.UNIMPLEMENTED
    assert (await running.call(f"/{SERVICE}/Get")).code is grpc.StatusCode.OK
