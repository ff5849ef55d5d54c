"""Many who watch a large catalog."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import pytest

from gateway.catalog import Tool
from gateway.services.catalog import TOOLS_A_TURN
from gateway.services.visible import Seen
from gateway.services.watches import WATCHES_AT_ONCE, Watches
from governance.words import Caller
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.errors import OverQuota
from tests.gateway.services import world
from tests.gateway.services.world import AGENT, DOC_SEARCH, ENGINEER, by, mesh, small_mesh

if TYPE_CHECKING:
    from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceAsyncStub

FIND = frozenset({"Find"})


def test_all_who_watch_share_one_message_of_a_tool_for_as_long_as_any_holds_it() -> None:
    tool, watches = small_mesh()[DOC_SEARCH], Watches()
    told = watches.told(Seen(tool, FIND))
    assert watches.told(Seen(tool, FIND)) is told

    denied = watches.told(Seen(tool, frozenset()))
    assert [each.message.methods[0].denied for each in (told, denied)] == [False, True]

    away = replace(tool, ready=frozenset())
    changed = watches.told(Seen(away, FIND))
    assert [each.message.ready_count for each in (told, changed)] == [1, 0]

    message = changed.message
    del changed
    assert watches.told(Seen(away, FIND)).message is not message


def test_a_caller_has_so_many_watches_and_no_more_while_others_have_theirs() -> None:
    watches = Watches()
    open_now = [watches.one_more(ENGINEER) for _ in range(WATCHES_AT_ONCE)]
    for each in open_now:
        each.__enter__()
    with pytest.raises(OverQuota, match="end one"), watches.one_more(ENGINEER):
        pass
    with watches.one_more(AGENT):
        pass

    open_now[0].__exit__(None, None, None)
    with watches.one_more(ENGINEER):
        pass


async def test_a_watch_too_many_is_refused_until_another_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.services.watches.WATCHES_AT_ONCE", 1)
    async with mesh() as running:
        catalog = CatalogServiceStub(running.services)
        first = catalog.WatchTools(pb.WatchToolsRequest(), metadata=by(ENGINEER))
        await anext(aiter(first))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(catalog.WatchTools(pb.WatchToolsRequest(), metadata=by(ENGINEER))))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

        first.cancel()
        async with asyncio.timeout(60):
            while not await _can_watch(catalog):
                pass


async def test_a_large_catalog_lets_others_have_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, turns = 0, set[int]()

    async def others() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def permitted(tool: Tool, caller: Caller) -> frozenset[str]:
        turns.add(turn)
        return allowed(tool, caller)

    allowed = world.permitted
    monkeypatch.setattr(world, "permitted", permitted)
    tool = small_mesh()[DOC_SEARCH]
    async with mesh(
        *(replace(tool, service=f"acme.open.v1.Tool{each}") for each in range(4 * TOOLS_A_TURN))
    ) as running:
        task = asyncio.create_task(others())
        watching = CatalogServiceStub(running.services).WatchTools(pb.WatchToolsRequest(), metadata=by(ENGINEER))
        told = await anext(aiter(watching))
        watching.cancel()
        task.cancel()
    assert len(told.changed) > 4 * TOOLS_A_TURN
    assert len(turns) >= 4


async def _can_watch(catalog: CatalogServiceAsyncStub) -> bool:
    watching = catalog.WatchTools(pb.WatchToolsRequest(), metadata=by(ENGINEER))
    try:
        await anext(aiter(watching))
    except grpc.aio.AioRpcError:
        return False
    watching.cancel()
    return True
