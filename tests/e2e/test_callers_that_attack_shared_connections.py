"""Calls share Envoy's connections to a tool: what one caller sends wrongly must not stay there for the others.

Each test also takes the cures away and sees the harm, so that it would see it come back.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any as Untyped

import pytest
from google.protobuf.message import Message

from gateway.listener.bootstrap import Edge, bootstrap
from gateway.listener.edge import ENCODING as ENCODING_POLICY
from gateway.listener.edge import TIMEOUT as TIMEOUT_POLICY
from gateway.snapshot.build import CLUSTER, ROUTES, Resource, Resources, build
from gateway.xds.messages import message_type
from tests import envoy
from tests.e2e.raw import Header, RawConnection, frame
from tests.envoy import Mesh, bearer, mesh, policy_of, token

SERVICE = "acme.support.v1.Tickets"
GET = f"/{SERVICE}/Get"
MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"
FILTER, REWRITE, OWN = "the edge's filter", "the route's cap", "own connections"
ROUNDS, AFTER_EACH = 3, 20


@dataclass(frozen=True, slots=True)
class Attack:
    """What a caller sends wrongly, and what others send rightly that is harmed by it."""

    bad: Header
    good: Header


TIMEOUT = Attack(("grpc-timeout", "nonsense"), ("grpc-timeout", "30S"))
ENCODING = Attack(("grpc-encoding", "llzip"), ("grpc-encoding", "gzip"))


def without_filter(edge: Edge) -> Message:
    """The bootstrap, but nothing looks at deadlines and encodings at the edge."""
    made: Untyped = bootstrap(edge)
    config = made.static_resources.listeners[0].filter_chains[0].filters[0].typed_config
    manager: Untyped = message_type(MANAGER).FromString(config.value)
    looks = next(each for each in manager.http_filters if each.name == "llmesh.edge").typed_config
    rules: Untyped = message_type(RBAC).FromString(looks.value)
    for name in (TIMEOUT_POLICY, ENCODING_POLICY):
        del rules.rules.policies[name]
    looks.value = rules.SerializeToString()
    config.value = manager.SerializeToString()
    return made


def shared(cluster: Untyped) -> None:
    """Let Envoy send all callers' calls by one connection, as it does by default, and as behind a proxy."""
    assert cluster.connection_pool_per_downstream_connection
    cluster.connection_pool_per_downstream_connection = False


def without_rewrite(routes: Untyped) -> None:
    """Let deadlines pass as they are."""
    for host in routes.virtual_hosts:
        for route in host.routes:
            route.route.ClearField("max_stream_duration")


def changed(resources: Resources, url: str, name: str, change: Callable[[Untyped], None]) -> Resources:
    """The same resources, but for all of one type."""

    def with_change(resource: Resource) -> Resource:
        message = message_type(name).FromString(resource.value)
        change(message)
        value = message.SerializeToString(deterministic=True)
        return Resource(hashlib.sha256(value).hexdigest(), value)

    one: Mapping[str, Resource] = {key: with_change(each) for key, each in resources[url].items()}
    return {**resources, url: one}


@asynccontextmanager
async def cured_by(monkeypatch: pytest.MonkeyPatch, *cures: str) -> AsyncGenerator[Mesh]:
    """A mesh with these cures alone."""
    if FILTER not in cures:
        monkeypatch.setattr(envoy, "bootstrap", without_filter)
    async with mesh() as running:
        resources = build({SERVICE: running.tool(SERVICE)}, policy_of())
        if OWN not in cures:
            resources = changed(resources, CLUSTER, "envoy.config.cluster.v3.Cluster", shared)
        if REWRITE not in cures:
            resources = changed(resources, ROUTES, "envoy.config.route.v3.RouteConfiguration", without_rewrite)
        await running.publish_resources(resources)
        yield running


async def after(running: Mesh, attack: Attack, *, rounds: int = ROUNDS, each: int = AFTER_EACH) -> Counter[str]:
    """What becomes of good calls after another caller's bad ones: code -> calls."""

    def calls() -> Counter[str]:
        found: Counter[str] = Counter()
        who = bearer(token())
        compressed = attack.good == ENCODING.good
        with RawConnection(running.port) as attacker, RawConnection(running.port) as other:
            for _ in range(rounds):
                attacker.call(GET, *who, attack.bad, body=frame(b""))
                for _ in range(each):
                    answer = other.call(GET, *who, attack.good, body=frame(b"", compress=compressed))
                    found[answer.get("grpc-status")] += 1
        return found

    return await asyncio.to_thread(calls)


@pytest.mark.parametrize("cures", [(FILTER, REWRITE, OWN), (FILTER,), (REWRITE,), (OWN,)], ids=" and ".join)
async def test_a_malformed_deadline_harms_no_later_call(
    monkeypatch: pytest.MonkeyPatch, cures: tuple[str, ...]
) -> None:
    async with cured_by(monkeypatch, *cures) as running:
        assert await after(running, TIMEOUT) == {"0": ROUNDS * AFTER_EACH}


async def test_without_any_cure_a_malformed_deadline_fails_the_calls_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cured_by(monkeypatch) as running:
        # Few: the tool takes its time over each.
        found = await after(running, TIMEOUT, rounds=1, each=8)
    assert found["13"] >= 4, found


@pytest.mark.parametrize("cure", [FILTER, OWN])
async def test_an_unknown_encoding_harms_no_later_call(monkeypatch: pytest.MonkeyPatch, cure: str) -> None:
    async with cured_by(monkeypatch, REWRITE, cure) as running:
        assert await after(running, ENCODING) == {"0": ROUNDS * AFTER_EACH}


async def test_without_the_cure_an_unknown_encoding_fails_the_calls_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cured_by(monkeypatch, REWRITE) as running:
        found = await after(running, ENCODING, rounds=1, each=8)
    assert found["13"] >= 4, found
