"""What `llmesh status` says of the models."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from io import StringIO

from rich.console import Console

import llmesh
from llmesh.api.catalog.v1.catalog_pb2 import Endpoint
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceServicer
from llmesh.caller import Caller
from llmesh.cli.models import ask_models, print_models
from llmesh.embedding import MODELS

OPS = Caller(subject="ops")
OTHERS = [Endpoint(address="unix:/x.sock", services=["acme.X"]), Endpoint(address="127.0.0.1:1", services=[MODELS])]


class Loading(ModelServiceServicer):
    """One of its models is ready. No other method is called."""

    async def ListModels(self, request: pb.ListModelsRequest, context: object) -> pb.ListModelsResponse:
        assert llmesh.current_call().caller.subject == "ops"
        return pb.ListModelsResponse(models=[pb.Model(id="[embeds]", ready=True), pb.Model(id="writes")])


def shown(models: Iterable[pb.Model] | None) -> list[str]:
    """The lines of `llmesh status`."""
    text = StringIO()
    print_models(Console(file=text, width=200), models)
    return text.getvalue().splitlines()


async def test_a_model_that_is_not_ready_yet_is_told() -> None:
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        address = f"unix:{folder}/s/models.sock"
        away = Endpoint(address=f"unix:{folder}/gone.sock", services=[MODELS])
        servicer = Loading()  # pyright: ignore[reportAbstractUsage] no other method is called
        async with llmesh.Server(servicer, address=address):
            models = await ask_models([*OTHERS, away, Endpoint(address=address, services=[MODELS])], OPS)

    assert shown(models) == ["model [embeds] is ready", "model writes is not ready: calls for it are UNAVAILABLE"]


async def test_models_that_do_not_answer_are_told_and_those_elsewhere_are_not_asked() -> None:
    assert shown(await ask_models(OTHERS, OPS)) == []
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        away = Endpoint(address=f"unix:{folder}/gone.sock", services=[MODELS])
        assert shown(await ask_models([away, *OTHERS], OPS)) == ["models do not answer"]
