"""Fan-outs in a test: what stands in for the mesh's own service where others stand in for tools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import grpc
from google.protobuf import any_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from llmesh._client import MeshChannel
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.mesh.v1.mesh_pb2_grpc import MeshServiceServicer
from llmesh.call import current_call
from llmesh.errors import MeshError, NotFound
from llmesh.status import status_from_error

__all__ = ["FanOuts"]

# Of the time that there is, as the mesh keeps some back to answer.
_SHARE = 0.9


class FanOuts(MeshServiceServicer):
    """Asks every method of one response that takes the request. It reads no selector and merges nothing."""

    def __init__(self, services: tuple[str, ...], channel: grpc.aio.Channel) -> None:
        """services: what is served where channel leads, which whoever made it closes."""
        self._services = services
        self._channel = channel

    async def FanOut(
        self, request: pb.FanOutRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.FanOutResponse]:
        """Each branch as it ends, then the summary."""
        call = current_call()
        methods = list(self._takers(request.request.TypeName()))
        if not methods:
            message = f"no tool that stands in for others takes `{request.request.TypeName()}`"
            raise NotFound(message, resource=("type", request.request.TypeName()), reason="UNKNOWN_TYPE")
        timeout_s = None if call.remaining_s is None else call.remaining_s * _SHARE
        channel = MeshChannel(self._channel, metadata=lambda _: ())
        asked = [asyncio.ensure_future(_branch(channel, each, request.request.value, timeout_s)) for each in methods]
        answered = 0
        try:
            for ended in asyncio.as_completed(asked):
                branch = await ended
                answered += not branch.status.code
                yield pb.FanOutResponse(branches=[branch])
        finally:
            for each in asked:
                each.cancel()
        yield pb.FanOutResponse(
            summary=pb.Summary(
                end=pb.Summary.END_ALL_ENDED,
                met=answered == len(asked),
                asked_count=len(asked),
                answered_count=answered,
                failed_count=len(asked) - answered,
                unmerged="what stands in for the mesh merges nothing" if request.HasField("merge") else "",
            )
        )

    def _takers(self, type_name: str) -> Iterator[MethodDescriptor]:
        pool = descriptor_pool.Default()
        for service in self._services:
            for method in pool.FindServiceByName(service).methods:
                streams = method.client_streaming or method.server_streaming
                if method.input_type.full_name == type_name and not streams:
                    yield method


async def _branch(
    channel: grpc.aio.Channel, method: MethodDescriptor, request: bytes, timeout_s: float | None
) -> pb.Branch:
    service = method.containing_service.full_name
    told = pb.Branch(tool=service, method=method.name, attempt_count=1)
    told.status.SetInParent()
    try:
        answer = cast("bytes", await channel.unary_unary(f"/{service}/{method.name}")(request, timeout=timeout_s))
    except MeshError as err:
        told.status.CopyFrom(status_from_error(err))
    else:
        told.responses.append(any_pb2.Any(type_url=f"type.googleapis.com/{method.output_type.full_name}", value=answer))
    return told
