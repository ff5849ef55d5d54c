"""The index of vectors, in memory and on disk."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import pytest

from llmesh.retrieval.nearest import Nearest, StoppedError, Vector
from llmesh.retrieval.shelf import Shelf

# Of the first there is no graph.
FEW, MANY, DIMENSION = 500, 5000, 16


def unit(rows: Vector) -> Vector:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def key(at: int) -> bytes:
    return at.to_bytes(32, "big")


def built(model: str, rows: Vector) -> Nearest:
    return Nearest.build(model, {key(at): row for at, row in enumerate(rows)})


@pytest.fixture(scope="module", params=[FEW, MANY], ids=["few", "many"])
def rows(request: pytest.FixtureRequest) -> Vector:
    return unit(np.random.default_rng(7).standard_normal((request.param, DIMENSION)).astype(np.float32))


@pytest.fixture(scope="module")
def index(rows: Vector) -> Nearest:
    index = built("a model", rows)
    assert (index.graph is None) == (len(rows) == FEW)
    return index


def test_the_nearest_come_first(index: Nearest, rows: Vector) -> None:
    asked = unit(rows[3] + 0.1 * rows[4])
    found = index.near(asked, 10)
    exact = rows @ asked
    assert found.tolist() == np.argsort(-exact)[:10].tolist()


def test_of_equal_ones_the_first_are_found() -> None:
    axes = np.eye(2, dtype=np.float32)
    index = built("m", axes[np.arange(1001) % 2])
    assert index.near(axes[1], 100).tolist() == [*range(1, 200, 2)]


def test_more_are_asked_for_than_there_are(index: Nearest, rows: Vector) -> None:
    found = index.near(rows[0], 10 * len(rows))
    assert sorted(found) == list(range(len(rows)))
    assert len(built("m", rows[:1]).near(rows[0], 10)) == 1


def test_what_a_walk_does_not_reach_is_found_all_the_same() -> None:
    # Texts that differ in case alone have one vector: such are linked to each other, and to nothing else.
    alike = np.repeat(unit(np.random.default_rng(7).standard_normal((20, DIMENSION)).astype(np.float32)), MANY // 20, 0)
    index = built("m", alike)
    assert index.graph is not None
    with pytest.raises(RuntimeError):
        index.graph.knn_query(alike[0], k=MANY // 5)

    found = index.near(alike[0], MANY // 5)
    assert len({*found.tolist()}) == MANY // 5
    assert (alike[found] @ alike[0]).tolist() == pytest.approx(np.sort(alike @ alike[0])[::-1][: MANY // 5], abs=1e-5)


@pytest.mark.parametrize("asked", [1, 3])
def test_a_build_that_is_not_wanted_any_more_ends_at_the_next_step(rows: Vector, asked: int) -> None:
    many, asks = np.tile(rows, (2 * MANY // len(rows), 1)), iter([True] * (asked - 1) + [False])
    with pytest.raises(StoppedError):
        Nearest.build("m", {key(at): row for at, row in enumerate(many)}, goes_on=lambda: next(asks))
    assert not list(asks)


@pytest.mark.parametrize("picked", [[], [2, 1], range(400)], ids=["none", "some", "most"])
def test_cosines_are_of_the_rows_that_are_picked(index: Nearest, rows: Vector, picked: Sequence[int]) -> None:
    found = index.cosines(rows[0], np.array(picked, dtype=np.intp))
    assert found.tolist() == pytest.approx([float(rows[at] @ rows[0]) for at in picked], abs=1e-5)


def test_what_was_saved_is_there_again(tmp_path: Path, index: Nearest, rows: Vector) -> None:
    Shelf(tmp_path / "shelf").save(index)
    loaded = Shelf(tmp_path / "shelf").load()
    assert loaded is not None
    assert (loaded.model, loaded.rows, loaded.vectors.tolist()) == ("a model", index.rows, rows.tolist())
    assert loaded.near(rows[9], 20).tolist() == index.near(rows[9], 20).tolist()


def test_the_last_one_that_was_saved_is_there_and_nothing_else(tmp_path: Path, index: Nearest, rows: Vector) -> None:
    shelf = Shelf(tmp_path / "shelf")
    shelf.save(index)
    shelf.save(built("another", rows[:1]))
    loaded = shelf.load()
    assert loaded is not None
    assert (loaded.model, len(loaded.rows)) == ("another", 1)
    assert len(list((tmp_path / "shelf").iterdir())) == 2


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert Shelf(tmp_path / "shelf").load() is None


@pytest.mark.parametrize("rows", [MANY], indirect=True)
@pytest.mark.parametrize("file", ["index", "*.vectors", "*.graph"])
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
    shelf.save(index)
    assert shelf.load() is not None


@pytest.mark.parametrize("name", ["draft", "old.vectors", "old.graph"])
def test_a_folder_that_is_in_the_way_is_removed(tmp_path: Path, index: Nearest, name: str) -> None:
    tmp_path.joinpath(name, "inner").mkdir(parents=True)
    tmp_path.joinpath("somebody's").mkdir()
    Shelf(tmp_path).save(index)

    assert Shelf(tmp_path).load() is not None
    assert not tmp_path.joinpath(name).exists()
    assert tmp_path.joinpath("somebody's").exists()


def test_those_who_save_and_read_at_once_do_each_other_no_harm(tmp_path: Path) -> None:
    made = [built(model, np.eye(64, dtype=np.float32)) for model in ("one", "other")]
    Shelf(tmp_path).save(made[0])
    done = threading.Event()

    def save(index: Nearest) -> None:
        for _ in range(40):
            Shelf(tmp_path).save(index)

    def read() -> list[Nearest | None]:
        return [Shelf(tmp_path).load() for _ in takewhile(lambda _: not done.is_set(), count())]

    with ThreadPoolExecutor() as pool:
        reading = pool.submit(read)
        try:
            for saving in [pool.submit(save, index) for index in made]:
                saving.result()
        finally:
            done.set()
        found = reading.result()

    assert found
    assert all(found)


def test_who_hangs_with_the_lock_keeps_nobody_waiting_for_ever(
    tmp_path: Path, index: Nearest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmesh.retrieval.shelf._WAIT_S", 0.1)
    shelf = Shelf(tmp_path)
    shelf.save(index)
    hangs = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(hangs, fcntl.LOCK_EX)
        assert shelf.load() is None
        with pytest.raises(TimeoutError, match="does it hang"):
            shelf.save(index)
    finally:
        os.close(hangs)
    assert shelf.load() is not None


def test_an_index_of_another_librarys_is_as_none(
    tmp_path: Path, index: Nearest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("llmesh.retrieval.shelf._FORM", "2, hnswlib 0.0.1")
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
    assert len(loaded.rows) == 64
    # What it left behind is in nobody's way.
    Shelf(tmp_path).save(loaded)
    assert Shelf(tmp_path).load() is not None
