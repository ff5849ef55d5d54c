import asyncio
import os
import shutil
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from package_search.index import Index
from package_search.installed import Installed

from llmesh import Unavailable

STATUS = Path(__file__).with_name("status.txt")
NEW = "\n\nPackage: ripgrep\nStatus: install ok installed\nVersion: 13\nDescription: searches fast\n"


@pytest.fixture
def status(tmp_path: Path) -> Path:
    return Path(shutil.copy(STATUS, tmp_path / "status"))


def first(index: Index, query: str) -> str:
    return next((hit.package.name for hit in index.search(query, limit=1, filters=[])), "")


async def test_unchanged_file_is_not_read_again(status: Path) -> None:
    installed = Installed(status)

    assert await installed.index() is await installed.index()


async def test_what_was_just_installed_is_found_by_the_next_call(status: Path) -> None:
    installed = Installed(status)
    before = await installed.index()
    new = status.with_name("status-new")
    new.write_text(status.read_text() + NEW)
    new.rename(status)  # as dpkg does

    assert (first(before, "ripgrep"), first(await installed.index(), "ripgrep")) == ("", "ripgrep")


async def test_file_put_in_its_place_with_the_same_size_and_time_is_read(status: Path) -> None:
    installed = Installed(status)
    await installed.index()
    found, new = status.stat(), status.with_name("status-new")
    new.write_text(status.read_text().replace("Package: jq", "Package: xq"))
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))
    new.rename(status)

    assert first(await installed.index(), "json processor") == "xq"


@pytest.mark.parametrize(("fault", "told"), [("gone", "has no list of installed"), ("a folder", "cannot be read now")])
async def test_list_that_cannot_be_read_is_unavailable_until_it_can(status: Path, fault: str, told: str) -> None:
    installed = Installed(status)
    await installed.index()
    text = status.read_text()
    status.unlink()
    if fault == "a folder":
        status.mkdir()
    with pytest.raises(Unavailable, match=told) as caught:
        await installed.index()
    if fault == "a folder":
        status.rmdir()
    status.write_text(text)

    assert caught.value.retry_after_s
    assert str(status) not in caught.value.message
    assert first(await installed.index(), "json processor") == "jq"


async def test_bytes_that_are_no_text_do_no_harm(status: Path) -> None:
    status.write_bytes(
        b"\xff\xfe\x00\x80\n\n" + status.read_bytes() + b"\n\nPackage: \xe9\nStatus: install ok installed"
    )

    assert first(await Installed(status).index(), "json processor") == "jq"


class Held(Installed):
    """Its readings are not over until they are let go, and count."""

    def __init__(self, status: Path) -> None:
        super().__init__(status)
        self.begun, self.go = asyncio.Semaphore(0), threading.Event()
        self._loop = asyncio.get_running_loop()

    def _refresh(self) -> Index:
        found = super()._refresh()
        self._loop.call_soon_threadsafe(self.begun.release)
        assert self.go.wait(60)
        return found


@pytest.fixture
async def held(status: Path) -> AsyncGenerator[Held]:
    installed = Held(status)
    yield installed
    installed.go.set()


async def test_calls_while_another_reads_share_a_look_at_what_changed_since(held: Held, status: Path) -> None:
    early = asyncio.create_task(held.index())
    await asyncio.wait_for(held.begun.acquire(), 60)
    late = [asyncio.create_task(held.index()) for _ in range(20)]
    new = status.with_name("status-new")
    new.write_text(status.read_text() + NEW)
    new.rename(status)
    await asyncio.sleep(0)
    held.go.set()

    assert await early
    assert {first(await call, "ripgrep") for call in late} == {"ripgrep"}
    await held.begun.acquire()
    assert held.begun.locked()
