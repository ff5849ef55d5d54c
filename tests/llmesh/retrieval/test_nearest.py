"""The index of vectors, in memory and on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llmesh.retrieval.nearest import Nearest, Vector
from llmesh.retrieval.shelf import Shelf

COUNT, DIMENSION = 500, 16


def unit(rows: Vector) -> Vector:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def key(at: int) -> bytes:
    return at.to_bytes(32, "big")


@pytest.fixture(scope="module")
def rows() -> Vector:
    return unit(np.random.default_rng(7).standard_normal((COUNT, DIMENSION)).astype(np.float32))


@pytest.fixture(scope="module")
def index(rows: Vector) -> Nearest:
    return Nearest.build("a model", {key(at): row for at, row in enumerate(rows)})


def test_the_nearest_come_first_with_their_cosines(index: Nearest, rows: Vector) -> None:
    asked = unit(rows[3] + 0.1 * rows[4])
    found = index.near(asked, 10)
    exact = rows @ asked
    assert list(found) == [key(int(at)) for at in np.argsort(-exact)[:10]]
    assert list(found.values()) == pytest.approx(np.sort(exact)[::-1][:10], abs=1e-5)


def test_more_are_asked_for_than_there_are(index: Nearest, rows: Vector) -> None:
    assert len(index.near(rows[0], 10 * COUNT)) == COUNT
    assert len(Nearest.build("m", {key(0): rows[0]}).near(rows[0], 10)) == 1


def test_cosines_are_of_the_keys_that_there_are(index: Nearest, rows: Vector) -> None:
    found = index.cosines(rows[0], [key(1), key(COUNT), key(2)])
    assert found == {key(at): pytest.approx(float(rows[at] @ rows[0]), abs=1e-5) for at in (1, 2)}
    assert index.cosines(rows[0], []) == {}


def test_what_was_saved_is_there_again(tmp_path: Path, index: Nearest, rows: Vector) -> None:
    Shelf(tmp_path / "shelf").save(index)
    loaded = Shelf(tmp_path / "shelf").load()
    assert loaded is not None
    assert (loaded.model, loaded.dimension, list(loaded.keys)) == ("a model", DIMENSION, list(index.keys))
    assert loaded.near(rows[9], 20) == index.near(rows[9], 20)


def test_the_last_one_that_was_saved_is_there_and_nothing_else(tmp_path: Path, index: Nearest, rows: Vector) -> None:
    shelf = Shelf(tmp_path / "shelf")
    shelf.save(index)
    shelf.save(Nearest.build("another", {key(0): rows[0]}))
    loaded = shelf.load()
    assert loaded is not None
    assert (loaded.model, len(loaded.keys)) == ("another", 1)
    assert len(list((tmp_path / "shelf").iterdir())) == 2


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert Shelf(tmp_path / "shelf").load() is None


@pytest.mark.parametrize("file", ["index", "*.graph"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "folder", "removed"])
def test_a_damaged_index_is_as_none_and_is_replaced(tmp_path: Path, index: Nearest, file: str, damage: str) -> None:
    shelf = Shelf(tmp_path)
    shelf.save(index)
    [path] = tmp_path.glob(file)
    content = path.read_bytes()
    path.unlink()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    spoilt = {"cut": content[:-1], "flipped": flipped, "empty": b"", "foreign": b"x" * 999}
    if damage == "folder":
        path.mkdir()
    elif damage in spoilt:
        path.write_bytes(spoilt[damage])

    assert shelf.load() is None
    if damage != "folder":
        shelf.save(index)
        assert shelf.load() is not None


def test_an_index_of_another_librarys_is_as_none(
    tmp_path: Path, index: Nearest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("llmesh.retrieval.shelf._LIBRARY", "hnswlib 0.0.1")
        Shelf(tmp_path).save(index)
    assert Shelf(tmp_path).load() is None


SAVES = """
import sys, numpy as np
import subprocess
import sys
from pathlib import Path
from llmesh.retrieval.nearest import Nearest
from llmesh.retrieval.shelf import Shelf
rows = np.eye(64, dtype=np.float32)
made = [Nearest.build(model, {bytes([at]): row for at, row in enumerate(rows)}) for model in ("one", "other")]
while True:
    for index in made:
        Shelf(Path(sys.argv[1])).save(index)
        print("saved", flush=True)
"""


@pytest.mark.parametrize("saves", [1, 4, 9])
def test_a_process_that_is_killed_as_it_saves_leaves_a_whole_index(tmp_path: Path, saves: int) -> None:
    with subprocess.Popen((sys.executable, "-c", SAVES, str(tmp_path)), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for _ in range(saves):
            assert process.stdout.readline() == "saved\n"
        process.kill()
    loaded = Shelf(tmp_path).load()
    assert loaded is not None
    assert len(loaded.keys) == 64
    # What it left behind is in nobody's way.
    Shelf(tmp_path).save(loaded)
    assert Shelf(tmp_path).load() is not None
