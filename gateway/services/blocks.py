"""Stopping things, and letting them go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.blocks.blocks import Blocks, BlocksNotKeptError
from gateway.blocks.words import Action, Block, CallerId, Change, Kind, Target
from gateway.clock import Clock
from gateway.cuts import Cut
from gateway.services.caller import current_caller
from gateway.services.paging import batches, last_of, page_token
from gateway.services.platform import OWN
from gateway.services.visible import View
from governance.ownership import PLATFORM, is_platform
from governance.words import Caller
from llmesh.api.blocks.v1 import blocks_pb2 as pb
from llmesh.api.blocks.v1.blocks_pb2_grpc import BlockServiceServicer
from llmesh.errors import Denied, InvalidCall, NotFound, Unavailable, Violation
from llmesh.nearest import nearest_name

SERVICE = "llmesh.api.blocks.v1.BlockService"
_PAGE_SIZE = 100
_BLOCKS, _CHANGES = "blocks", "changes of blocks"
_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class Blocking:
    """What blocks need of the gateway.

    enforce: have Envoy stop what is blocked now; whether it does. cut: end the
    calls that are open. domains, issuers: names of those that the policies have.
    """

    blocks: Blocks
    enforce: Callable[[], Awaitable[bool]]
    cut: Callable[[Block], Awaitable[Cut]]
    domains: Callable[[], Iterable[str]]
    issuers: Callable[[], Iterable[str]]
    clock: Clock


class BlockServicer(BlockServiceServicer):
    """Blocks for whom the rules permit it, and tells others what they may know."""

    def __init__(self, view: View, blocking: Blocking) -> None:
        """view: what is on the mesh."""
        self._view = view
        self._blocks = blocking.blocks
        self._blocking = blocking

    async def Block(self, request: pb.BlockRequest, context: object) -> pb.BlockResponse:
        """Stop the target."""
        target, by = _target(request.target), _id_of(current_caller())
        self._check_may_be(target, by)
        if not request.allow_unknown:
            self._check_known(target)
        until_us = request.until.ToMicroseconds() if request.HasField("until") else None
        if until_us is not None and until_us <= self._blocking.clock.unix_s() * 1e6:
            raise _wrong("until", "has passed already; leave it out to block without an end")
        try:
            block = await self._blocks.block(target, request.reason, by=by, until_us=until_us)
        except BlocksNotKeptError as error:
            raise Unavailable(f"nothing was blocked: {error}", retry_after_s=_RETRY_AFTER_S) from error
        in_force = await self._blocking.enforce()
        # Last, so that no call begins that would not be ended.
        cut = await self._blocking.cut(block) if request.cut else Cut()
        return pb.BlockResponse(
            block=_block_message(block), in_force=in_force, calls_ended=cut.ended, not_cut=sorted(cut.deaf)
        )

    async def Unblock(self, request: pb.UnblockRequest, context: object) -> pb.UnblockResponse:
        """Let the target go on."""
        by = _id_of(current_caller())
        try:
            ended = await self._blocks.unblock(_target(request.target), by=by, reason=request.reason)
        except BlocksNotKeptError as error:
            raise Unavailable(f"the block stays: {error}", retry_after_s=_RETRY_AFTER_S) from error
        block = None if ended is None else _block_message(ended)
        return pb.UnblockResponse(block=block, in_force=await self._blocking.enforce())

    async def ListBlocks(self, request: pb.ListBlocksRequest, context: object) -> pb.ListBlocksResponse:
        """A page of the blocks that the caller may know of."""
        caller, after = current_caller(), last_of(request.page_token, listing=_BLOCKS)
        known = (block for block in self._blocks.current.values() if self._may_know(block.target, caller))
        wanted = sorted((block for block in known if _key(block) > after), key=_key)
        page = wanted[: request.page_size or _PAGE_SIZE]
        blocks = next(batches(map(_block_message, page)), list[pb.Block]())
        more = page_token(_key(page[len(blocks) - 1]), listing=_BLOCKS) if len(blocks) < len(wanted) else ""
        return pb.ListBlocksResponse(blocks=blocks, next_page_token=more)

    async def ListChanges(self, request: pb.ListChangesRequest, context: object) -> pb.ListChangesResponse:
        """A page of what was changed."""
        if not self._may_block(current_caller()):
            raise Denied("only those who may block see what was blocked before", reason="MAY_NOT_BLOCK")
        before, size = last_of(request.page_token, listing=_CHANGES), request.page_size or _PAGE_SIZE
        try:
            # One more than the page holds tells whether there is another.
            found = await self._blocks.changes(before=int(before) if before else None, limit=size + 1)
        except BlocksNotKeptError as error:
            raise Unavailable(str(error), retry_after_s=_RETRY_AFTER_S) from error
        changes = next(batches(map(_change_message, islice(found, size))), list[pb.Change]())
        more = page_token(str(found[len(changes) - 1].number), listing=_CHANGES) if len(changes) < len(found) else ""
        return pb.ListChangesResponse(changes=changes, next_page_token=more)

    def _may_block(self, caller: Caller) -> bool:
        seen = self._view.tool(SERVICE, caller)
        return seen is not None and "Block" in seen.permitted

    def _may_know(self, target: Target, caller: Caller) -> bool:
        if self._may_block(caller):
            return True
        if target.kind is Kind.CALLER:
            return (target.issuer, target.name) == (caller.issuer, caller.subject)
        if target.kind is Kind.DOMAIN:
            return True
        seen, method = self._view.tool(target.service, caller), target.name.partition("/")[2]
        # Of a hidden tool, as calls are answered: who may not call a method may not know that it is there.
        return seen is not None and (not method or not seen.tool.sheet.hidden or method in seen.permitted)

    def _check_may_be(self, target: Target, by: CallerId) -> None:
        """Raise InvalidCall where what is to be stopped is needed to let it go on again."""
        if target == Target(Kind.CALLER, by.subject, by.issuer):
            raise _wrong("target.caller", "is yourself")
        if target.kind is Kind.DOMAIN and target.name == PLATFORM:
            raise _wrong("target.domain", "is the mesh's own, which cannot be blocked")
        tool = self._view.catalog.tools.get(target.service)
        # The model server is the platform's, and a tool like any other.
        if is_platform(target.service) and (tool is None or any(each.source == OWN for each in tool.endpoints)):
            raise _wrong(f"target.{target.kind}", "is a service of the mesh itself, which cannot be blocked")

    def _check_known(self, target: Target) -> None:
        """Raise NotFound unless the mesh knows the target now: who mistypes must not believe that it is stopped."""
        known: Iterable[str]
        if target.kind is Kind.CALLER:
            name, known = target.issuer, self._blocking.issuers()
        elif target.kind is Kind.DOMAIN:
            name, known = target.name, self._blocking.domains()
        else:
            name, known = target.name, self._view.catalog.tools
            tool = self._view.catalog.tools.get(target.service)
            if target.kind is Kind.METHOD and tool is not None:
                known = [f"{tool.service}/{method.name}" for method in tool.methods]
        if name in known:
            return
        kind = "issuer" if target.kind is Kind.CALLER else str(target.kind)
        near = nearest_name(name, known)
        raise NotFound(
            f"nothing was blocked: the mesh knows no {kind} `{name}`{near}; say so if it is yet to come",
            resource=(kind, name),
            reason="UNKNOWN_TARGET",
        )


def _target(message: pb.Target) -> Target:
    if message.HasField("caller"):
        return Target(Kind.CALLER, message.caller.subject, message.caller.issuer)
    for kind, name in ((Kind.TOOL, message.tool), (Kind.METHOD, message.method)):
        if name:
            return Target(kind, name)
    return Target(Kind.DOMAIN, message.domain)


def _wrong(field: str, words: str) -> InvalidCall:
    return InvalidCall(f"nothing was blocked: `{field}` {words}", [Violation(field, words)], reason="CANNOT_BLOCK")


def _id_of(caller: Caller) -> CallerId:
    return CallerId(caller.issuer, caller.subject)


def _key(block: Block) -> str:
    target = block.target
    return f"{target.kind} {target.name} {target.issuer}"


def _block_message(block: Block) -> pb.Block:
    target, message = block.target, pb.Block(id=block.id, reason=block.reason)
    if target.kind is Kind.CALLER:
        message.target.caller.CopyFrom(pb.Caller(issuer=target.issuer, subject=target.name))
    else:
        setattr(message.target, target.kind, target.name)
    message.blocked_by.CopyFrom(pb.Caller(issuer=block.by.issuer, subject=block.by.subject))
    message.block_time.CopyFrom(_time(block.at_us))
    if block.until_us is not None:
        message.until.CopyFrom(_time(block.until_us))
    return message


def _change_message(change: Change) -> pb.Change:
    action = {
        Action.BLOCKED: pb.Change.ACTION_BLOCKED,
        Action.UNBLOCKED: pb.Change.ACTION_UNBLOCKED,
        Action.EXPIRED: pb.Change.ACTION_EXPIRED,
    }[change.action]
    message = pb.Change(action=action, reason=change.reason, block=_block_message(change.block))
    message.change_time.CopyFrom(_time(change.at_us))
    if change.by is not None:
        message.changed_by.CopyFrom(pb.Caller(issuer=change.by.issuer, subject=change.by.subject))
    return message


def _time(unix_us: int) -> Timestamp:
    made = Timestamp()
    made.FromMicroseconds(unix_us)
    return made
