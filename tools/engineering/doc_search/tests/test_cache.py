import errno
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from doc_search import cache as caching
from doc_search.cache import load_or_build
from doc_search.index import Index
from doc_search.passages import Passage
from doc_search.ranking import Ranking


class Collector:
    """Stands in for the standard library, and counts how often it is read."""

    def __init__(self) -> None:
        self.calls = 0

    def collect(self) -> list[Passage]:
        self.calls += 1
        return [
            Passage(f"module.f{at}", "function", "module", f"pydoc module.f{at}", f"module.f{at}()\n\nSquares {at}.")
            for at in range(50)
        ]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    fake = Collector()
    monkeypatch.setattr(caching, "collect", fake.collect)
    return fake


def first(index: Index) -> str:
    return index.search("f17", limit=1, filters=[])[0].passage.name


def test_second_start_loads_what_the_first_built(tmp_path: Path, collector: Collector) -> None:
    built, loaded = load_or_build(tmp_path), load_or_build(tmp_path)

    assert collector.calls == 1
    assert loaded.digest == built.digest
    assert loaded.search("squares 17", limit=9, filters=[]) == built.search("squares 17", limit=9, filters=[])


def test_index_is_the_same_wherever_it_is_built(tmp_path: Path, collector: Collector) -> None:
    here, there = load_or_build(tmp_path / "here"), load_or_build(tmp_path / "there")

    assert collector.calls == 2
    assert here.digest == there.digest
    assert here.search("squares 17", limit=9, filters=[]) == there.search("squares 17", limit=9, filters=[])


def saved_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "removed"])
def test_damaged_cache_is_built_again(tmp_path: Path, collector: Collector, damage: str) -> None:
    load_or_build(tmp_path)
    files = saved_files(tmp_path)
    for times, path in enumerate(files, start=1):
        content = path.read_bytes()
        if damage == "removed":
            path.unlink()
        else:
            broken = {"cut": content[: len(content) // 2], "changed": b"\x00" + content[1:], "emptied": b""}[damage]
            path.write_bytes(broken)

        assert first(load_or_build(tmp_path)) == "module.f17", path
        assert collector.calls == 1 + times, path
    load_or_build(tmp_path)
    assert collector.calls == 1 + len(files)


def test_file_in_the_index_place_is_replaced(tmp_path: Path, collector: Collector) -> None:
    load_or_build(tmp_path)
    (folder,) = tmp_path.iterdir()
    shutil.rmtree(folder)
    folder.write_text("not a folder")

    assert first(load_or_build(tmp_path)) == "module.f17"
    assert collector.calls == 2
    assert folder.is_dir()


def test_leftovers_of_a_broken_build_are_not_taken_for_an_index(tmp_path: Path, collector: Collector) -> None:
    load_or_build(tmp_path)
    (folder,) = tmp_path.iterdir()
    folder.rename(folder.with_name(f".{folder.name}.abandoned"))

    assert first(load_or_build(tmp_path)) == "module.f17"
    assert collector.calls == 2


def test_failed_build_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    def fail(_ranking: Ranking, folder: Path) -> None:
        folder.mkdir()
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(Ranking, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        load_or_build(tmp_path)

    assert collector.calls == 1
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_together_all_get_the_index(tmp_path: Path, collector: Collector) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(load_or_build, [tmp_path] * 8))

    assert {index.digest for index in found} == {found[0].digest}
    assert {first(index) for index in found} == {"module.f17"}
    assert len(list(tmp_path.iterdir())) == 1
    calls = collector.calls
    load_or_build(tmp_path)
    assert collector.calls == calls


def test_real_index_is_loaded_and_not_built_again(cache: Path, index: Index, collector: Collector) -> None:
    loaded = load_or_build(cache)

    assert collector.calls == 0
    assert loaded.digest == index.digest
