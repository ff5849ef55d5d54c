"""Vectors on disk, kept as they are made."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from llmesh.retrieval.vectors import VectorFile, key_of

NORTH, EAST = np.array([0, 1], dtype=np.float32), np.array([1, 0], dtype=np.float32)
KEYS = [key_of("north"), key_of("east")]


@pytest.fixture
def file(tmp_path: Path) -> VectorFile:
    file = VectorFile(tmp_path / "vectors")
    file.put("a model", dict(zip(KEYS, (NORTH, EAST), strict=True)))
    return file


def test_what_was_put_is_there_again(file: VectorFile, tmp_path: Path) -> None:
    found = VectorFile(tmp_path / "vectors").get("a model", KEYS)
    assert {key: row.tolist() for key, row in found.items()} == {KEYS[0]: [0, 1], KEYS[1]: [1, 0]}
    assert file.model() == "a model"


def test_vectors_are_of_one_model(file: VectorFile) -> None:
    file.put("another", {KEYS[0]: EAST})
    assert file.get("another", KEYS).keys() == {KEYS[0]}
    assert file.get("a model", KEYS).keys() == {*KEYS}
    assert file.get("a third", KEYS) == {}


def test_only_what_is_kept_stays(file: VectorFile) -> None:
    file.put("another", {KEYS[0]: EAST})
    file.keep("a model", KEYS[:1])
    assert file.get("a model", KEYS).keys() == {KEYS[0]}
    assert file.get("another", KEYS) == {}


def test_there_are_none_at_first(tmp_path: Path) -> None:
    file = VectorFile(tmp_path / "folder" / "vectors")
    assert (file.model(), file.get("a model", KEYS)) == ("", {})


@pytest.mark.parametrize(
    "spoilt", [b"", b"xyz", NORTH.tobytes()[:4], (2 * NORTH).tobytes(), np.array([np.nan, 1]).tobytes()]
)
def test_what_is_no_vector_of_its_model_is_as_none(file: VectorFile, tmp_path: Path, spoilt: bytes) -> None:
    with sqlite3.connect(tmp_path / "vectors") as raw:
        raw.execute("UPDATE vectors SET vector = ? WHERE key = ?", (spoilt, KEYS[0]))
    raw.close()
    assert KEYS[0] not in file.get("a model", KEYS)


@pytest.mark.parametrize("content", [b"x" * 9999, b"SQLite format 3\x00" + b"x" * 9999])
def test_a_damaged_file_is_told_of_once_and_then_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vectors").write_bytes(content)
    file = VectorFile(tmp_path / "vectors")
    with pytest.raises(sqlite3.DatabaseError):
        file.model()
    assert file.model() == ""
    file.put("a model", {KEYS[0]: NORTH})
    assert file.get("a model", KEYS).keys() == {KEYS[0]}
