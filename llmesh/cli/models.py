"""What the model server of a mesh says of its models in `llmesh status`."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from llmesh import MeshError
from llmesh._client import MeshChannel, open_channel
from llmesh.api.catalog.v1 import catalog_pb2
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceStub
from llmesh.caller import Caller, caller_to_metadata
from llmesh.embedding import MODELS

__all__ = ["ask_models", "print_models"]

ANSWER_WITHIN_S = 2.0


async def ask_models(endpoints: Iterable[catalog_pb2.Endpoint], caller: Caller) -> list[pb.Model]:
    """The models of the server here, asked on its own socket, as its health is; none where none answers."""
    for endpoint in endpoints:
        if MODELS in endpoint.services and endpoint.address.startswith("unix:"):
            metadata = caller_to_metadata(caller)
            async with MeshChannel(open_channel(endpoint.address), metadata=lambda _, told=metadata: told) as channel:
                try:
                    listed = await ModelServiceStub(channel).ListModels(pb.ListModelsRequest(), timeout=ANSWER_WITHIN_S)
                except MeshError:
                    # How the endpoint is, is told with the others.
                    continue
            return list(listed.models)
    return []


def print_models(console: Console, models: Iterable[pb.Model]) -> None:
    """Each model, and whether it answers now."""
    for model in models:
        state = ("is ready", "green") if model.ready else ("is not ready: calls for it are UNAVAILABLE", "yellow")
        console.print(Text.assemble(f"model {model.id} ", state))
