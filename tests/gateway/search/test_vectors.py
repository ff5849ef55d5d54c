"""Vectors on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.search.vectors import NONE, Vectors, key_of, load, save

NORTH, EAST = np.array([0, 1], dtype=np.float32), np.array([1, 0], dtype=np.float32)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "tools.vectors"
    save(path, Vectors("a model", {key_of("north"): NORTH, key_of("east"): EAST}))
    return path


def test_what_was_kept_is_there_again(kept: Path) -> None:
    vectors = load(kept)
    assert vectors.model == "a model"
    assert {key: row.tolist() for key, row in vectors.known.items()} == {
        key_of("north"): [0, 1],
        key_of("east"): [1, 0],
    }


def test_nothing_is_kept_at_first(tmp_path: Path) -> None:
    assert load(tmp_path / "tools.vectors") is NONE
    save(tmp_path / "tools.vectors", NONE)
    assert not load(tmp_path / "tools.vectors").known


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "folder"])
def test_damaged_file_is_as_none(kept: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    content = kept.read_bytes()
    kept.unlink()
    if damage == "folder":
        kept.mkdir()
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        kept.write_bytes({"cut": content[:-1], "flipped": flipped, "empty": b"", "foreign": b"x" * 999}[damage])
    assert load(kept) is NONE
    assert "vectors were unusable" in caplog.text


def test_vectors_of_another_model_are_dropped() -> None:
    before = Vectors("old", {key_of("north"): NORTH})
    assert before.with_("old", {key_of("east"): EAST}).known.keys() == {key_of("north"), key_of("east")}
    assert before.with_("new", {key_of("east"): EAST}).known.keys() == {key_of("east")}
    assert before.of("old") is before
    assert not before.of("new").known


def test_vectors_out_of_use_are_kept_for_a_while() -> None:
    keys = [key_of(str(number)) for number in range(1005)]
    vectors = Vectors("m", dict.fromkeys(keys, NORTH))
    assert vectors.kept(keys[:2]) is not vectors
    assert list(vectors.kept(keys[:2]).known) == keys[:2]
    assert vectors.kept(keys[:500]) is vectors
