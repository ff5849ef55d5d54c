"""The mesh directory: closed to others, found from where one stands, written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmesh.home import SOCKET_PATH_MAX_BYTES, Home, HomeError, close_directory, write_atomically


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: pytest's own is too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="home-") as name:
        yield Path(name)


def test_an_explicit_path_comes_before_the_environment_and_that_before_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LLMESH_HOME", raising=False)
    assert Home.find().path == folder / ".llmesh"
    monkeypatch.setenv("LLMESH_HOME", str(folder / "elsewhere"))
    assert Home.find().path == folder / "elsewhere"
    assert Home.find("given").path == folder / "given"


def test_every_folder_is_closed_to_others(folder: Path) -> None:
    home = Home.find(folder / ".llmesh").create()
    for made in (home.path, home.run, home.tools, home.state, home.keys, home.cache, home.logs):
        assert made.stat().st_mode & 0o777 == 0o700
    assert home.create() == home


def test_a_directory_that_others_may_enter_is_refused(folder: Path) -> None:
    (folder / ".llmesh").mkdir(mode=0o755)
    (folder / ".llmesh").chmod(0o755)
    with pytest.raises(HomeError, match="others may enter"):
        Home.find(folder / ".llmesh").create()


def test_a_link_or_a_file_in_its_place_is_refused(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "link").symlink_to(folder)
    for name in ("file", "link", "file/below"):
        with pytest.raises(HomeError, match="not a directory"):
            close_directory(folder / name)


def test_a_path_too_long_for_sockets_is_refused_with_what_to_do() -> None:
    with pytest.raises(HomeError, match="set LLMESH_HOME to a shorter one"):
        Home.find("/" + "a" * 90)


@pytest.mark.parametrize("name", ["doc_search", "a" * 63])
@pytest.mark.parametrize("path", ["/h", "/" + "h" * 75])
def test_a_tools_socket_always_fits(name: str, path: str) -> None:
    socket = Home.find(path).tool_socket(name, pid=4194304)
    assert len(os.fsencode(socket)) <= SOCKET_PATH_MAX_BYTES
    assert socket.name.endswith("-4194304.sock")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a" * 64])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(HomeError, match="cannot name"):
        Home.find("/h").tool_socket(name)


def test_a_file_is_replaced_whole_and_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two", 0o644)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


WRITER = """
import sys
from itertools import cycle
from pathlib import Path
from llmesh.home import write_atomically
for byte in cycle((b"a", b"b")):
    write_atomically(Path(sys.argv[1]), byte * 300_000)
    print(flush=True)
"""


def test_who_is_killed_while_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for writes in range(1, 6):
        with subprocess.Popen((sys.executable, "-c", WRITER, str(path)), stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            for _ in range(writes):
                writer.stdout.readline()
            writer.kill()
        assert path.read_bytes() in (b"a" * 300_000, b"b" * 300_000)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, b"one")
    assert list(tmp_path.iterdir()) == [path]
