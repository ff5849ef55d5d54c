"""The server: its models, from its settings, and what answers calls by them."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import uvloop

import llmesh
from llmesh.home import Home
from model_server.embedder import start_embedder
from model_server.engine import Embedder, Engine
from model_server.finding import apart
from model_server.metrics import Metrics
from model_server.models import Models, Served
from model_server.packaged import PACKAGED_ID, find_packaged
from model_server.placeholder import PLACEHOLDER_ID, find_placeholder
from model_server.service import ModelServicer
from model_server.settings import Settings, parse_settings
from model_server.share import Share
from model_server.source import SourceError, check_named, find_source, id_of
from model_server.vllm_engine import import_vllm, start_vllm
from model_server.workshop import Workshop

__all__ = ["main"]

# That may wait to be made vectors of.
TEXTS_MAX = 4096


def main() -> None:
    """Serve until told to end; then let what is being written end."""
    settings = parse_settings(sys.argv[1:])
    if id_of(settings.model) == id_of(settings.embeddings or PACKAGED_ID):
        sys.exit(f"llmesh: `{settings.model}` cannot both write and make vectors: name two models")
    try:
        for model, revision in (
            (settings.model, settings.revision),
            (settings.embeddings, settings.embeddings_revision),
        ):
            if model:
                check_named(model, revision)
    except SourceError as err:
        sys.exit(f"llmesh: {err}")
    if not settings.revision and not settings.embeddings_revision:
        # No hub's model: nothing is looked for in the network, and nothing takes so long that its progress is told.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # That a text is longer than a model reads is for its caller to know, and told there.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # vLLM's own server has this loop, too: it takes less for each token than asyncio's.
    uvloop.install()
    # Before the embedder's libraries, which would be in its way.
    importing = import_vllm()
    models = Models(writer(settings, Home.join()), embedder(settings))
    workshop = Workshop()
    calls = Share(settings.concurrency + settings.queue, "calls")
    with Metrics(models, settings.metrics):
        llmesh.serve(
            ModelServicer(models, workshop, calls=calls, texts=Share(TEXTS_MAX, "texts")),
            beside=running(models, workshop),
            readiness=models.readiness,
            drain_limit_s=settings.drain_s,
        )
    if not importing.done():
        # It cannot be broken off, and nothing else is left to end.
        os._exit(0)


@asynccontextmanager
async def running(models: Models, workshop: Workshop) -> AsyncGenerator[None]:
    """All that calls are answered by."""
    async with workshop, models:
        yield


def writer(settings: Settings, home: Home) -> Served[Engine]:
    """The model that writes, as the settings have it."""
    start = partial(start_vllm, settings=settings)
    if not settings.model:
        return Served[Engine](PLACEHOLDER_ID, partial(apart, partial(find_placeholder, home.cache / "models")), start)
    find = partial(apart, partial(find_source, settings.model, settings.revision))
    return Served[Engine](id_of(settings.model), find, start)


def embedder(settings: Settings) -> Served[Embedder]:
    """The model that makes vectors, as the settings have it."""
    if not settings.embeddings:
        return Served[Embedder](PACKAGED_ID, partial(apart, find_packaged), start_embedder)
    find = partial(apart, partial(find_source, settings.embeddings, settings.embeddings_revision))
    return Served[Embedder](id_of(settings.embeddings), find, start_embedder)
