"""What a model server is told: which models, and how much of the machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from llmesh.mesh_file import split_host_port

__all__ = ["Settings", "parse_settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """All that can be set.

    model, embeddings: a local folder, or a hub's id with the revision, a whole
    commit, beside it; empty: the tiny random model, and the packaged one.
    metrics: IP:port where Prometheus asks; empty for nowhere. context_length:
    tokens; 0: the model's own. concurrency: texts that the engine writes at
    once. queue: calls that may wait for it beyond these. drain_s: how long what
    is being written may go on once the server is told to end.
    """

    model: str = ""
    revision: str = ""
    embeddings: str = ""
    embeddings_revision: str = ""
    metrics: str = ""
    context_length: int = 0
    concurrency: int = 32
    queue: int = 64
    drain_s: float = 10.0


def parse_settings(arguments: Sequence[str]) -> Settings:
    """What the command line says. Exits with a message for what it can't mean."""
    parser = argparse.ArgumentParser("model_server", description="Serve models on the mesh.")
    of = Settings()
    parser.add_argument("--model", default=of.model, help="a folder, or a hub's id; none: a tiny random model")
    parser.add_argument("--revision", default=of.revision, help="commit of the hub's model")
    parser.add_argument("--embeddings", default=of.embeddings, help="a folder, or a hub's id; none: the packaged one")
    parser.add_argument("--embeddings-revision", default=of.embeddings_revision, help="commit of the hub's model")
    parser.add_argument("--metrics", default=of.metrics, help="IP:port of Prometheus metrics; none: nowhere")
    parser.add_argument("--context-length", type=int, default=of.context_length, help="tokens; 0: the model's own")
    parser.add_argument("--concurrency", type=int, default=of.concurrency, help="texts that are written at once")
    parser.add_argument("--queue", type=int, default=of.queue, help="calls that may wait beyond these")
    parser.add_argument("--drain-s", type=float, default=of.drain_s, help="how long texts go on after SIGTERM")
    settings = Settings(**vars(parser.parse_args(arguments)))
    try:
        if settings.metrics:
            split_host_port(settings.metrics)
    except ValueError as err:
        parser.error(f"--metrics: {err}")
    for name, least in (("context_length", 0), ("concurrency", 1), ("queue", 0), ("drain_s", 0)):
        if getattr(settings, name) < least:
            parser.error(f"--{name.replace('_', '-')}: must be at least {least}")
    return settings
