import asyncio
import os
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from search.handbook import Handbook, _Stamp  # pyright: ignore[reportPrivateUsage] what is overridden speaks of it
from search.index import Index


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with three pages, and files that are none."""
    pages = {
        "README.md": "# Mesh\n\nStart it with make up.\n\n## Install\n\nNeeds Python.",
        "docs/rules/write.md": "# Write a rule\n\nA rule permits or forbids.",
        "tools/support/tickets/README.md": "# Tickets\n\nFinds tickets.",
        "tools/support/tickets/docs/inner.md": "# Inner\n\nNot part of the handbook.",
        "other.md": "# Other\n\nNot part of the handbook.",
        "docs/code.py": "# Not Markdown",
    }
    for file, text in pages.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def files(index: Index) -> list[str]:
    return sorted({passage.file for passage in index.passages})


def first(index: Index, query: str) -> str:
    return next((hit.passage.text for hit in index.search(query, limit=1, filters=[])), "")


async def test_handbook_is_the_readme_the_docs_and_the_tools_readmes(root: Path) -> None:
    assert files(await Handbook(root).index()) == [
        "README.md",
        "docs/rules/write.md",
        "tools/support/tickets/README.md",
    ]


async def test_unchanged_pages_are_not_read_again(root: Path) -> None:
    handbook = Handbook(root)

    assert await handbook.index() is await handbook.index()


async def test_changed_page_is_found_by_the_next_call(root: Path) -> None:
    handbook = Handbook(root)
    before = await handbook.index()
    root.joinpath("README.md").write_text("# Mesh\n\nStop it with llmesh down.")
    after = await handbook.index()

    assert (first(before, "llmesh down"), first(after, "llmesh down")) == ("", "Stop it with llmesh down.")
    assert before.digest != after.digest


async def test_page_of_the_same_size_and_another_time_is_read_again(root: Path) -> None:
    handbook, page = Handbook(root), root / "README.md"
    await handbook.index()
    page.write_text(page.read_text().replace("make up", "make it"))
    os.utime(page, ns=(0, 0))

    assert first(await handbook.index(), "make it") == "Start it with make it."


async def test_page_that_appears_or_goes_is_seen(root: Path) -> None:
    handbook = Handbook(root)
    root.joinpath("docs/new.md").write_text("# New\n\nA fresh page.")
    with_new = await handbook.index()
    root.joinpath("docs/new.md").unlink()
    root.joinpath("README.md").unlink()
    without = await handbook.index()

    assert first(with_new, "fresh") == "A fresh page."
    assert files(without) == ["docs/rules/write.md", "tools/support/tickets/README.md"]


async def test_handbook_without_pages_finds_nothing(tmp_path: Path) -> None:
    index = await Handbook(tmp_path).index()

    assert (index.passages, index.search("rule", limit=10, filters=[])) == ((), [])


async def test_page_without_words_finds_nothing(tmp_path: Path) -> None:
    tmp_path.joinpath("docs").mkdir()
    tmp_path.joinpath("docs/_.md").write_text("***\n\n---")

    assert (await Handbook(tmp_path).index()).search("rule", limit=10, filters=[("file", ["docs/_.md"])]) == []


async def test_links_out_of_the_handbook_are_not_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    outside.joinpath("secret.md").write_text("# Secret\n\nOutside.")
    root.joinpath("docs/link.md").symlink_to(outside / "secret.md")
    root.joinpath("docs/folder").symlink_to(outside)
    root.joinpath("docs/dangling.md").symlink_to(root / "nothing.md")
    root.joinpath("docs/loop.md").symlink_to(root / "docs/loop.md")

    assert first(await Handbook(root).index(), "secret outside") == ""


async def test_odd_files_do_no_harm(root: Path) -> None:
    root.joinpath("docs/latin.md").write_bytes(b"# Caf\xe9\n\nCoffee.")
    root.joinpath("docs/folder.md").mkdir()
    root.joinpath("docs/empty.md").touch()
    handbook = Handbook(root)

    assert first(await handbook.index(), "coffee") == "Coffee."


async def test_page_of_no_reasonable_size_is_left_out_alone(root: Path) -> None:
    root.joinpath("docs/huge.md").write_text("# Huge\n\n" + "word\n" * 1_000_000)

    assert files(await Handbook(root).index()) == [
        "README.md",
        "docs/rules/write.md",
        "tools/support/tickets/README.md",
    ]


class Held(Handbook):
    """Its readings wait until they are let go, and count."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.begun, self.looks = asyncio.Semaphore(0), 0
        self.go = threading.Event()
        self._loop = asyncio.get_running_loop()

    def _stamp(self) -> list[_Stamp]:
        self.looks += 1
        return super()._stamp()

    def _read(self, stamps: list[_Stamp]) -> Index:
        self._loop.call_soon_threadsafe(self.begun.release)
        assert self.go.wait(60)
        return super()._read(stamps)


@pytest.fixture
async def held(root: Path) -> AsyncGenerator[Held]:
    handbook = Held(root)
    yield handbook
    handbook.go.set()


async def test_call_while_another_reads_has_what_changed_since(held: Held, root: Path) -> None:
    early = asyncio.create_task(held.index())
    await asyncio.wait_for(held.begun.acquire(), 60)
    root.joinpath("docs/new.md").write_text("# New\n\nA fresh page.")
    late = [asyncio.create_task(held.index()) for _ in range(20)]
    await asyncio.sleep(0)
    held.go.set()

    assert first(await early, "fresh") == ""
    assert {first(await call, "fresh") for call in late} == {"A fresh page."}
    assert held.looks == 2


async def test_index_of_the_same_pages_is_the_same(root: Path) -> None:
    here, there = await Handbook(root).index(), await Handbook(root).index()

    assert here.digest == there.digest
    assert here.search("a rule of the mesh", limit=9, filters=[]) == there.search(
        "a rule of the mesh", limit=9, filters=[]
    )
