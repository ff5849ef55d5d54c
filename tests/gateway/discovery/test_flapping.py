"""Servers that come and go again and again, or keep changing their mind: nobody else's tool changes with them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from gateway.catalog import Catalog, CatalogBoard, Endpoint, Report, State, Tool
from gateway.reading import health
from tests.gateway.discovery.world import Health, ListSource, World, at, contract, discovering, honest, serving

TICKETS = "acme.support.v1.Tickets"
GOOD = "acme.support.v1.Good"
TIMES = 4


class Board(CatalogBoard):
    """Remembers all that was posted."""

    def __init__(self) -> None:
        super().__init__()
        self.posted: list[Catalog] = []

    async def post(self, tools: Mapping[str, Tool], reports: Mapping[str, Report]) -> Catalog:
        catalog = await super().post(tools, reports)
        self.posted.append(catalog)
        return catalog


@asynccontextmanager
async def remembered() -> AsyncGenerator[tuple[World, Board]]:
    board = Board()
    with TemporaryDirectory(prefix="llmesh-") as folder:
        async with discovering(World(Path(folder), ListSource(), board=board)) as world:
            yield world, board


async def come_and_go(world: World, endpoint: Endpoint, file: FileDescriptorProto) -> None:
    """Let the endpoint be served, and die, some times over."""
    for _ in range(TIMES):
        async with serving(endpoint.address, honest(file)):
            await world.until(lambda each: each.reports[endpoint.address].state in (State.READY, State.REFUSED))
        await world.state(endpoint.address, State.DOWN)


def shows(catalog: Catalog) -> tuple[str, ...]:
    """The contracts with which the tool is served."""
    tool = catalog.tools[TICKETS]
    return tuple(each.contract.digest for each in tool.variants or (tool,))


@pytest.mark.parametrize("flaps", ["the newer", "the older"])
async def test_of_two_contracts_side_by_side_one_that_comes_and_goes_changes_neither(flaps: str) -> None:
    old, new = contract(), contract(fields=["id", "title"])
    steady, flapping = (old, new) if flaps == "the newer" else (new, old)
    async with remembered() as (world, board):
        first, second = at(world.folder, "a"), at(world.folder, "b")
        async with serving(first.address, honest(steady)):
            world.source.name(first, second)
            async with serving(second.address, honest(flapping)):
                await world.until(lambda each: TICKETS in each.tools and len(each.tools[TICKETS].ready) == 2)
            await world.state(second.address, State.DOWN)
            known = len(board.posted)
            await come_and_go(world, second, flapping)
            since = board.posted[known - 1 :]
        assert {shows(each) for each in since} == {shows(board.current)}
        assert len(shows(board.current)) == 2
        assert all(first in each.tools[TICKETS].ready for each in since)


async def test_of_two_contracts_that_clash_the_one_that_was_admitted_stays_however_often_it_dies() -> None:
    async with remembered() as (world, board):
        first, second = at(world.folder, "a"), at(world.folder, "b")
        other = contract(fields=["title"])
        world.source.name(first)
        async with serving(first.address, honest(contract())):
            await world.state(first.address, State.READY)
        async with serving(second.address, honest(other)):
            world.source.name(first, second)
            assert (await world.failure(second.address, TICKETS)).reason == "CONTRACT_CONFLICT"
            known = len(board.posted)
            await come_and_go(world, first, contract())
            since = board.posted[known - 1 :]
        assert {shows(each) for each in since} == {shows(board.current)}
        assert {each.tools[TICKETS].endpoints for each in since} == {(first,)}


class Fickle(Health):
    """Says one thing, then the other, as fast as it is heard."""

    async def watch(self, _request: HealthCheckRequest, _context: object) -> AsyncIterator[HealthCheckResponse]:
        while True:
            yield HealthCheckResponse(status=HealthCheckResponse.SERVING)
            yield HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING)


async def test_a_server_that_keeps_changing_its_health_is_heard_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PAUSE_S", 600)
    async with remembered() as (world, board):
        fickle, good = at(world.folder, "a"), at(world.folder, "b")
        said = Fickle(HealthCheckResponse.SERVING)
        async with (
            serving(fickle.address, honest(contract()), health=said),
            serving(good.address, honest(contract(service="Good"))),
        ):
            world.source.name(fickle)
            await world.state(fickle.address, State.DOWN)
            known = len(board.posted)
            world.source.name(fickle, good)
            await world.until(lambda each: GOOD in each.tools)
        # What it says of itself changed nothing more.
        assert {each.reports[fickle.address].state for each in board.posted[known:]} == {State.DOWN}
