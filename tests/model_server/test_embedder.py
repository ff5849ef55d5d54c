"""Texts wait for the one thread that reads them, and not too many of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any as Untyped

import pytest

from llmesh.errors import OverQuota
from model_server import embedder
from model_server.embedder import TransformerEmbedder


class Slow:
    """A model whose tokenizer waits to be let go."""

    max_seq_length = 8
    device = SimpleNamespace(type="cpu")

    def __init__(self) -> None:
        self.go = threading.Event()

    def get_embedding_dimension(self) -> int:
        return 2

    def tokenizer(self, texts: Sequence[str], **_: object) -> dict[str, list[list[int]]]:
        assert self.go.wait(60)
        return {"input_ids": [list(text.encode()) for text in texts]}


@pytest.fixture
def model() -> Generator[Slow]:
    slow = Slow()
    yield slow
    slow.go.set()


async def test_beyond_the_queue_texts_are_told_to_come_again_whatever_is_asked_of_them(
    model: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedder, "WAITING_MAX", 5)
    monkeypatch.setattr(embedder, "_narrow_is_fast", bool)
    untyped: Untyped = model
    asked = TransformerEmbedder(untyped, ThreadPoolExecutor(1))
    counted = [asyncio.ensure_future(asked.count(["a", "bc"])) for _ in range(2)]
    await asyncio.sleep(0)
    for ask in (asked.count, asked.embed):
        with pytest.raises(OverQuota) as told:
            await ask(["a", "b"])
        assert (told.value.reason, told.value.retry_after_s) == ("QUEUE_FULL", 1.0)
    model.go.set()
    assert await asyncio.gather(*counted) == [[1, 2], [1, 2]]
    assert await asked.count(["a"] * 5) == [1] * 5
    await asked.close()
