"""Ways in which Envoy would fail open: each is tried on what we emit, and lets nobody in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any as Untyped
from typing import cast

import grpc
import pytest

from gateway.snapshot.blocks import BLOCKS
from gateway.snapshot.build import EXTENSION, Resource, Resources, build
from gateway.snapshot.caller import CALLER, VERIFY
from gateway.xds.messages import make, pack, serialize
from governance.bundle import Bundle, parse_bundle
from tests.envoy import Mesh, mesh, policy_of
from tests.eventually import eventually
from tests.governance.rules import domain, rule
from tests.governance.rules import mesh as mesh_file

SERVICE = "acme.support.v1.Tickets"
GET = f"/{SERVICE}/Get"
GOLDEN = Path(__file__).parents[1] / "snapshot/golden"
FILTERS = (VERIFY, CALLER, BLOCKS)
ALL_MAY = mesh_file(rule("all", "permit"))
REFUSED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNKNOWN)


def resources_of(running: Mesh, bundle: Bundle | None = None) -> Resources:
    return build({SERVICE: running.tool(SERVICE)}, policy_of(bundle or parse_bundle(ALL_MAY, {})))


def without(resources: Resources, name: str) -> Resources:
    return {**resources, EXTENSION: {each: value for each, value in resources[EXTENSION].items() if each != name}}


def with_script(resources: Resources, script: str) -> Resources:
    lua = make("envoy.extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": script})
    config = make("envoy.config.core.v3.TypedExtensionConfig", name=CALLER, typed_config=pack(lua))
    changed = {**resources[EXTENSION], CALLER: Resource(script, serialize(config))}
    return {**resources, EXTENSION: changed}


@pytest.mark.parametrize("name", FILTERS)
async def test_a_filter_that_is_taken_away_lets_nobody_in(name: str) -> None:
    async with mesh() as running:
        resources = resources_of(running)
        await running.publish_resources(resources)
        assert (await running.call(GET)).code is grpc.StatusCode.OK

        await running.publisher.publish(without(resources, name))
        assert await running.publisher.caught_up(within_s=20)

        async def lets_nobody_in() -> None:
            assert (await running.call(GET)).code in REFUSED

        # Envoy takes what is removed away after it has said that it knows.
        await eventually(lets_nobody_in)


@pytest.mark.parametrize("name", FILTERS)
async def test_the_port_stays_shut_while_one_of_the_filters_is_not_there(name: str) -> None:
    async with mesh() as running:
        resources = resources_of(running)
        await running.publisher.publish(without(resources, name))
        assert await running.publisher.caught_up(within_s=20)

        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", running.port)

        await running.publish_resources(resources)
        assert (await running.call(GET)).code is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("", id="nothing"),
        pytest.param("function envoy_on_request(handle) error('no') end", id="an error"),
        pytest.param("function envoy_on_request(handle) handle:streamInfo():dynamicMetadata():set('x', 'v', {}) end"),
        pytest.param(
            "function envoy_on_request(handle) handle:streamInfo():dynamicMetadata():set('llmesh.caller', 'v', {}) end",
            id="a caller of which nothing is told",
        ),
        pytest.param(
            "function envoy_on_request(handle) "
            "handle:streamInfo():dynamicMetadata():set('llmesh.caller', 'v', {subject = 7, roles = 'editor'}) end",
            id="a caller of other types",
        ),
        pytest.param(
            "function envoy_on_request(handle) handle:headers():replace('x-llmesh-issuer', 'corp') "
            "handle:headers():replace('x-llmesh-roles', 'editor') end",
            id="a caller without a subject",
        ),
    ],
)
async def test_where_no_caller_was_derived_nobody_is_let_in(script: str) -> None:
    rules = [
        rule("all", "permit"),
        rule("not", "permit", "!('pii' in caller.clearances)"),
        rule("differs", "permit", "caller.domain != 'support'"),
        rule("none", "forbid", "'blocked' in caller.roles"),
        rule("size", "permit", "size(caller.roles) == 0"),
    ]
    async with mesh() as running:
        resources = resources_of(running, parse_bundle(mesh_file(*rules), {}))
        await running.publish_resources(resources)
        assert (await running.call(GET)).code is grpc.StatusCode.OK

        await running.publish_resources(with_script(resources, script))

        assert (await running.call(GET)).code is grpc.StatusCode.PERMISSION_DENIED
        assert sum(running.backend.calls.values()) == 1


def caller_with(roles: str) -> str:
    """A script that derives a caller with these roles, as they travel."""
    told = {"issuer": "corp", "roles": roles, "subject": "sam"}
    lines = (f"handle:headers():replace('x-llmesh-{name}', '{value}')" for name, value in told.items())
    return f"function envoy_on_request(handle) {' '.join(lines)} end"


async def test_a_role_is_no_part_of_another_and_no_pattern() -> None:
    editors = rule("editors", "permit", "'support.editor' in caller.roles")
    async with mesh() as running:
        resources = resources_of(running, parse_bundle(mesh_file(editors), {}))
        for roles in ("supportXeditor", "support.editors", "a.support.editor", "support,editor", ""):
            await running.publish_resources(with_script(resources, caller_with(roles)))
            assert (await running.call(GET)).code is grpc.StatusCode.PERMISSION_DENIED, roles
        for roles in ("support.editor", "support.editor,b", "a,support.editor", "a,support.editor,b"):
            await running.publish_resources(with_script(resources, caller_with(roles)))
            assert (await running.call(GET)).code is grpc.StatusCode.OK, roles


async def test_a_role_that_nobody_can_have_lets_nobody_in() -> None:
    rules = [rule("both", "permit", "'a,b' in caller.roles"), rule("none", "permit", "'' in caller.roles")]
    async with mesh() as running:
        resources = resources_of(running, parse_bundle(mesh_file(*rules), {}))
        for roles in ("a,b", ""):
            await running.publish_resources(with_script(resources, caller_with(roles)))
            assert (await running.call(GET)).code is grpc.StatusCode.PERMISSION_DENIED, roles


async def test_deleting_a_domains_last_permit_widens_nothing() -> None:
    editors = rule("editors", "permit", "'editor' in caller.roles")
    async with mesh() as running:
        for rules in ([editors], []):
            bundle = parse_bundle(ALL_MAY, domain("support", *rules, default="deny"))
            await running.publish_resources(resources_of(running, bundle))

            assert (await running.call(GET)).code is grpc.StatusCode.PERMISSION_DENIED


def test_no_matcher_tree_is_keyed_by_metadata() -> None:
    """Such a tree is taken, and never matches."""
    golden: Untyped = [json.loads((GOLDEN / name).read_text()) for name in ("snapshot.json", "bootstrap.json")]
    trees = [tree for tree in _found(golden, "matcher_tree") if "DynamicMetadataInput" in json.dumps(tree)]

    assert trees == []


def test_no_rbac_that_decides_is_without_rules() -> None:
    """One without rules lets everybody through; of ours, none but the blocks may."""
    golden: Untyped = json.loads((GOLDEN / "snapshot.json").read_text())
    rbacs = [*_found(golden, "rbac")]

    assert rbacs
    assert [each for each in rbacs if not each.keys() & {"rules", "matcher"}] == []


def _found(value: Untyped, key: str) -> Iterator[Mapping[str, Untyped]]:
    """Every value of a key, however deep."""
    if isinstance(value, dict):
        for name, each in cast("dict[str, Untyped]", value).items():
            if name == key:
                yield each
            yield from _found(each, key)
    elif isinstance(value, list):
        for each in cast("list[Untyped]", value):
            yield from _found(each, key)
