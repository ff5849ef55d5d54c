"""What other tools know that bears on a ticket, asked on the caller's behalf.

Those asked are the ones that the contract lists under `uses`. Each of them
takes the mesh's own RetrieveRequest, so no stubs of theirs are needed.
"""

from __future__ import annotations

import asyncio

import grpc
from acme.support.v1 import tickets_pb2 as pb

import llmesh
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1 import retrieval_pb2 as retrieval

__all__ = ["suggest"]

# Of the time that the call has left: the rest is for the answer, without those that are slow.
_SHARE = 0.8


def _uses() -> tuple[str, ...]:
    method = pb.DESCRIPTOR.services_by_name["Tickets"].methods_by_name["Suggest"]
    return tuple(method.GetOptions().Extensions[options.method].uses)


async def suggest(call: llmesh.Call, title: str, *, limit: int) -> pb.SuggestResponse:
    """The passages that fit a title best, of all that were asked, and who gave no answer.

    What is given is cited. Raises Unavailable if nobody answered.
    """
    query = retrieval.RetrieveRequest(query=title, limit=limit)
    timeout_s = None if call.remaining_s is None else call.remaining_s * _SHARE
    methods, channel = _uses(), call.mesh.channel
    found = await asyncio.gather(*(_retrieve(channel, method, query, timeout_s) for method in methods))
    silences = [each for each in found if isinstance(each, pb.Silence)]
    if len(silences) == len(found):
        told = "; ".join(f"{each.method}: {each.reason}" for each in silences)
        raise llmesh.Unavailable(f"nobody who was asked answered: {told}", reason="NO_ANSWERS")
    suggestions = [suggestion for each in found if isinstance(each, list) for suggestion in each]
    # A score that is no number (NaN) is below all others.
    best = sorted(suggestions, key=lambda each: -each.passage.score if each.passage.score > 0 else 0.0)[:limit]
    for each in best:
        citation = each.passage.citation
        call.cite(method=each.method, title=citation.title, location=citation.location, digest=citation.digest)
    return pb.SuggestResponse(suggestions=best, silences=silences)


async def _retrieve(
    channel: grpc.aio.Channel, method: str, query: retrieval.RetrieveRequest, timeout_s: float | None
) -> list[pb.Suggestion] | pb.Silence:
    start = channel.unary_unary(
        f"/{method}",
        request_serializer=retrieval.RetrieveRequest.SerializeToString,
        response_deserializer=retrieval.RetrieveResponse.FromString,
    )
    try:
        answer = await start(query, timeout=timeout_s)
    except llmesh.MeshError as err:
        return pb.Silence(method=method, code=err.code.name, reason=err.message)
    return [pb.Suggestion(passage=each, method=method) for each in answer.passages]
