"""Learning what many tools mean."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.search import vectors
from gateway.search.embedding import BATCH
from gateway.search.index import Entry
from gateway.search.learner import Learner
from gateway.search.vectors import key_of, load
from llmesh.embedding import Embedded, NotEmbeddedError


def entries(count: int) -> list[Entry]:
    """Tools that each say one thing."""
    return [Entry({}, {key_of(text): text}) for text in map(str, range(count))]


async def test_the_more_is_known_the_more_is_shown_at_a_time(tmp_path: Path) -> None:
    shown = set[int]()

    async def embed(texts: Sequence[str]) -> Embedded:
        shown.add(len((await learner.vectors()).known))
        return Embedded("m", [[1.0]] * len(texts))

    learner = Learner(embed, tmp_path / "vectors")
    await learner.learn(entries(100 * BATCH))
    assert len((await learner.vectors()).known) == 100 * BATCH
    # Each time costs as many as are known: a hundred times would cost by the square.
    assert 10 < len(shown) < 40


async def test_vectors_of_a_model_before_take_no_memory(tmp_path: Path) -> None:
    async def embed(texts: Sequence[str]) -> Embedded:
        return Embedded(model, [[1.0]] * len(texts))

    model = "old"
    await Learner(embed, tmp_path / "vectors").learn(entries(1))
    learner = Learner(embed, tmp_path / "vectors")
    old = weakref.ref((await learner.vectors()).known[key_of("0")])
    model = "new"
    await learner.learn(entries(1), again=model)
    gc.collect()
    assert old() is None


async def test_what_was_made_is_kept_when_a_batch_fails(tmp_path: Path) -> None:
    batches = 0

    async def embed(texts: Sequence[str]) -> Embedded:
        nonlocal batches
        batches += 1
        if batches > 12:
            raise NotEmbeddedError("it went away")
        return Embedded("m", [[1.0]] * len(texts))

    with pytest.raises(NotEmbeddedError, match="it went away"):
        await Learner(embed, tmp_path / "vectors").learn(entries(20 * BATCH))
    assert len(load(tmp_path / "vectors").known) == 12 * BATCH


async def test_model_servers_that_differ_are_not_learnt_from_in_turn_for_ever(tmp_path: Path) -> None:
    models = 0

    async def embed(texts: Sequence[str]) -> Embedded:
        nonlocal models
        models += 1
        return Embedded(f"m{models % 2}", [[1.0]] * len(texts))

    with pytest.raises(NotEmbeddedError, match="embed by different models"):
        await Learner(embed, tmp_path / "vectors").learn(entries(2 * BATCH))


async def test_vectors_are_read_once_for_all_who_wait_and_who_no_longer_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counted(path: Path) -> vectors.Vectors:
        read.append(path)
        return load(path)

    async def embed(_: Sequence[str]) -> Embedded:
        raise AssertionError

    monkeypatch.setattr(vectors, "load", counted)
    learner = Learner(embed, tmp_path / "vectors")
    waiting = [asyncio.create_task(learner.vectors()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    found = await asyncio.gather(*waiting[1:], learner.vectors())
    assert all(each is found[0] for each in found)
    assert len(read) == 1
