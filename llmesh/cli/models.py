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


async def ask_models(endpoints: Iterable[catalog_pb2.Endpoint], caller: Caller) -> tuple[pb.Model, ...] | None:
    """The models of the server here, asked on its own socket, as its health is.

    Empty where none is here, None where those that are do not answer.
    """
    metadata = caller_to_metadata(caller)
    models: tuple[pb.Model, ...] | None = ()
    for endpoint in endpoints:
        if MODELS in endpoint.services and endpoint.address.startswith("unix:"):
            async with MeshChannel(open_channel(endpoint.address), metadata=lambda _: metadata) as channel:
                try:
                    listed = await ModelServiceStub(channel).ListModels(pb.ListModelsRequest(), timeout=ANSWER_WITHIN_S)
                except MeshError:
                    models = None
                    continue
            return tuple(listed.models)
    return models


def print_models(console: Console, models: Iterable[pb.Model] | None) -> None:
    """Each model, and whether it answers now. None: as `ask_models` has it."""
    if models is None:
        console.print("models do not answer", style="yellow")
        return
    for model in models:
        state = ("is ready", "green") if model.ready else ("is not ready: calls for it are UNAVAILABLE", "yellow")
        console.print(Text.assemble(f"model {model.id} ", state))
