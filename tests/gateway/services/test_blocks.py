"""Blocking over a real socket: who may, what is refused, who learns of it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from governance.words import Caller
from llmesh.api.blocks.v1 import blocks_pb2 as pb
from llmesh.api.blocks.v1.blocks_pb2_grpc import BlockServiceStub
from llmesh.api.catalog.v1 import catalog_pb2 as catalog
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.errors import MeshError
from llmesh.status import error_from_rpc
from tests.gateway.services.world import (
    AGENT,
    DOC_SEARCH,
    ENGINEER,
    ESCALATIONS,
    OVERSEER,
    TICKET_TOOL,
    Mesh,
    by,
    mesh,
    small_mesh,
)

if TYPE_CHECKING:
    from llmesh.api.blocks.v1.blocks_pb2_grpc import BlockServiceAsyncStub

TOOL, METHOD = pb.Target(tool=TICKET_TOOL), pb.Target(method=f"{TICKET_TOOL}/GetTicket")
HIDDEN, DOMAIN = pb.Target(tool=ESCALATIONS), pb.Target(domain="support")
ERIN = pb.Target(caller=pb.Caller(issuer="test", subject="erin"))


def stub_of(running: Mesh) -> BlockServiceAsyncStub:
    return BlockServiceStub(running.services)


async def block(running: Mesh, target: pb.Target, reason: str = "it leaks", **more: object) -> pb.Block:
    request = pb.BlockRequest(target=target, reason=reason, **more)  # pyright: ignore[reportArgumentType]
    return (await stub_of(running).Block(request, metadata=by(OVERSEER))).block


async def refused(running: Mesh, request: pb.BlockRequest, caller: Caller = OVERSEER) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub_of(running).Block(request, metadata=by(caller))
    assert not running.blocks.current
    return error_from_rpc(error.value)


async def next_of(watch: grpc.aio.UnaryStreamCall[Any, catalog.WatchToolsResponse]) -> catalog.WatchToolsResponse:
    told = await watch.read()
    assert isinstance(told, catalog.WatchToolsResponse)
    return told


def at(unix_s: float) -> Timestamp:
    return Timestamp(seconds=int(unix_s))


@pytest.mark.parametrize("target", [TOOL, METHOD, HIDDEN, DOMAIN, ERIN], ids=lambda each: each.WhichOneof("target"))
async def test_what_is_blocked_is_answered_as_it_stands_and_listed(target: pb.Target) -> None:
    until = at(time.time() + 3600)
    async with mesh(*small_mesh().values()) as running:
        placed = await block(running, target, until=until)
        listed = await stub_of(running).ListBlocks(pb.ListBlocksRequest(), metadata=by(OVERSEER))
        again = await block(running, target, until=until)
        ended = await stub_of(running).Unblock(pb.UnblockRequest(target=target), metadata=by(OVERSEER))
        nothing = await stub_of(running).Unblock(pb.UnblockRequest(target=target), metadata=by(OVERSEER))
    assert (placed.target, placed.reason, placed.until) == (target, "it leaks", until)
    assert placed.blocked_by == pb.Caller(issuer="test", subject="pat")
    assert list(listed.blocks) == [placed] == [again] == [ended.block]
    assert not nothing.HasField("block")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (pb.Target(tool="acme.support.v1.Ticket"), f"no tool `acme.support.v1.Ticket` (nearest: `{TICKET_TOOL}`)"),
        (pb.Target(method=f"{TICKET_TOOL}/Get"), f"no method `{TICKET_TOOL}/Get` (nearest: `{TICKET_TOOL}/GetTicket`)"),
        (pb.Target(method="acme.none.v1.None/Get"), "no method `acme.none.v1.None/Get`"),
        (pb.Target(domain="suport"), "no domain `suport` (nearest: `support`)"),
        (pb.Target(caller=pb.Caller(issuer="tset", subject="sam")), "no issuer `tset` (nearest: `test`)"),
    ],
    ids=["tool", "method", "tool of a method", "domain", "issuer"],
)
async def test_who_mistypes_does_not_believe_that_it_is_stopped(target: pb.Target, message: str) -> None:
    async with mesh(*small_mesh().values()) as running:
        error = await refused(running, pb.BlockRequest(target=target, reason="it leaks"))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_TARGET")
        assert error.message.startswith(f"nothing was blocked: the mesh knows {message}")
        placed = await block(running, target, allow_unknown=True)
        assert placed.target == target


def impossible() -> Iterator[tuple[pb.BlockRequest, str]]:
    """Requests, and the field that is wrong."""
    yield pb.BlockRequest(reason="it leaks"), "target"
    yield pb.BlockRequest(target=pb.Target(), reason="it leaks"), "target"
    yield pb.BlockRequest(target=TOOL), "reason"
    for reason in ("", " ", " it", "it ", "two\nlines", "a\x00b", "a\x7f", "a\u2028b", "a\u202eb", "x" * 301):
        yield pb.BlockRequest(target=TOOL, reason=reason), "reason"
    yield pb.BlockRequest(target=TOOL, reason="it leaks", until=at(1)), "until"
    yield pb.BlockRequest(target=TOOL, reason="it leaks", until=Timestamp(seconds=-1)), "until"
    for name in ("", "Tickets", ".a.B", "a.B.", "a..B", "a.B/C", "a.*", "a." + "b" * 255):
        yield pb.BlockRequest(target=pb.Target(tool=name), reason="it leaks", allow_unknown=True), "target.tool"
    for name in ("", "a.B", "a.B/", "/a.B/C", "a.B/C/D", "B/C", "a.B/C "):
        yield pb.BlockRequest(target=pb.Target(method=name), reason="it leaks", allow_unknown=True), "target.method"
    for name in ("", "Support", "a.b", "a b", "x" * 64):
        yield pb.BlockRequest(target=pb.Target(domain=name), reason="it leaks", allow_unknown=True), "target.domain"
    for subject in ("", " sam", "sam ", "a\nb", "a\x00", "x" * 257, "ä" * 129):
        target = pb.Target(caller=pb.Caller(issuer="test", subject=subject))
        yield pb.BlockRequest(target=target, reason="it leaks"), "target.caller.subject"
    yield pb.BlockRequest(target=pb.Target(caller=pb.Caller(subject="sam")), reason="it leaks"), "target.caller.issuer"
    for service in (
        "llmesh.api.blocks.v1.BlockService",
        "llmesh.api.catalog.v1.CatalogService",
        "grpc.health.v1.Health",
    ):
        yield pb.BlockRequest(target=pb.Target(tool=service), reason="it leaks"), "target.tool"
        yield pb.BlockRequest(target=pb.Target(method=f"{service}/Block"), reason="it leaks"), "target.method"
    yield pb.BlockRequest(target=pb.Target(domain="platform"), reason="it leaks"), "target.domain"
    yield (
        pb.BlockRequest(target=pb.Target(caller=pb.Caller(issuer="test", subject="pat")), reason="it leaks"),
        "target.caller",
    )


async def test_what_cannot_be_blocked_is_refused_with_the_field_at_fault() -> None:
    async with mesh(*small_mesh().values()) as running:
        for request, field in impossible():
            error = await refused(running, request)
            assert error.code is grpc.StatusCode.INVALID_ARGUMENT, request
            assert field in error.message, request


async def test_what_cannot_be_kept_is_unavailable_and_blocks_nothing() -> None:
    async with mesh(*small_mesh().values()) as running:
        with closing(sqlite3.connect(running.home.database)) as database:
            database.execute("DROP TABLE block_history")
        error = await refused(running, pb.BlockRequest(target=TOOL, reason="it leaks"))
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.message.startswith("nothing was blocked: the database of the blocks does not answer")


async def test_those_who_may_not_block_learn_of_what_they_may_see_alone() -> None:
    async with mesh(*small_mesh().values()) as running:
        for target in (TOOL, METHOD, HIDDEN, DOMAIN, ERIN, pb.Target(tool=DOC_SEARCH)):
            await block(running, target)

        async def seen(caller: Caller) -> list[str | None]:
            listed = await stub_of(running).ListBlocks(pb.ListBlocksRequest(), metadata=by(caller))
            return [str(each.target).strip().replace("\n", "") for each in listed.blocks]

        everything, engineer, agent = await seen(OVERSEER), await seen(ENGINEER), await seen(AGENT)
    assert len(everything) == 6
    assert [each for each in everything if each not in engineer] == [f'tool: "{ESCALATIONS}"']
    assert [each for each in everything if each not in agent] == [
        'caller {  issuer: "test"  subject: "erin"}',
        f'tool: "{DOC_SEARCH}"',
    ]


async def test_the_history_is_for_those_who_may_block() -> None:
    async with mesh(*small_mesh().values()) as running:
        placed = await block(running, TOOL)
        ending = pb.UnblockRequest(target=TOOL, reason="mended")
        await stub_of(running).Unblock(ending, metadata=by(OVERSEER))
        changes = (await stub_of(running).ListChanges(pb.ListChangesRequest(), metadata=by(OVERSEER))).changes
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub_of(running).ListChanges(pb.ListChangesRequest(), metadata=by(AGENT))
    assert [(each.action, each.reason, each.block) for each in changes] == [
        (pb.Change.ACTION_UNBLOCKED, "mended", placed),
        (pb.Change.ACTION_BLOCKED, "", placed),
    ]
    assert all(each.changed_by == pb.Caller(issuer="test", subject="pat") for each in changes)
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_pages_hold_every_block_and_change_once() -> None:
    async with mesh(*small_mesh().values()) as running:
        for number in range(7):
            await block(running, pb.Target(caller=pb.Caller(issuer="test", subject=f"s{number}")))
        blocks, changes = list[str](), list[str]()
        token = ""
        while token or not blocks:
            page = await stub_of(running).ListBlocks(
                pb.ListBlocksRequest(page_size=3, page_token=token), metadata=by(OVERSEER)
            )
            blocks += [each.id for each in page.blocks]
            token = page.next_page_token
        while token or not changes:
            found = await stub_of(running).ListChanges(
                pb.ListChangesRequest(page_size=3, page_token=token), metadata=by(OVERSEER)
            )
            changes += [each.block.id for each in found.changes]
            token = found.next_page_token
    assert len(blocks) == len(set(blocks)) == 7
    assert changes == blocks[::-1]


async def test_a_blocked_tool_is_shown_with_the_reason_to_those_who_may_see_it() -> None:
    async with mesh(*small_mesh().values()) as running:
        stub = CatalogServiceStub(running.services)
        watch = stub.WatchTools(catalog.WatchToolsRequest(), metadata=by(ENGINEER))
        assert {each.service for each in (await next_of(watch)).changed} >= {TICKET_TOOL, DOC_SEARCH}

        placed = await block(running, TOOL, until=at(4102444800))
        await block(running, pb.Target(method=f"{DOC_SEARCH}/Find"), "too slow")
        await running.board.renew()
        told = await next_of(watch)
        shown = (await stub.GetTool(catalog.GetToolRequest(service=TICKET_TOOL), metadata=by(ENGINEER))).tool
        watch.cancel()

    expected = catalog.Blocked(block=placed.id, reason="it leaks", until=at(4102444800))
    assert shown.blocked == expected
    changed = {each.service: each for each in told.changed}
    assert changed.keys() == {TICKET_TOOL, DOC_SEARCH}
    assert changed[TICKET_TOOL].blocked == expected
    assert [each.blocked.reason for each in changed[DOC_SEARCH].methods if each.HasField("blocked")] == ["too slow"]
    assert not changed[DOC_SEARCH].HasField("blocked")


async def test_a_tool_of_a_blocked_domain_is_shown_as_blocked() -> None:
    async with mesh(*small_mesh().values()) as running:
        await block(running, DOMAIN, "audit")
        stub = CatalogServiceStub(running.services)
        shown = (await stub.GetTool(catalog.GetToolRequest(service=TICKET_TOOL), metadata=by(ENGINEER))).tool
        other = (await stub.GetTool(catalog.GetToolRequest(service=DOC_SEARCH), metadata=by(ENGINEER))).tool
    assert shown.blocked.reason == "audit"
    assert not other.HasField("blocked")


async def test_the_same_subject_of_another_issuer_may_not_learn_of_a_callers_block() -> None:
    async with mesh(*small_mesh().values()) as running:
        await block(running, ERIN)
        other = replace(ENGINEER, issuer="elsewhere")
        listed = await stub_of(running).ListBlocks(pb.ListBlocksRequest(), metadata=by(other))
    assert not listed.blocks


async def test_of_a_hidden_tool_only_blocks_of_methods_that_one_may_call_are_listed() -> None:
    async with mesh(*small_mesh().values()) as running:
        await block(running, pb.Target(method=f"{ESCALATIONS}/Escalate"))
        await block(running, pb.Target(method=f"{ESCALATIONS}/Bury"), allow_unknown=True)
        listed = await stub_of(running).ListBlocks(pb.ListBlocksRequest(), metadata=by(AGENT))
        all_of_them = await stub_of(running).ListBlocks(pb.ListBlocksRequest(), metadata=by(OVERSEER))
    assert [each.target.method for each in listed.blocks] == [f"{ESCALATIONS}/Escalate"]
    assert len(all_of_them.blocks) == 2
