"""One request to many tools: what becomes of each, as it comes, and the one message that is made of it."""

from __future__ import annotations

__all__ = ["FanOut", "FansOut", "Gathered", "Opened", "Options", "request_of"]

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from typing import Any, Generic, TypedDict, TypeVar, Unpack, overload

import grpc.aio
from google.protobuf.message import Message

from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.mesh.v1.mesh_pb2_grpc import MeshServiceStub
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.branch import Branch, Read, read_as, read_branch, read_known, read_merged

R = TypeVar("R", bound=Message)
Opened = Callable[[], AbstractAsyncContextManager[grpc.aio.Channel]]


class Options(TypedDict, total=False):
    """How to fan out; mesh.proto says what each means.

    where: CEL over `tool`, or a Selector, which can also name methods. quorum: how many must answer; it needs no
    completion beside it. merge: of what the answers are to be made one; an empty one reads as the request's type says.
    timeout_s: seconds for it all; None for the mesh's own.
    """

    where: str | pb.Selector
    completion: pb.Completion.ValueType
    quorum: int
    merge: options.Merge | None
    allow_writes: bool
    timeout_s: float | None


@dataclass(frozen=True)
class Gathered(Generic[R]):
    """A fan-out that is over: its branches in the order in which they came, and how it ended."""

    branches: tuple[Branch[R], ...]
    summary: pb.Summary
    read: Read[R] = field(repr=False)

    @property
    def merged(self) -> R:
        """The one message made of the answers. Raises Unavailable, with what failed, if there is none."""
        failed = "; ".join(f"{each.tool}/{each.method}: {each.error.message}" for each in self.branches if each.error)
        return read_merged(self.summary, self.read, failed)


class FanOut(Generic[R]):
    """One request to every tool that takes it: `async for branch in fan_out`, or `for` where no loop runs.

    Nothing is sent before it is read, and it is read once. To leave the loop early cancels what still runs. The call's
    own failure raises a kind of MeshError; a branch's is in its `error`.
    """

    def __init__(
        self,
        request: pb.FanOutRequest,
        read: Read[R],
        *,
        channel: Callable[[], grpc.aio.Channel],
        opened: Opened,
        timeout_s: float | None = None,
    ) -> None:
        """channel: to the mesh, asked for by `async for`. opened: one for as long as a `for` lasts."""
        self._request = request
        self._read = read
        self._channel = channel
        self._opened = opened
        self._timeout_s = timeout_s
        self._begun = False
        self._summary: pb.Summary | None = None

    @property
    def summary(self) -> pb.Summary:
        """How it ended. Raises RuntimeError before the last branch was read."""
        if self._summary is None:
            message = "the fan-out has not ended: its summary comes with the last branch"
            raise RuntimeError(message)
        return self._summary

    @property
    def merged(self) -> R:
        """The one message made of the answers. Raises Unavailable if there is none, RuntimeError as `summary` does."""
        return read_merged(self.summary, self._read)

    def __aiter__(self) -> AsyncGenerator[Branch[R]]:
        """The branches, each as it ends."""
        return self._sent(self._channel())

    def __iter__(self) -> Iterator[Branch[R]]:
        """The branches, each as it ends. Raises RuntimeError where a loop runs: use `async for` there."""

        async def alone() -> AsyncGenerator[Branch[R]]:
            async with self._opened() as channel, aclosing(self._sent(channel)) as branches:
                async for branch in branches:
                    yield branch

        _check_no_loop()
        with asyncio.Runner() as runner:
            branches = alone()

            async def following() -> Branch[R] | None:
                return await anext(branches, None)

            try:
                while branch := runner.run(following()):
                    yield branch
            finally:
                runner.run(branches.aclose())

    async def gathered(self) -> Gathered[R]:
        """All of it, once it is over."""
        branches = [branch async for branch in self]
        return Gathered(tuple(branches), self.summary, self._read)

    async def _sent(self, channel: grpc.aio.Channel) -> AsyncGenerator[Branch[R]]:
        if self._begun:
            message = "a fan-out is read once: make another one"
            raise RuntimeError(message)
        self._begun = True
        call = MeshServiceStub(channel).FanOut(self._request, timeout=self._timeout_s)
        try:
            async for message in call:
                # First, so that it is there for who reads no further than the last branch.
                if message.HasField("summary"):
                    self._summary = message.summary
                for branch in message.branches:
                    yield read_branch(branch, self._read)
        finally:
            call.cancel()


class FansOut:
    """Sends one request to many tools: the mesh, as one caller."""

    __slots__ = ()

    def ways(self) -> tuple[Callable[[], grpc.aio.Channel], Opened]:
        """A channel to the mesh for who runs in a loop already, and one that is opened for who does not."""
        raise NotImplementedError

    @overload
    def fan_out(self, request: Message, response_type: type[R], **stated: Unpack[Options]) -> FanOut[R]: ...

    @overload
    def fan_out(self, request: Message, response_type: None = None, **stated: Unpack[Options]) -> FanOut[Any]: ...

    def fan_out(
        self, request: Message, response_type: type[Message] | None = None, **stated: Unpack[Options]
    ) -> FanOut[Any]:
        """Send a request to every tool that takes it and that the caller may call; nothing is sent before it is read.

        response_type: what answers are read as; None for what their stubs say, where they were imported, else Any.
        """
        channel, opened = self.ways()
        return FanOut(
            request_of(request, stated),
            read_as(response_type) if response_type else read_known,
            channel=channel,
            opened=opened,
            timeout_s=stated.get("timeout_s"),
        )

    @overload
    async def fan_out_all(self, request: Message, response_type: type[R], **stated: Unpack[Options]) -> Gathered[R]: ...

    @overload
    async def fan_out_all(
        self, request: Message, response_type: None = None, **stated: Unpack[Options]
    ) -> Gathered[Any]: ...

    async def fan_out_all(
        self, request: Message, response_type: type[Message] | None = None, **stated: Unpack[Options]
    ) -> Gathered[Any]:
        """The same, once all is over. Unless `merge` says otherwise, answers are merged as the request's type says."""
        how: Options = {"merge": options.Merge(), **stated}
        return await self.fan_out(request, response_type, **how).gathered()


def _check_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    message = "here a loop runs, which `for` would hold up: use `async for`"
    raise RuntimeError(message)


def request_of(request: Message, stated: Options) -> pb.FanOutRequest:
    """What is sent for a request. Raises TypeError for what no fan-out takes: nobody is asked whom a slip let in."""
    if unknown := stated.keys() - Options.__annotations__.keys():
        message = f"a fan-out takes no {', '.join(sorted(unknown))}; it takes {', '.join(Options.__annotations__)}"
        raise TypeError(message)
    where, quorum, merge = stated.get("where", ""), stated.get("quorum", 0), stated.get("merge")
    if quorum < 0:
        message = f"`quorum` is {quorum}, and says how many must answer"
        raise TypeError(message)
    if not (merge is None or isinstance(merge, options.Merge)):  # pyright: ignore[reportUnnecessaryIsInstance] not all callers check types
        message = f"`merge` is `{merge}`, and must be a llmesh.api.options.v1 Merge; an empty one is the type's own"
        raise TypeError(message)
    told = pb.FanOutRequest(
        selector=pb.Selector(where=where) if isinstance(where, str) else where,
        completion=stated.get("completion", pb.COMPLETION_QUORUM if quorum else pb.COMPLETION_UNSPECIFIED),
        quorum=quorum,
        merge=merge,
        allow_writes=stated.get("allow_writes", False),
    )
    told.request.Pack(request)
    return told
