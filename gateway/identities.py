"""Who tools are while nobody calls them: each tool's servers are told, for calls that they make in their own right.

They are told over a connection to their own address, as they are asked for
prompts, and never where addresses are registered: whoever names another tool's
address has that tool told, and learns nothing. A token is short-lived, and
lists what the tool's methods use; whether the rules permit that to the tool is
asked at each call.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta

import grpc.aio

from gateway.catalog import CatalogBoard, Endpoint, Tool
from gateway.clock import Clock
from gateway.reading.calls import Credentials, as_sent, no_credentials, open_channel, until_lost
from gateway.reading.refusal import Unreachable
from governance.delegation import Delegation, tool_itself
from llmesh.api.identity.v1 import identity_pb2 as pb

__all__ = ["LIVES_S", "RENEWED_EACH_S", "Identities"]

log = logging.getLogger(__name__)

PATH = "/llmesh.api.identity.v1.IdentityService/TakeIdentity"
# A call that begins just before a token is renewed can be handed on for the rest of it.
LIVES_S = 120
RENEWED_EACH_S = 30.0
ANSWER_WITHIN_S = 5.0
MESSAGE_BYTES = 4096
# Told in one go.
AT_ONCE = 64
# Who is to be told again, or could not be, is after the first, and in vain ever less often.
BACK_OFF_S = (0.1, 2.0)
# Of one tool. A token travels as a header.
METHODS_MAX = 64


@dataclass(frozen=True, slots=True)
class _Right:
    """What a tool may call in its own right. methods: their paths, in order."""

    service: str
    domain: str
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Followed:
    """A tool, and what tells each of its endpoints."""

    tool: Tool
    right: _Right
    telling: Mapping[Endpoint, asyncio.Task[None]]


class Identities:
    """Tells the tools' servers."""

    def __init__(
        self,
        board: CatalogBoard,
        mint: Callable[[Delegation], str],
        *,
        address: str,
        clock: Clock,
        credentials: Credentials = no_credentials,
    ) -> None:
        """board: who serves what. mint: writes the tokens. address: the mesh's, for its tools.

        credentials: how to call over TLS.
        """
        self._board = board
        self._mint = mint
        self._address = address
        self._clock = clock
        self._credentials = credentials
        self._turns = asyncio.Semaphore(AT_ONCE)
        # Of those that did not answer in time: nobody else waits for them.
        self._late_turns = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Until cancelled."""
        followed: dict[str, _Followed] = {}
        async with asyncio.TaskGroup() as tasks, aclosing(self._board.watch()) as catalogs:
            async for catalog in catalogs:
                for service in followed.keys() - catalog.tools.keys():
                    _end(followed.pop(service))
                for service, tool in catalog.tools.items():
                    before = followed.get(service)
                    if before is None or before.tool is not tool:
                        followed[service] = self._follow(tool, before, tasks)

    def _follow(self, tool: Tool, before: _Followed | None, tasks: asyncio.TaskGroup) -> _Followed:
        """Have the tool's endpoints told. before: how they were; whatever of it stays as it is goes on."""
        right = _right_of(tool)
        if before is not None and before.right != right:
            _end(before)
            before = None
        # In the clear, a token is anybody's.
        meant = {each for each in tool.endpoints if each.protected} if right.methods else set[Endpoint]()
        telling = dict(before.telling) if before is not None else {}
        for endpoint in telling.keys() - meant:
            telling.pop(endpoint).cancel()
        for endpoint in meant - telling.keys():
            telling[endpoint] = tasks.create_task(self._tell(endpoint, right))
        return _Followed(tool, right, telling)

    async def _tell(self, endpoint: Endpoint, right: _Right) -> None:
        """Have the server there know who it is, for as long as this runs."""
        first_s, longest_s = BACK_OFF_S
        pause_s, turns = first_s, self._turns
        while True:
            try:
                await self._stay(endpoint, right, turns)
                pause_s, turns = first_s, self._turns
            except Unreachable:
                pause_s = longest_s
            except grpc.aio.AioRpcError as err:
                # That nothing answers there, discovery tells.
                if pause_s == first_s and err.code() is not grpc.StatusCode.UNAVAILABLE:
                    facts = {"service": right.service, "address": endpoint.address, "code": err.code().name}
                    log.warning("identity not given", extra=facts)
                if err.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    turns = self._late_turns
                pause_s = min(2 * pause_s, longest_s)
            await self._clock.sleep(pause_s)

    async def _stay(self, endpoint: Endpoint, right: _Right, turns: asyncio.Semaphore) -> None:
        """Tell the server, again and again. Returns when the connection is lost. Raises AioRpcError, Unreachable."""
        async with open_channel(
            endpoint.address,
            message_bytes=MESSAGE_BYTES,
            tls_name=endpoint.tls_name,
            credentials=self._credentials,
        ) as channel:
            tell = channel.unary_unary(PATH, request_serializer=as_sent, response_deserializer=as_sent)
            while True:
                try:
                    async with turns:
                        await tell(self._identity(right), timeout=ANSWER_WITHIN_S)
                except grpc.aio.AioRpcError as err:
                    if err.code() is not grpc.StatusCode.UNIMPLEMENTED:
                        raise
                    # Another process at this address may.
                    await until_lost(channel)
                    return
                if await self._is_lost(channel, within_s=RENEWED_EACH_S):
                    return

    async def _is_lost(self, channel: grpc.aio.Channel, *, within_s: float) -> bool:
        """Wait until the connection is lost (True), or so long (False)."""
        lost, over = asyncio.create_task(until_lost(channel)), asyncio.create_task(self._clock.sleep(within_s))
        try:
            await asyncio.wait((lost, over), return_when=asyncio.FIRST_COMPLETED)
            return lost.done()
        finally:
            lost.cancel()
            over.cancel()

    def _identity(self, right: _Right) -> bytes:
        delegation = Delegation(
            tool_itself(right.service, right.domain),
            path=(),
            methods=right.methods,
            parent="",
            expires_s=math.ceil(self._clock.unix_s() + LIVES_S),
        )
        told = pb.TakeIdentityRequest(service=right.service, token=self._mint(delegation), mesh=self._address)
        told.lasts.FromTimedelta(timedelta(seconds=LIVES_S))
        return told.SerializeToString()


def _right_of(tool: Tool) -> _Right:
    used = sorted({f"/{name}" for method in tool.methods for name in method.options.uses})
    if len(used) > METHODS_MAX:
        facts = {"service": tool.service, "uses": len(used), "most": METHODS_MAX}
        log.warning("no identity for a tool that uses too many methods", extra=facts)
        used = []
    return _Right(tool.service, tool.domain, tuple(used))


def _end(followed: _Followed) -> None:
    for task in followed.telling.values():
        task.cancel()
