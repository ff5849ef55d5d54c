"""Ending calls that are open: what serves them is asked to, since Envoy ends none (docs/adr/).

A block stops new calls in Envoy, whatever a tool does. Those that it is
answering already only its own server can end without harm to others; the
SDK's does, and tells the callers why. The gateway's own server is one of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain

import grpc.aio
from google.protobuf.message import DecodeError

from gateway.blocks.words import Block, Kind
from gateway.catalog import CatalogBoard, Endpoint, Tool
from gateway.reading.calls import Credentials, ask_once, no_credentials
from gateway.reading.refusal import Unreachable
from gateway.snapshot import refusals
from llmesh.api.calls.v1 import calls_pb2 as pb

__all__ = ["Cut", "Cuts"]

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 5.0
# All of them, however many there are: whoever asks for a cut waits for it.
ALL_WITHIN_S = 10.0
# Asked in one go.
AT_ONCE = 256
MESSAGE_BYTES = 4096
PATH = "/llmesh.api.calls.v1.CallService/EndCalls"
# What one server can have ended. Nobody vouches for what it says.
MOST = 100_000


@dataclass(frozen=True, slots=True)
class Cut:
    """How many calls were ended, and where they may go on, as nobody could be asked.

    deaf: addresses; of a service that is not on the mesh, its name.
    """

    ended: int = 0
    deaf: frozenset[str] = frozenset()


class _No(Enum):
    """Why an endpoint ended no calls: it cannot; or nothing answers there, which has none if it is gone for long."""

    CANNOT = 1
    AWAY = 2


class Cuts:
    """Asks the tools' servers."""

    def __init__(
        self,
        board: CatalogBoard,
        *,
        own: Sequence[Tool] = (),
        credentials: Credentials = no_credentials,
        answer_within_s: float = ANSWER_WITHIN_S,
        all_within_s: float = ALL_WITHIN_S,
    ) -> None:
        """board: who serves what. own: the gateway's tools. credentials: how to call over TLS."""
        self._board = board
        self._own = own
        self._credentials = credentials
        self._answer_within_s = answer_within_s
        self._all_within_s = all_within_s
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def cut(self, block: Block) -> Cut:
        """End the open calls that the block stops: those to the target, and those that it makes for others."""
        tools = (*self._board.current.tools.values(), *self._own)
        meant = {tool.service for tool in tools if _is_meant(block, tool.service, tool.domain)}
        # Calls that a blocked tool makes for others end with it, too; so nobody need restart what it calls.
        bears = [tool for tool in tools if block.target.kind is Kind.CALLER or tool.service in meant]
        answers = await self._ask(_in_turn(bears, tools), _request(block, meant))
        deaf = {
            endpoint.address
            for tool in bears
            for endpoint in tool.endpoints
            if answers[endpoint] is _No.CANNOT or (answers[endpoint] is _No.AWAY and endpoint in tool.ready)
        }
        if block.target.service and not meant:
            # It may have left a moment ago, with calls that it goes on answering, and nobody knows where.
            deaf.add(block.target.service)
        cut = Cut(sum(answer for answer in answers.values() if isinstance(answer, int)), frozenset(deaf))
        log.warning("calls cut", extra={"block": block.id, "ended": cut.ended, "not_cut": sorted(cut.deaf)})
        return cut

    async def _ask(self, servers: Collection[Endpoint], request: pb.EndCallsRequest) -> Mapping[Endpoint, int | _No]:
        """What each server answered; of those whose turn did not come in time, that they cannot."""
        if not servers:
            return {}
        asked = {asyncio.create_task(self._end(server, request)): server for server in servers}
        try:
            done, _ = await asyncio.wait(asked, timeout=self._all_within_s)
        finally:
            for task in asked:
                task.cancel()
        return {server: task.result() if task in done else _No.CANNOT for task, server in asked.items()}

    async def _end(self, endpoint: Endpoint, request: pb.EndCallsRequest) -> int | _No:
        """How many calls the endpoint ended, or why it did not."""
        try:
            async with self._turns:
                answer = await ask_once(
                    PATH,
                    request.SerializeToString(),
                    endpoint.address,
                    message_bytes=MESSAGE_BYTES,
                    timeout_s=self._answer_within_s,
                    tls_name=endpoint.tls_name,
                    credentials=self._credentials,
                )
            return min(pb.EndCallsResponse.FromString(answer).ended, MOST)
        except grpc.aio.AioRpcError as error:
            return _No.AWAY if error.code() is grpc.StatusCode.UNAVAILABLE else _No.CANNOT
        except (DecodeError, Unreachable):
            return _No.CANNOT


def _is_meant(block: Block, service: str, domain: str) -> bool:
    target = block.target
    return service == target.service or (target.kind is Kind.DOMAIN and domain == target.name)


def _in_turn(bears: Iterable[Tool], tools: Iterable[Tool]) -> Collection[Endpoint]:
    """Whom to ask, each once: first those that matter most, as the last ones' turn may not come in time."""
    ready = (endpoint for tool in bears for endpoint in tool.endpoints if endpoint in tool.ready)
    others = (endpoint for each in (bears, tools) for tool in each for endpoint in tool.endpoints)
    return dict.fromkeys(chain(ready, others))


def _request(block: Block, services: Iterable[str]) -> pb.EndCallsRequest:
    """What is asked. No tool is told why a caller is blocked: the caller reads it from Envoy, at the next call."""
    info = refusals.block_info(block)
    match block.target.kind:
        case Kind.CALLER:
            del info.metadata["reason"]
            told = f"{block.target} is blocked: call again to read why"
            request = pb.EndCallsRequest(message=told)
            request.caller.CopyFrom(pb.Caller(issuer=block.target.issuer, subject=block.target.name))
        case Kind.METHOD:
            request = pb.EndCallsRequest(message=refusals.blocked(block).message, method=block.target.name)
        case _:
            names = sorted({*services, block.target.service} - {""})
            request = pb.EndCallsRequest(message=refusals.blocked(block).message, services=pb.Services(names=names))
    request.reason = info.reason
    request.facts.update(info.metadata)
    return request
