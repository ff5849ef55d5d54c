"""Vectors of texts by sentence-transformers, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from llmesh.api.model.v1 import model_pb2 as pb
from model_server.importing import IMPORTING
from model_server.in_turn import InTurn
from model_server.source import ModelSource

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["BATCH", "TransformerEmbedder", "start_embedder", "vectors"]

T = TypeVar("T")

# What is read or computed at once: a caller who leaves, or comes, waits for no more than that. Texts, and characters of
# all of them, of which one text may have more.
BATCH, BATCH_CHARS = 32, 65_536


async def start_embedder(source: ModelSource) -> TransformerEmbedder:
    """An embedder with the model, ready. Raises whatever sentence-transformers does."""
    thread = InTurn("embed")
    return TransformerEmbedder(await thread.run("", _load, source), thread)


def _load(source: ModelSource) -> SentenceTransformer:
    with IMPORTING:
        from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(source.folder), local_files_only=True)
    # The first one compiles what the others use.
    vectors(model, ["ready?"], narrow=_narrow_is_fast(model.device.type))
    return model


class TransformerEmbedder:
    """A model of sentence-transformers, in a thread of its own."""

    def __init__(self, model: SentenceTransformer, thread: InTurn) -> None:
        """model: loaded."""
        self._model = model
        self._thread = thread
        self._narrow = _narrow_is_fast(model.device.type)
        self.capabilities = (pb.MODEL_CAPABILITY_EMBED,)
        self.context_length = int(model.max_seq_length or 0)
        self.dimension = int(model.get_embedding_dimension() or 0)

    async def count(self, texts: Sequence[str], *, reader: str) -> Sequence[int]:
        """How many tokens each text is."""
        return await self._in_batches(texts, reader, partial(_count, self._model))

    async def embed(self, texts: Sequence[str], *, reader: str) -> Sequence[Sequence[float]]:
        """A vector for each text."""
        return await self._in_batches(texts, reader, partial(vectors, self._model, narrow=self._narrow))

    async def _in_batches(self, texts: Sequence[str], reader: str, work: Callable[[list[str]], list[T]]) -> Sequence[T]:
        """What comes of each text; between two batches other callers have their turn."""
        found: list[T] = []
        for batch in _batches(texts):
            found += await self._thread.run(reader, work, batch)
        return found

    async def wait_for_death(self) -> None:
        """Never: it lives in this process."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """End the thread, once it has done what it is at."""
        await self._thread.close()


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in their order."""
    batch, chars = list[str](), 0
    for text in texts:
        if batch and (len(batch) == BATCH or chars + len(text) > BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(text)
        chars += len(text)
    if batch:
        yield batch


def _count(model: SentenceTransformer, texts: list[str]) -> list[int]:
    read = model.tokenizer(texts, add_special_tokens=True, truncation=False)
    return [len(tokens) for tokens in read["input_ids"]]


def vectors(model: SentenceTransformer, texts: list[str], *, narrow: bool) -> list[list[float]]:
    """The vectors of texts. narrow: in bfloat16 where that does no harm: cosines of 0.9999 to the whole."""
    import numpy as np
    import torch

    with torch.inference_mode(), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=narrow):
        found = np.asarray(model.encode(texts, batch_size=BATCH, show_progress_bar=False), dtype=np.float32)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return (found / np.maximum(lengths, np.finfo(np.float32).tiny)).tolist()


def _narrow_is_fast(device: str) -> bool:
    """Whether bfloat16 takes half the time there; without instructions for it, seven times as long."""
    import torch

    able = torch.cpu.get_capabilities()
    return device != "cpu" or any(able.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
