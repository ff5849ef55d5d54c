"""The real Envoy kept in step: refusals, removals, restarts of what programs it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any as Untyped
from typing import cast

import grpc
import pytest

from gateway.snapshot.build import CLUSTER, ENDPOINTS, EXTENSION, ROUTES, SCOPE, Resource, Resources, build
from gateway.snapshot.caller import CALLER, VERIFY
from gateway.xds import delta
from gateway.xds.messages import make, message_type, serialize
from gateway.xds.publish import Publisher
from governance.issuers import parse_issuers
from tests.e2e.admin import get
from tests.envoy import ISSUERS, KEY, Mesh, bearer, mesh, policy_of, serve_xds, token
from tests.eventually import eventually

TICKETS, TICKET, OTHER = "acme.support.v1.Tickets", "acme.support.v1.Ticket", "acme.support.v1.Other"
POLICY = policy_of()


@pytest.fixture
async def running() -> AsyncGenerator[Mesh]:
    async with mesh() as made:
        yield made


def built(running: Mesh, *services: str) -> Resources:
    return build({service: running.tool(service) for service in services}, POLICY)


def poisoned(resources: Resources, url: str, name: str) -> Resources:
    """The resources, one of which Envoy can read but will not take."""
    message: Untyped = message_type(url.rpartition("/")[2]).FromString(resources[url][name].value)
    if url == ROUTES:
        message.virtual_hosts[0].routes[0].request_headers_to_add.add().header.key = ":path"
    elif url == EXTENSION:
        lua: Untyped = message_type("envoy.extensions.filters.http.lua.v3.Lua")()
        lua.default_source_code.inline_string = "function ("
        message.typed_config.value = serialize(lua)
    else:
        message.connect_timeout.seconds = -1
    return {**resources, url: {**resources[url], name: Resource(f"poisoned {name}", serialize(message))}}


async def code(running: Mesh, service: str) -> grpc.StatusCode:
    return (await running.call(f"/{service}/Get")).code


async def reached(running: Mesh, *services: str) -> None:
    for service in services:
        assert await code(running, service) is grpc.StatusCode.OK, service


@pytest.mark.parametrize("url", [ROUTES, CLUSTER], ids=["routes", "cluster"])
async def test_a_refused_part_goes_back_to_what_envoy_last_took(running: Mesh, url: str) -> None:
    await running.publish_resources(built(running, TICKETS, OTHER))

    await running.publish_resources(poisoned(built(running, TICKETS, OTHER, TICKET), url, TICKETS))

    assert [name for name, _ in running.refused] == [TICKETS]
    assert (":-prefixed" if url == ROUTES else "Invalid duration") in running.refused[0][1]
    await reached(running, TICKETS, OTHER, TICKET)
    assert running.accepted == []

    await running.publish_resources(built(running, TICKETS, OTHER, TICKET))
    assert running.accepted == [TICKETS]


async def test_refused_routes_do_not_go_back_to_those_of_other_rules(running: Mesh) -> None:
    async def publish(resources: Resources, rules: str) -> None:
        await running.publisher.publish(resources, rules=rules)
        assert await running.publisher.caught_up(within_s=60)

    await publish(built(running, TICKETS, OTHER), "old")
    await asyncio.wait_for(running.channel.channel_ready(), 60)
    await publish(poisoned(built(running, TICKETS, OTHER), ROUTES, TICKETS), "old")
    await reached(running, TICKETS, OTHER)

    await publish(poisoned(built(running, TICKETS, OTHER), ROUTES, TICKETS), "new")

    assert await code(running, TICKETS) is grpc.StatusCode.UNIMPLEMENTED
    await reached(running, OTHER)
    assert running.publisher.refused_names == {TICKETS: False}
    await publish(built(running, TICKETS, OTHER), "new")
    await reached(running, TICKETS, OTHER)


@pytest.mark.parametrize("url", [ROUTES, CLUSTER], ids=["routes", "cluster"])
async def test_a_refused_new_tool_harms_no_other(running: Mesh, url: str) -> None:
    # All arrive at once, and one's name is the beginning of another's.
    await running.publish_resources(poisoned(built(running, TICKET, TICKETS, OTHER), url, TICKETS))

    assert [name for name, _ in running.refused] == [TICKETS]
    await reached(running, TICKET, OTHER)
    assert await code(running, TICKETS) is not grpc.StatusCode.OK

    await running.publish_resources(built(running, TICKET, TICKETS, OTHER))
    assert running.accepted == [TICKETS]
    await reached(running, TICKETS)


async def test_several_refused_tools_are_each_told(running: Mesh) -> None:
    resources = built(running, TICKET, TICKETS, OTHER)
    await running.publish_resources(poisoned(poisoned(resources, ROUTES, TICKETS), ROUTES, TICKET))

    assert sorted({name for name, _ in running.refused}) == [TICKET, TICKETS]
    await reached(running, OTHER)


async def test_bytes_that_are_no_resource_harm_only_their_tool(running: Mesh) -> None:
    resources = built(running, TICKETS, OTHER)
    junk = Resource("junk", b"\xff\xff\xff")

    await running.publish_resources({**resources, ROUTES: {**resources[ROUTES], TICKETS: junk}})

    assert [name for name, _ in running.refused] == [TICKETS]
    await reached(running, OTHER)


async def test_a_filter_that_is_refused_while_another_changes_is_known_to_be(running: Mesh) -> None:
    await running.publish_resources(built(running, TICKETS))
    bindings = parse_issuers(ISSUERS + "  - {claim: groups, grants: role}\n")
    off_the_curve = json.dumps({"keys": [{**KEY.as_dict(private=False), "x": "AAAA"}]})

    policy = replace(POLICY, issuers=bindings, keys={"corp": off_the_curve})
    await running.publish_resources(build({TICKETS: running.tool(TICKETS)}, policy))

    assert [name for _, name, _ in running.publisher.refusals] == [VERIFY]
    assert [name for name, _ in running.refused] == [VERIFY]


@dataclass(slots=True)
class Traffic:
    """Calls without end to some tools, and what became of them."""

    codes: Counter[str] = field(default_factory=Counter[str])


@asynccontextmanager
async def traffic(running: Mesh, *services: str) -> AsyncGenerator[Traffic]:
    seen = Traffic()
    carried = bearer(token())

    async def go_on() -> None:
        while True:
            for service in services:
                answer = await running.call(f"/{service}/Get", carried)
                seen.codes[answer.code.name] += 1

    async with asyncio.TaskGroup() as tasks:
        running_now = [tasks.create_task(go_on()) for _ in range(4)]
        yield seen
        for task in running_now:
            task.cancel()


async def test_tools_come_and_go_under_traffic_without_a_failed_call(running: Mesh) -> None:
    await running.publish_resources(built(running, TICKETS, OTHER))

    async with traffic(running, TICKETS, OTHER) as seen:
        for number in range(15):
            name = f"acme.support.v1.New{number}"
            await running.publish_resources(built(running, TICKETS, OTHER, name))
            # Callable at once, and gone at once.
            await reached(running, name)
            await running.publish_resources(built(running, TICKETS, OTHER))
            assert await code(running, name) is grpc.StatusCode.UNIMPLEMENTED

    assert set(seen.codes) == {"OK"}
    assert seen.codes["OK"] > 30


async def test_a_tool_that_went_can_come_back(running: Mesh) -> None:
    for _ in range(3):
        await running.publish_resources(built(running, TICKETS))
        await reached(running, TICKETS)
        await running.publish_resources(built(running))
        assert await code(running, TICKETS) is grpc.StatusCode.UNIMPLEMENTED


async def test_many_tools_at_once_are_all_served(running: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    # Split into many responses.
    monkeypatch.setattr(delta, "MAX_RESPONSE_BYTES", 20_000)
    services = [f"acme.support.v1.T{number}" for number in range(60)]

    await running.publish_resources(built(running, *services))

    assert running.refused == []
    await reached(running, *services)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(type, name) of all that is sent to Envoy from now on; removals with a minus."""
    found: list[tuple[str, str]] = []

    def record(name: str, /, **fields: Untyped) -> Untyped:
        if "resources" in fields:
            found.extend((fields["type_url"], resource["name"]) for resource in fields["resources"])
            found.extend((fields["type_url"], f"-{removed}") for removed in fields["removed_resources"])
        return make(name, **fields)

    monkeypatch.setattr(delta, "make", record)
    return found


def another_publisher() -> Publisher:
    def ignore(name: str, words: str = "") -> None:
        """These tests look at what is sent."""

    return Publisher(on_refused=ignore, on_accepted=ignore)


async def test_a_gateway_that_starts_anew_resends_nothing_and_no_call_fails(sent: list[tuple[str, str]]) -> None:
    async with mesh(xds=False) as running:
        socket = running.folder / "xds.sock"
        async with serve_xds(running.publisher, socket):
            await running.publish_resources(built(running, TICKETS, OTHER))
        sent.clear()

        async with traffic(running, TICKETS, OTHER) as seen:
            before = seen.codes.total()
            publisher = another_publisher()
            async with serve_xds(publisher, socket):
                await publisher.publish(built(running, TICKETS, OTHER))
                assert await publisher.caught_up(within_s=60)
                assert sent == []
                # What changed meanwhile is sent, and nothing else.
                await publisher.publish(built(running, TICKETS, OTHER, TICKET))
                assert await publisher.caught_up(within_s=60)
                assert {name for _, name in sent} == {TICKET}
                await reached(running, TICKET)
            assert seen.codes.total() > before

        assert set(seen.codes) == {"OK"}


@pytest.mark.parametrize(
    ("url", "name"),
    [(ROUTES, TICKETS), (CLUSTER, TICKETS), (EXTENSION, CALLER)],
    ids=["routes", "cluster", "the filter that every call passes"],
)
async def test_what_envoy_serves_stays_when_it_refuses_the_first_version_of_a_new_gateway(
    sent: list[tuple[str, str]], url: str, name: str
) -> None:
    async with mesh(xds=False) as running:
        socket = running.folder / "xds.sock"
        async with serve_xds(running.publisher, socket):
            await running.publish_resources(built(running, TICKETS, OTHER))
        sent.clear()
        publisher = another_publisher()
        async with serve_xds(publisher, socket):
            await publisher.publish(poisoned(built(running, TICKETS, OTHER), url, name))
            assert await publisher.caught_up(within_s=60)
            await reached(running, TICKETS, OTHER)
            assert {sent_name for _, sent_name in sent} == {name}

            await publisher.publish(built(running, TICKETS, OTHER))
            assert await publisher.caught_up(within_s=60)
            await publisher.publish(poisoned(built(running, TICKETS, OTHER), url, name))
            assert await publisher.caught_up(within_s=60)
            await reached(running, TICKETS, OTHER)

            await publisher.publish(built(running, OTHER))
            assert await publisher.caught_up(within_s=60)
            assert await code(running, TICKETS) is grpc.StatusCode.UNIMPLEMENTED


async def test_a_tool_that_goes_after_its_first_version_was_refused_is_taken_away() -> None:
    async with mesh(xds=False) as running:
        socket = running.folder / "xds.sock"
        async with serve_xds(running.publisher, socket):
            await running.publish_resources(built(running, TICKETS, OTHER))
        publisher = another_publisher()
        async with serve_xds(publisher, socket):
            await publisher.publish(poisoned(built(running, TICKETS, OTHER), CLUSTER, TICKETS))
            assert await publisher.caught_up(within_s=60)

            await publisher.publish(built(running, OTHER))

            assert await publisher.caught_up(within_s=60)
            assert await code(running, TICKETS) is grpc.StatusCode.UNIMPLEMENTED
            assert TICKETS not in get(running.folder / "admin.sock", "/clusters")


async def test_a_gateway_that_knows_nothing_yet_takes_nothing_away(sent: list[tuple[str, str]]) -> None:
    async with mesh(xds=False) as running:
        socket = running.folder / "xds.sock"
        async with serve_xds(running.publisher, socket):
            await running.publish_resources(built(running, TICKETS))
        sent.clear()
        publisher = another_publisher()
        asked = asyncio.Event()
        original = publisher.held

        async def held(url: str, versions: dict[str, str]) -> None:
            asked.set()
            await original(url, versions)

        publisher.held = held  # pyright: ignore[reportAttributeAccessIssue] - to see Envoy come back
        async with serve_xds(publisher, socket):
            await asyncio.wait_for(asked.wait(), 60)
            await reached(running, TICKETS)
            assert sent == []


async def test_a_tool_that_went_while_no_gateway_ran_is_taken_away(sent: list[tuple[str, str]]) -> None:
    async with mesh(xds=False) as running:
        socket = running.folder / "xds.sock"
        async with serve_xds(running.publisher, socket):
            await running.publish_resources(built(running, TICKETS, OTHER))
        sent.clear()
        publisher = another_publisher()
        async with serve_xds(publisher, socket):
            await publisher.publish(built(running, OTHER))
            assert await publisher.caught_up(within_s=60)

            async def gone() -> None:
                assert await code(running, TICKETS) is grpc.StatusCode.UNIMPLEMENTED

            await eventually(gone)
            await reached(running, OTHER)
        assert {name for _, name in sent} == {f"-{TICKETS}"}
        assert [url for url, _ in sent if url in (SCOPE, CLUSTER)] == [SCOPE, CLUSTER]


async def test_a_gateway_that_starts_anew_can_begin_with_no_tools() -> None:
    async with mesh(xds=False) as running:
        socket = running.folder / "xds.sock"
        async with serve_xds(running.publisher, socket):
            await running.publish_resources(built(running, TICKETS))
            await running.publish_resources(built(running))
        publisher = another_publisher()
        async with serve_xds(publisher, socket):
            for services in ([], [TICKETS], [], [TICKETS, OTHER]):
                await publisher.publish(built(running, *services))
                assert await publisher.caught_up(within_s=60)
                await reached(running, *services)


async def test_a_change_is_sent_alone(running: Mesh, sent: list[tuple[str, str]]) -> None:
    await running.publish_resources(built(running, TICKETS, OTHER))
    sent.clear()

    changed = {service: running.tool(service) for service in (TICKETS, OTHER)}
    changed[OTHER] = running.tool(OTHER, hidden=True)
    await running.publish_resources(build(changed, POLICY))

    assert sent == [(ROUTES, OTHER)]


async def test_a_new_tool_is_sent_in_an_order_that_is_never_half_there(
    running: Mesh, sent: list[tuple[str, str]]
) -> None:
    await running.publish_resources(built(running, TICKETS))
    sent.clear()

    await running.publish_resources(built(running, TICKETS, OTHER))
    assert [url for url, _ in sent] == [CLUSTER, ENDPOINTS, SCOPE, ROUTES]

    sent.clear()
    await running.publish_resources(built(running, TICKETS))
    removed = [url for url, _ in sent]
    assert removed.index(SCOPE) < removed.index(CLUSTER)


async def test_an_envoy_of_another_version_is_not_programmed(running: Mesh) -> None:
    request: Untyped = make(
        "envoy.service.discovery.v3.DeltaDiscoveryRequest",
        type_url=CLUSTER,
        node={"user_agent_build_version": {"version": {"major_number": 1, "minor_number": 39}}},
    )
    async with grpc.aio.insecure_channel(f"unix:{running.folder}/xds.sock") as channel:
        method = f"/{delta.SERVICE}/DeltaAggregatedResources"
        stream: Untyped = cast("Untyped", channel).stream_stream(method)(iter([serialize(request)]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "this is Envoy 1.39" in (refused.value.details() or "")
