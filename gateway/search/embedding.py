"""Vectors of texts, asked of the mesh's own model server: by calls through the mesh, as any tool's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from gateway.catalog import Tool
from gateway.clock import Clock
from governance.delegation import Delegation, tool_itself
from governance.ownership import PLATFORM
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceStub
from llmesh.call import call_now
from llmesh.errors import DeadlineExceeded, MeshError, Unavailable

__all__ = ["BATCH", "EMBED", "MODELS", "Embedded", "NotEmbeddedError", "OwnCalls", "embed_query", "why_not"]

MODELS = "llmesh.api.model.v1.ModelService"
EMBED = f"/{MODELS}/Embed"
# Who embeds what tools say of themselves.
_CATALOG = "llmesh.api.catalog.v1.CatalogService"
# Texts a call: few enough that other calls have their turn between two.
BATCH = 64
_BATCH_TIMEOUT_S = 60.0
# What a search waits for its query's vector before it goes by words alone.
QUERY_TIMEOUT_S = 0.5
_MAX_DIMENSION = 4096


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


def why_not(models: Tool | None) -> str:
    """Why nothing can be embedded now; empty if it can. models: the model server, None if the mesh has none."""
    if models is None:
        return "no model server is on the mesh"
    return "" if models.ready else "the model server does not answer now"


async def embed_query(query: str) -> Embedded:
    """The vector of what the caller asks, for the call that is being answered. Raises NotEmbeddedError."""
    call = call_now()
    if call is None:
        raise NotEmbeddedError("the search did not come through the mesh")
    try:
        return await _embed(call.mesh.channel, [query], timeout_s=QUERY_TIMEOUT_S)
    except MeshError as err:
        away = isinstance(err, Unavailable | DeadlineExceeded)
        raise NotEmbeddedError(f"the query was not embedded: {err.message}", away=away) from err


class OwnCalls:
    """Embeds what tools say of themselves, for the catalog service and nobody else."""

    def __init__(self, socket: Path, mint: Callable[[Delegation], str], *, clock: Clock) -> None:
        """socket: where Envoy takes the gateway's own calls. mint: writes their tokens."""
        self._socket = socket
        self._mint = mint
        self._clock = clock

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Their vectors; at most BATCH texts. Raises NotEmbeddedError."""
        ends_s = math.ceil(self._clock.unix_s() + _BATCH_TIMEOUT_S)
        itself = tool_itself(_CATALOG, PLATFORM)
        token = self._mint(Delegation(itself, path=(), methods=(EMBED,), parent="", expires_s=ends_s))
        async with grpc.aio.insecure_channel(f"unix:{self._socket}") as channel:
            try:
                return await _embed(channel, texts, timeout_s=_BATCH_TIMEOUT_S, token=token)
            except grpc.aio.AioRpcError as err:
                raise NotEmbeddedError(f"tools were not embedded: {err.details()}") from err


async def _embed(channel: grpc.aio.Channel, texts: Sequence[str], *, timeout_s: float, token: str = "") -> Embedded:
    request = pb.EmbedRequest(texts=texts, truncate=True)
    metadata = (("llmesh-delegation", token),) if token else ()
    response = await ModelServiceStub(channel).Embed(request, timeout=timeout_s, metadata=metadata)
    if response.provenance.is_placeholder:
        raise NotEmbeddedError("the model server's model has random weights, which mean nothing")
    vectors = [each.values for each in response.vectors]
    size = len(vectors[0]) if vectors else 0
    if len(vectors) != len(texts) or not 0 < size <= _MAX_DIMENSION or any(len(each) != size for each in vectors):
        raise NotEmbeddedError("the model server gave other vectors than it was asked for")
    made = response.provenance
    return Embedded(f"{made.model} {made.revision} {made.weights_digest} {size}", vectors)
