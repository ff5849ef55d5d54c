from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any as Untyped

import pytest
from google.protobuf.message import Message

from gateway.catalog import Endpoint, Tool
from gateway.listener.bootstrap import bootstrap
from gateway.snapshot import access, caller
from gateway.snapshot.build import CLUSTER, ENDPOINTS, EXTENSION, ROUTES, SCOPE, Resources, build
from gateway.snapshot.parts import service_of
from gateway.xds.messages import message_type
from governance.bundle import parse_bundle
from governance.residue import Residue, specialise
from tests.gateway.snapshot.catalog import (
    DOCS,
    EDGE,
    GOLDEN,
    MESH,
    SUPPORT,
    TICKETS,
    as_json,
    golden_files,
    method,
    policy,
    tools,
)
from tests.governance.rules import READ, shipped

ROOT = Path(__file__).parents[3]
# Of an RBAC.
ALLOW, DENY = 0, 1


def digest(resources: Resources) -> str:
    found = hashlib.sha256()
    for url, by_name in sorted(resources.items()):
        for name, resource in sorted(by_name.items()):
            found.update(f"{url} {name} {resource.version}".encode() + resource.value)
    return found.hexdigest()


def changed(before: Resources, after: Resources) -> set[tuple[str, str]]:
    """(type, name) of what differs."""
    names = {(url, name) for side in (before, after) for url, by_name in side.items() for name in by_name}
    return {(url, name) for url, name in names if before[url].get(name) != after[url].get(name)}


@pytest.mark.parametrize("name", ["snapshot.json", "bootstrap.json"])
def test_the_resources_are_as_agreed(name: str) -> None:
    # To agree to a change: python -m tests.gateway.snapshot.catalog
    assert golden_files()[name] == (GOLDEN / name).read_text()


def test_equal_inputs_give_equal_bytes_in_any_order() -> None:
    turned = dict(reversed(tools().items()))
    labels = {"a": "b", "tier": "gold", "language": "en"}
    turned[TICKETS].sheet.labels.clear()
    turned[TICKETS].sheet.labels.update(labels)

    assert digest(build(tools(), policy())) == digest(build(turned, policy()))


@pytest.mark.parametrize("seed", ["1", "2"])
def test_another_process_makes_the_same_bytes(seed: str) -> None:
    program = (
        "from tests.gateway.snapshot.catalog import *; from tests.gateway.snapshot.test_build import digest;"
        "print(digest(build(tools(), policy())))"
    )
    environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}

    made = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )

    assert made.stdout.strip() == digest(build(tools(), policy()))


def with_tool(tool: Tool) -> dict[str, Tool]:
    return {**tools(), tool.service: tool}


# A method with a limit of its own.
GET = f"{TICKETS}@/Get"
MOVED = Endpoint("unix:/run/tools/tickets-2.sock", "lease")
A_TOOL = (CLUSTER, ENDPOINTS, ROUTES, SCOPE)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param(tools(), set[tuple[str, str]](), id="nothing"),
        pytest.param(
            with_tool(replace(tools()[TICKETS], endpoints=(MOVED,))),
            {(ENDPOINTS, TICKETS), (ENDPOINTS, GET)},
            id="another endpoint",
        ),
        pytest.param(
            with_tool(replace(tools()[TICKETS], ready=frozenset())),
            {(ENDPOINTS, TICKETS), (ENDPOINTS, GET)},
            id="not ready",
        ),
        pytest.param(
            with_tool(replace(tools()[TICKETS], methods=(method("Get", 1, max_concurrency=16),))),
            {(ROUTES, TICKETS), (CLUSTER, TICKETS), (CLUSTER, GET), (ENDPOINTS, GET)},
            id="other methods",
        ),
        pytest.param(
            with_tool(replace(tools()[DOCS], methods=(method("Find", 1, max_concurrency=4),))),
            {(CLUSTER, DOCS)},
            id="another limit",
        ),
        pytest.param({TICKETS: tools()[TICKETS]}, {(url, DOCS) for url in A_TOOL}, id="one tool gone"),
        pytest.param(
            with_tool(replace(tools()[DOCS], service="acme.new.v1.New")),
            {(url, "acme.new.v1.New") for url in A_TOOL},
            id="one tool more",
        ),
    ],
)
def test_a_change_of_the_catalog_changes_only_what_it_is_about(
    after: Mapping[str, Tool], expected: set[tuple[str, str]]
) -> None:
    assert changed(build(tools(), policy()), build(after, policy())) == expected


@pytest.mark.parametrize(
    ("mesh", "support", "expected"),
    [
        pytest.param(MESH, SUPPORT.replace("pii", "secret"), {(ROUTES, TICKETS)}, id="a domain's rule"),
        pytest.param(MESH + "#", SUPPORT, set[tuple[str, str]](), id="a remark"),
        pytest.param(
            MESH + "- {id: never, effect: forbid, reason: r, when: tool.domain == 'sales'}",
            SUPPORT,
            set[tuple[str, str]](),
            id="a rule that bears on no tool",
        ),
        pytest.param(
            MESH + "- {id: robots, effect: forbid, reason: r, when: caller.actor != ''}",
            SUPPORT,
            {(ROUTES, TICKETS), (ROUTES, DOCS)},
            id="a rule that bears on all",
        ),
    ],
)
def test_a_change_of_the_rules_changes_only_the_routes_it_bears_on(
    mesh: str, support: str, expected: set[tuple[str, str]]
) -> None:
    assert changed(build(tools(), policy()), build(tools(), policy(mesh, support))) == expected


def test_other_keys_change_only_the_filter_that_verifies() -> None:
    rotated = replace(policy(), keys={"corp": '{"keys": [{}]}'})

    assert changed(build(tools(), policy()), build(tools(), rotated)) == {(EXTENSION, caller.VERIFY)}


def messages_in(message: Message) -> Iterator[Message]:
    """The message and all inside it, those packed into Anys too."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        is_map = field.message_type.GetOptions().map_entry
        held: Untyped = value
        if is_map and field.message_type.fields_by_name["value"].message_type is None:
            continue
        found = list(held.values()) if is_map else list(held) if field.is_repeated else [held]
        for item in found:
            yield from messages_in(_unpacked(item))


def _unpacked(message: Untyped) -> Message:
    if message.DESCRIPTOR.full_name != "google.protobuf.Any":
        return message
    return message_type(message.type_url.rpartition("/")[2]).FromString(message.value)


def everything(resources: Resources) -> Iterator[Message]:
    for url, by_name in resources.items():
        for resource in by_name.values():
            yield from messages_in(message_type(url.rpartition("/")[2]).FromString(resource.value))
    yield from messages_in(bootstrap(EDGE))


def test_a_condition_is_never_one_that_envoy_ignores() -> None:
    policies: list[Untyped] = [
        message for message in everything(build(tools(), policy())) if message.DESCRIPTOR.name == "Policy"
    ]

    assert len(policies) > 3
    assert not [found for found in policies if found.HasField("checked_condition")]


@pytest.mark.parametrize(
    ("limits", "tools_own", "parts"),
    [
        pytest.param((), 1024, {}, id="no method"),
        pytest.param((0, 0), 1024, {}, id="no limit"),
        pytest.param((16,), 16, {}, id="one method's is the tool's"),
        pytest.param((0, 1), 1024, {"/M1": 1}, id="one limited, the other not"),
        pytest.param((16, 4, 4), 16, {"/M1": 4, "/M2": 4}, id="each its own"),
        pytest.param((4, 4), 4, {"/M1": 4}, id="never two methods one limit"),
        pytest.param((0, 65536, 0), 1024, {"/M1": 65536}, id="more than the default"),
        pytest.param((65536, 65536), 65536, {}, id="more than anybody needs"),
        pytest.param((0, *[9] * 32, 5, 7), 1024, {f"/M{n}": 9 for n in range(1, 33)} | {"/": 5}, id="very many"),
    ],
)
def test_each_methods_limit_is_its_own(limits: tuple[int, ...], tools_own: int, parts: Mapping[str, int]) -> None:
    methods = tuple(method(f"M{number}", 1, max_concurrency=limit) for number, limit in enumerate(limits))
    built = build(with_tool(replace(tools()[DOCS], methods=methods)), policy())

    found: dict[str, int] = {}
    for name, resource in built[CLUSTER].items():
        cluster: Untyped = message_type("envoy.config.cluster.v3.Cluster").FromString(resource.value)
        thresholds = cluster.circuit_breakers.thresholds[0]
        assert thresholds.max_requests == thresholds.max_pending_requests
        found[name] = thresholds.max_requests.value
    of_docs = {name: limit for name, limit in found.items() if service_of(name) == DOCS}
    assert of_docs == {DOCS: tools_own, **{f"{DOCS}@{part}": limit for part, limit in parts.items()}}
    assert {name for name in built[ENDPOINTS] if service_of(name) == DOCS} == of_docs.keys()


def rules_of(residue: Residue) -> Untyped:
    """The RBAC of a route."""
    per_route: Untyped = _unpacked(message_type("google.protobuf.Any")(**access.rules(residue)))
    return per_route.rbac


def test_every_route_brings_its_own_rules_and_refusals() -> None:
    routes: list[Untyped] = [
        message
        for message in everything(build(tools(), policy()))
        if message.DESCRIPTOR.full_name == "envoy.config.route.v3.Route"
    ]

    assert len(routes) == 5
    for route in routes:
        per_route: Untyped = _unpacked(route.typed_per_filter_config["llmesh.rules"])
        assert per_route.rbac.HasField("rules") or per_route.rbac.matcher.matcher_list.matchers


def test_only_the_first_matcher_of_a_route_allows_and_the_rest_are_refused() -> None:
    forbidding = parse_bundle(MESH + "- {id: robots, effect: forbid, reason: r, when: caller.actor != ''}", {})
    rbac = rules_of(specialise(forbidding, READ))

    actions: list[Untyped] = [
        _unpacked(each.on_match.action.typed_config) for each in rbac.matcher.matcher_list.matchers
    ]
    assert [action.name for action in actions] == [access.PERMIT, "mesh/robots"]
    assert [action.action for action in actions] == [ALLOW, DENY]
    assert not rbac.matcher.HasField("on_no_match")


def test_the_listener_itself_is_open_to_nobody() -> None:
    deny: Untyped = access.deny_all()

    assert deny.rules.Action.Name(deny.rules.action) == "ALLOW"
    assert not deny.rules.policies
    assert '"llmesh.rules"' in golden_files()["bootstrap.json"]


def test_a_method_that_nobody_may_call_has_rules_that_allow_nothing() -> None:
    rbac = rules_of(specialise(shipped(), replace(READ, effect=0)))

    assert rbac.HasField("rules")
    assert not rbac.rules.policies


def test_an_allow_demands_a_subject_even_where_everyone_may() -> None:
    reads: Residue = specialise(shipped(), READ)

    [allowing] = rules_of(reads).matcher.matcher_list.matchers
    assert "subject" in str(_unpacked(allowing.predicate.single_predicate.input.typed_config))


def test_a_hidden_tools_routes_tell_nothing_of_its_rules() -> None:
    hidden = str(as_json(build(tools(), policy()))["RouteConfiguration"][DOCS])

    assert "everyone reads" not in hidden
    assert "rbac_access_denied" not in hidden
