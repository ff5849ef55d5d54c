"""Vectors of what tools say of themselves, for the catalog service in its own right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import grpc.aio

from gateway.catalog import Tool
from gateway.clock import Clock
from governance.delegation import Delegation, tool_itself
from governance.ownership import PLATFORM
from llmesh.embedding import MODELS, Embedded, NotEmbeddedError, embed

__all__ = ["BATCH", "EMBED", "OwnCalls", "why_not"]

EMBED = f"/{MODELS}/Embed"
# Who embeds what tools say of themselves.
_CATALOG = "llmesh.api.catalog.v1.CatalogService"
# Texts a call: few enough that other calls have their turn between two.
BATCH = 64
_BATCH_TIMEOUT_S = 60.0


def why_not(models: Tool | None) -> str:
    """Why nothing can be embedded now; empty if it can. models: the model server, None if the mesh has none."""
    if models is None:
        return "no model server is on the mesh"
    return "" if models.ready else "the model server does not answer now"


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
                return await embed(channel, texts, timeout_s=_BATCH_TIMEOUT_S, token=token)
            except grpc.aio.AioRpcError as err:
                raise NotEmbeddedError(f"tools were not embedded: {err.details()}") from err
