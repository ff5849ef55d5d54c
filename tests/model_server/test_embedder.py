"""Texts wait for the one thread that reads them, and not too many of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from types import SimpleNamespace
from typing import Any as Untyped

import pytest

from model_server import embedder
from model_server.embedder import TransformerEmbedder
from model_server.in_turn import InTurn


class Slow:
    """A model whose tokenizer waits to be let go."""

    max_seq_length = 8
    device = SimpleNamespace(type="cpu")

    def __init__(self) -> None:
        self.go = threading.Event()
        # What it was given at once, in order.
        self.read = list[list[str]]()

    def get_embedding_dimension(self) -> int:
        return 2

    def tokenizer(self, texts: Sequence[str], **_: object) -> dict[str, list[list[int]]]:
        assert self.go.wait(60)
        self.read.append(list(texts))
        return {"input_ids": [list(text.encode()) for text in texts]}


@pytest.fixture
def model() -> Generator[Slow]:
    slow = Slow()
    yield slow
    slow.go.set()


@pytest.fixture
async def asked(model: Slow, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[TransformerEmbedder]:
    monkeypatch.setattr(embedder, "_narrow_is_fast", bool)
    untyped: Untyped = model
    asked = TransformerEmbedder(untyped, InTurn("embed"))
    yield asked
    model.go.set()
    await asked.close()


async def test_who_comes_waits_for_no_more_than_a_batch_of_anothers_texts(
    model: Slow, asked: TransformerEmbedder
) -> None:
    long = ["a" * 32_000] * 100
    counting = [asyncio.ensure_future(asked.count(long, reader="eve")) for _ in range(10)]
    await asyncio.sleep(0)
    coming = asyncio.ensure_future(asked.count(["b"], reader="ada"))
    await asyncio.sleep(0)
    model.go.set()
    assert await coming == [1]
    assert await asyncio.gather(*counting) == [[32_000] * 100] * 10
    assert model.read.index(["b"]) == 1
    assert max(sum(map(len, batch)) for batch in model.read) <= embedder.BATCH_CHARS


async def test_texts_are_read_once_to_be_counted_and_not_again_for_vectors(
    model: Slow, asked: TransformerEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[list[str]]()

    def vectors(_: object, texts: list[str], **told: object) -> list[list[float]]:
        assert list(told) == ["narrow"]
        made.append(texts)
        return [[float(len(text)), 0.0] for text in texts]

    monkeypatch.setattr(embedder, "vectors", vectors)
    model.go.set()
    texts = ["a" * (1 + at % 7) for at in range(embedder.BATCH + 1)] + ["a" * 100_000, "b"]
    assert await asked.embed(texts, reader="") == [[float(len(text)), 0.0] for text in texts]
    assert [len(batch) for batch in made] == [embedder.BATCH, 1, 1, 1]
    assert model.read == []
