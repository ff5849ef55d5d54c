"""Endpoints come, are looked at, die, come back and go."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionResponse

from gateway.catalog import CatalogBoard, Contract, Grant, State
from gateway.reading.calls import open_channel
from gateway.reading.candidate import Candidate, read_candidate
from gateway.reading.pinned import pinned
from gateway.reading.reflect import Limits, reflect
from governance.ownership import parse_ownership
from llmesh.api.options.v1 import options_pb2 as options
from tests.gateway.discovery.world import (
    OWNERSHIP,
    V1,
    V1ALPHA,
    Health,
    ListSource,
    World,
    at,
    contract,
    discovering,
    honest,
    lying,
    serving,
    small_world,
)

TICKETS = "acme.support.v1.Tickets"
PAGES = "acme.handbook.v1.Pages"


async def test_a_tool_that_is_named_is_in_the_catalog_with_all_that_its_contract_says() -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        async with serving(endpoint.address, honest(contract())):
            world.source.name(endpoint)
            catalog = await world.until(lambda each: TICKETS in each.tools)
    tool = catalog.tools[TICKETS]
    assert tool.domain == "support"
    assert tool.endpoints == (endpoint,)
    assert tool.ready == {endpoint}
    assert not tool.health_checked
    assert [method.name for method in tool.methods] == ["Get"]
    assert tool.methods[0].effect == options.EFFECT_DESTRUCTIVE
    report = catalog.reports[endpoint.address]
    assert report.state is State.READY
    assert report.services == (TICKETS,)
    assert [step.name for step in report.steps] == [
        "connect",
        "reflect",
        "link",
        "own",
        "options",
        "identity",
        "conflict",
    ]


@pytest.mark.parametrize("path", [V1, V1ALPHA])
async def test_either_version_of_reflection_will_do(path: str) -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        async with serving(endpoint.address, honest(contract()), paths=[path]):
            world.source.name(endpoint)
            await world.until(lambda each: TICKETS in each.tools)


async def test_a_server_with_the_older_reflection_alone_is_read_each_time_it_is_asked() -> None:
    # In a process of its own it can end a stream while we still write to it.
    with TemporaryDirectory(prefix="llmesh-") as folder:
        address = at(Path(folder)).address
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.gateway.discovery.older_server", address, stdout=PIPE
        )
        try:
            assert server.stdout is not None
            assert await server.stdout.readline() == b"serving\n"
            for _ in range(60):
                async with open_channel(address, message_bytes=1 << 20) as channel:
                    assert (await reflect(channel, Limits(), pinned=pinned())).services.keys() == {TICKETS}
        finally:
            server.kill()
            await server.communicate()


async def test_a_tool_that_is_named_is_found(record_property: Callable[[str, object], None]) -> None:
    async with small_world() as world:
        await world.discovery.settled.wait()
        endpoint = at(world.folder)
        async with serving(endpoint.address, honest(contract())):
            began_s = time.monotonic()
            world.source.name(endpoint)
            await world.until(lambda each: TICKETS in each.tools)
            record_property("found_after_ms", round((time.monotonic() - began_s) * 1000))


async def test_nothing_is_posted_before_every_source_has_synced() -> None:
    async with small_world() as world:
        assert world.board.current.version == 0
        assert not world.discovery.settled.is_set()
        assert (await world.until(lambda each: each.version > 0)).tools == {}
        assert world.discovery.settled.is_set()


async def test_an_endpoint_that_nobody_serves_yet_is_pending_and_ready_once_it_is_served() -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        world.source.name(endpoint)
        assert (await world.failure(endpoint.address)).reason == "UNREACHABLE"
        assert world.board.current.reports[endpoint.address].state is State.PENDING
        async with serving(endpoint.address, honest(contract())):
            await world.state(endpoint.address, State.READY)


async def test_a_tool_that_dies_is_seen_stays_in_the_catalog_and_comes_back(
    record_property: Callable[[str, object], None],
) -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        world.source.name(endpoint)
        async with serving(endpoint.address, honest(contract())) as server:
            await world.state(endpoint.address, State.READY)
            began_s = time.monotonic()
            await server.stop(0)
            await world.state(endpoint.address, State.DOWN)
            record_property("seen_after_ms", round((time.monotonic() - began_s) * 1000))
        tool = world.board.current.tools[TICKETS]
        assert (tool.endpoints, tool.ready) == ((endpoint,), frozenset())
        async with serving(endpoint.address, honest(contract())):
            await world.state(endpoint.address, State.READY)
            assert world.board.current.tools[TICKETS].ready == {endpoint}


async def test_a_tool_leaves_when_its_last_endpoint_is_named_no_more() -> None:
    async with small_world() as world:
        first, second = at(world.folder, "a"), at(world.folder, "b")
        async with serving(first.address, honest(contract())), serving(second.address, honest(contract())):
            world.source.name(first, second)
            await world.until(lambda each: TICKETS in each.tools and len(each.tools[TICKETS].ready) == 2)
            world.source.name(second)
            await world.until(lambda each: each.tools[TICKETS].endpoints == (second,))
            world.source.name()
            assert (await world.until(lambda each: not each.tools)).reports == {}


async def test_an_endpoint_that_its_source_only_holds_is_shown_so_and_serves_on() -> None:
    async with small_world() as world:
        first = at(world.folder, "a")
        async with serving(first.address, honest(contract())):
            world.source.name(first)
            await world.until(lambda each: TICKETS in each.tools and bool(each.tools[TICKETS].ready))
            world.source.name(replace(first, held=True))
            catalog = await world.until(lambda each: each.reports[first.address].held)
            assert catalog.tools[TICKETS].ready == {first}
            world.source.name(first)
            await world.until(lambda each: not each.reports[first.address].held)


async def test_a_server_that_says_it_does_not_serve_is_down_until_it_says_it_does() -> None:
    async with small_world() as world:
        endpoint, health = at(world.folder), Health(HealthCheckResponse.NOT_SERVING, TICKETS)
        async with serving(endpoint.address, honest(contract()), health=health):
            world.source.name(endpoint)
            await world.state(endpoint.address, State.DOWN)
            assert world.board.current.tools[TICKETS].health_checked
            health.say(HealthCheckResponse.SERVING)
            await world.state(endpoint.address, State.READY)
            health.say(HealthCheckResponse.NOT_SERVING)
            await world.state(endpoint.address, State.DOWN)


async def test_only_a_tool_whose_health_is_told_by_its_name_is_health_checked() -> None:
    async with small_world() as world:
        endpoint, health = at(world.folder), Health(HealthCheckResponse.SERVING, PAGES)
        both = honest(contract(), contract("acme.handbook.v1", "Pages"))
        async with serving(endpoint.address, both, health=health):
            world.source.name(endpoint)
            tools = (await world.until(lambda each: len(each.tools) == 2)).tools
            await world.stored(TICKETS, PAGES)
        assert {name: tool.health_checked for name, tool in tools.items()} == {TICKETS: False, PAGES: True}
        again = World(world.folder, ListSource(endpoint), board=CatalogBoard())
        async with discovering(again):
            tools = (await again.until(lambda each: each.version > 0)).tools
        assert {name: tool.health_checked for name, tool in tools.items()} == {TICKETS: False, PAGES: True}


async def test_a_contract_that_changes_with_a_restart_is_admitted_anew() -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        world.source.name(endpoint)
        async with serving(endpoint.address, honest(contract())):
            old = (await world.until(lambda each: TICKETS in each.tools)).tools[TICKETS]
        async with serving(endpoint.address, honest(contract(fields=["id", "title"]))):
            changed = await world.until(lambda each: each.tools[TICKETS].contract.digest != old.contract.digest)
    assert changed.tools[TICKETS].endpoints == (endpoint,)


async def test_the_first_of_two_contracts_stays_and_the_other_is_admitted_once_it_leaves() -> None:
    async with small_world() as world:
        first, second = at(world.folder, "b"), at(world.folder, "a")
        other = contract(fields=["title"])
        async with serving(first.address, honest(contract())), serving(second.address, honest(other)):
            world.source.name(first)
            held = (await world.until(lambda each: TICKETS in each.tools)).tools[TICKETS]
            world.source.name(first, second)
            step = await world.failure(second.address, TICKETS)
            assert (step.name, step.reason) == ("conflict", "CONTRACT_CONFLICT")
            assert held.contract.digest in step.message
            assert world.board.current.tools[TICKETS] is held
            world.source.name(second)
            catalog = await world.until(lambda each: each.tools[TICKETS].endpoints == (second,))
    assert catalog.tools[TICKETS].contract.digest in step.message


async def test_a_contract_that_adds_a_method_is_served_beside_the_old_one_also_after_a_restart() -> None:
    new = contract()
    new.service[0].method.add(name="Put").CopyFrom(new.service[0].method[0])
    new.service[0].method[-1].name = "Put"
    async with small_world() as world:
        first, second = at(world.folder, "a"), at(world.folder, "b")
        async with serving(first.address, honest(contract())), serving(second.address, honest(new)):
            world.source.name(first, second)
            tool = (await world.until(lambda each: TICKETS in each.tools and each.tools[TICKETS].variants)).tools[
                TICKETS
            ]
            # Whichever was admitted first, it may have been stored alone before.
            await world.stored(first.address, second.address)
        assert [method.name for method in tool.methods] == ["Get", "Put"]
        assert [(variant.endpoints, variant.methods) for variant in tool.variants] == [
            ((second,), {"Get", "Put"}),
            ((first,), {"Get"}),
        ]
        again = World(world.folder, ListSource(first, second), board=CatalogBoard())
        async with discovering(again):
            assert (await again.until(lambda each: each.tools)).tools[TICKETS].variants == tool.variants
            again.source.name(second)
            assert (await again.until(lambda each: not each.tools[TICKETS].variants)).tools[TICKETS].endpoints == (
                second,
            )


async def test_a_foreign_server_is_brought_in_by_what_the_mesh_file_states() -> None:
    async with small_world() as world:
        bare = contract(domain="")
        plain, granted = (
            at(world.folder, "a"),
            at(world.folder, "a", Grant(TICKETS, "support", "team", (("Get", "read"),))),
        )
        async with serving(plain.address, honest(bare)):
            world.source.name(plain)
            assert (await world.failure(plain.address, TICKETS)).reason == "NO_OPTIONS"
            world.source.name(granted)
            catalog = await world.until(lambda each: TICKETS in each.tools)
    tool = catalog.tools[TICKETS]
    assert (tool.sheet.owner_team, tool.methods[0].effect) == ("team", options.EFFECT_READ)


async def test_what_the_mesh_file_states_anew_holds_at_once_even_while_the_server_is_away() -> None:
    async with small_world() as world:
        read, unstated = (
            at(world.folder, "a", Grant(TICKETS, "support", "team", effects)) for effects in ((("Get", "read"),), ())
        )
        world.source.name(read)
        async with serving(read.address, honest(contract(domain=""))):
            await world.state(read.address, State.READY)
        await world.state(read.address, State.DOWN)
        world.source.name(unstated)
        catalog = await world.until(lambda each: each.tools[TICKETS].methods[0].effect == options.EFFECT_DESTRUCTIVE)
    assert catalog.tools[TICKETS].endpoints == (unstated,)


UNREADABLE = {"": ServerReflectionResponse()}


async def test_a_look_that_fails_takes_no_tool_away_and_is_soon_followed_by_another(
    record_property: Callable[[str, object], None],
) -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        world.source.name(endpoint)
        async with serving(endpoint.address, honest(contract())):
            await world.state(endpoint.address, State.READY)
        await world.state(endpoint.address, State.DOWN)
        lies = dict(UNREADABLE)
        async with serving(endpoint.address, lying(honest(contract()), lies)):
            assert (await world.failure(endpoint.address)).name == "connect"
            report = await world.state(endpoint.address, State.READY)
            assert [step.reason for step in report.steps if not step.passed] == ["NO_SERVICES"]
            assert world.board.current.tools[TICKETS].ready == {endpoint}
            lies.clear()
            began_s = time.monotonic()
            await world.until(lambda each: all(step.passed for step in each.reports[endpoint.address].steps))
            record_property("looked_again_after_ms", round((time.monotonic() - began_s) * 1000))


async def test_a_first_look_that_fails_after_a_restart_takes_no_tool_away() -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        world.source.name(endpoint)
        async with serving(endpoint.address, honest(contract())):
            await world.state(endpoint.address, State.READY)
            await world.stored(TICKETS)
        again = World(world.folder, ListSource(endpoint), board=CatalogBoard())
        async with serving(endpoint.address, lying(honest(contract()), UNREADABLE)), discovering(again):
            assert (await again.failure(endpoint.address)).reason == "NO_SERVICES"
            assert again.board.current.tools[TICKETS].ready == {endpoint}


async def test_a_remembered_contract_that_breaks_the_reader_costs_no_other_and_not_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(service: str, given: Contract, *, grant: Grant | None) -> Candidate:
        if service == TICKETS:
            raise LookupError(service)
        return read_candidate(service, given, grant=grant)

    monkeypatch.setattr("gateway.discovery.discovery.read_candidate", read)
    async with small_world() as world:
        first, second = at(world.folder, "a"), at(world.folder, "b")
        pages = honest(contract("acme.handbook.v1", "Pages"))
        async with serving(first.address, honest(contract())), serving(second.address, pages):
            world.source.name(first, second)
            await world.until(lambda each: len(each.tools) == 2)
            await world.stored(TICKETS, PAGES)
        again = World(world.folder, ListSource(first, second), board=CatalogBoard())
        async with discovering(again):
            assert (await again.until(lambda each: each.version > 0)).tools.keys() == {PAGES}


async def test_a_change_of_ownership_is_taken_up() -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        world.owners = parse_ownership("owners: {acme.handbook: handbook}")
        async with serving(endpoint.address, honest(contract())):
            world.source.name(endpoint)
            assert (await world.failure(endpoint.address, TICKETS)).reason == "NO_OWNER"
            world.owners = parse_ownership(OWNERSHIP)
            world.discovery.recheck()
            await world.state(endpoint.address, State.READY)


async def test_what_envoy_refuses_is_told_to_the_owner_until_envoy_takes_it() -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        async with serving(endpoint.address, honest(contract())):
            world.source.name(endpoint)
            await world.state(endpoint.address, State.READY)
            world.discovery.refuse(TICKETS, "ENVOY_REFUSED", "no such cluster")
            report = await world.state(endpoint.address, State.REFUSED)
            assert (report.steps[-1].name, report.steps[-1].message) == ("publish", "no such cluster")
            assert TICKETS in world.board.current.tools
            world.discovery.accept(TICKETS)
            report = await world.state(endpoint.address, State.READY)
            assert report.steps[-1].passed


async def test_a_restarted_gateway_posts_the_same_catalog_at_once_and_then_verifies_it() -> None:
    async with small_world() as world:
        lives, dies, gone = at(world.folder, "a"), at(world.folder, "b"), at(world.folder, "c")
        pages = honest(contract("acme.handbook.v1", "Pages"))
        async with serving(lives.address, honest(contract())):
            async with serving(dies.address, pages), serving(gone.address, honest(contract())):
                world.source.name(lives, dies, gone)
                before = await world.until(lambda each: len(each.tools) == 2 and len(each.tools[TICKETS].ready) == 2)
                await world.stored(lives.address, dies.address, gone.address)
            again = World(world.folder, ListSource(lives, dies), board=CatalogBoard())
            async with discovering(again):
                after = await again.until(lambda each: each.version > 0)
                assert after.tools.keys() == before.tools.keys()
                assert after.tools[PAGES].contract == before.tools[PAGES].contract
                assert after.tools[TICKETS].endpoints == (lives,)
                assert after.tools[TICKETS].ready == {lives}
                await again.state(dies.address, State.DOWN)
                assert again.board.current.reports[lives.address].state is State.READY


async def test_a_server_without_reflection_is_refused_with_what_to_do() -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        server = grpc.aio.server()
        server.add_insecure_port(endpoint.address)
        await server.start()
        try:
            world.source.name(endpoint)
            report = await world.state(endpoint.address, State.REFUSED)
        finally:
            await server.stop(0)
    assert (report.steps[-1].reason, "serve it" in report.steps[-1].message) == ("NO_REFLECTION", True)
