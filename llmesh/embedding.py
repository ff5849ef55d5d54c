"""Vectors of texts, asked of the mesh's own model server: by calls through the mesh, as any tool's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceStub
from llmesh.call import call_now
from llmesh.errors import DeadlineExceeded, MeshError, Unavailable, Unimplemented

__all__ = ["MODELS", "QUERY_TIMEOUT_S", "Embedded", "NotEmbeddedError", "embed", "embed_query"]

MODELS = "llmesh.api.model.v1.ModelService"
# What a search waits for its query's vector before it goes by words alone.
QUERY_TIMEOUT_S = 0.5
_MAX_DIMENSION = 4096
# From 1, of a vector's length: a model may count in half precision.
_TOLERANCE = 0.01


class NotEmbeddedError(Exception):
    """Texts have no vectors; the message says why, for people. away: others would fare no better now."""

    def __init__(self, message: str, *, away: bool = False) -> None:
        super().__init__(message)
        self.away = away


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of texts, in their order, each of length 1. model: tells the one that made them from any other."""

    model: str
    vectors: Sequence[Sequence[float]]


async def embed_query(query: str) -> Embedded:
    """The vector of what the caller asks, for the call that is being answered. Raises NotEmbeddedError."""
    call = call_now()
    if call is None:
        raise NotEmbeddedError("the search did not come through the mesh")
    # Half of what is left, so that there is time to answer without.
    timeout_s = min(QUERY_TIMEOUT_S, math.inf if call.remaining_s is None else call.remaining_s / 2)
    try:
        return await embed(call.mesh.channel, [query], timeout_s=timeout_s)
    except MeshError as err:
        late = isinstance(err, DeadlineExceeded)
        away = (late and timeout_s == QUERY_TIMEOUT_S) or isinstance(err, Unavailable | Unimplemented)
        why = "did not answer in time" if late else f"did not take the query: {err.message}"
        raise NotEmbeddedError(f"the model server {why}", away=away) from err


async def embed(channel: grpc.aio.Channel, texts: Sequence[str], *, timeout_s: float, token: str = "") -> Embedded:
    """Their vectors, as long as they are right. Raises NotEmbeddedError, and what the channel raises.

    token: a delegation's, where the channel has none of its own.
    """
    request = pb.EmbedRequest(texts=texts, truncate=True)
    metadata = (("llmesh-delegation", token),) if token else ()
    response = await ModelServiceStub(channel).Embed(request, timeout=timeout_s, metadata=metadata)
    made = response.provenance
    if made.is_placeholder:
        raise NotEmbeddedError("the model server's model has random weights, which mean nothing")
    vectors = [each.values for each in response.vectors]
    size = len(vectors[0]) if vectors else 0
    if (
        len(vectors) != len(texts)
        or not 0 < size <= _MAX_DIMENSION
        or not all(_is_right(each, size) for each in vectors)
    ):
        raise NotEmbeddedError("the model server gave other vectors than it was asked for")
    return Embedded(f"{made.model} {made.revision} {made.weights_digest} {size}", vectors)


def _is_right(vector: Sequence[float], size: int) -> bool:
    """Whether it has so many numbers and length 1: none is infinite, or no number, then."""
    return len(vector) == size and abs(math.hypot(*vector) - 1) <= _TOLERANCE
