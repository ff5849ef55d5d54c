"""Another user of the machine reaches the mesh by its port, with a token, and by nothing else."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import RunningMesh

NOBODY = 65534
LISTENING = "0A"
# What is asked of each way in: whether a stranger can take it.
PROBE = """
import encodings.idna, json, os, socket, sys
user, port, *paths = sys.argv[1:]
if int(user):
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
open_to_us = []
for path in paths:
    with socket.socket(socket.AF_UNIX) as made:
        try:
            made.connect(path)
        except OSError:
            continue
    open_to_us.append(path)
with socket.create_connection(("127.0.0.1", int(port)), timeout=60):
    open_to_us.append(port)
print(json.dumps(open_to_us))
"""


def sockets(mesh: RunningMesh) -> list[Path]:
    return [path for path in mesh.home.path.rglob("*") if stat.S_ISSOCK(path.stat().st_mode)]


@pytest.fixture
def reached(mesh: RunningMesh) -> Iterator[RunningMesh]:
    """The mesh, with its directory in a place that everyone may enter."""
    before = stat.S_IMODE(mesh.folder.stat().st_mode)
    mesh.folder.chmod(0o755)
    yield mesh
    mesh.folder.chmod(before)


def open_to(user: int, mesh: RunningMesh) -> list[str]:
    """What a user can connect to, of the mesh's sockets and its port."""
    probe = (sys.executable, "-I", "-S", "-c", PROBE, str(user), str(mesh.port), *map(str, sockets(mesh)))
    return json.loads(subprocess.run(probe, cwd="/", capture_output=True, text=True, check=True, timeout=60).stdout)


def others_may_connect(path: Path, mesh: RunningMesh) -> bool:
    """Whether the modes on the way to a socket, and its own, let in whoever is neither its owner nor of its group."""
    folders = [each for each in path.parents if each.is_relative_to(mesh.folder)]
    entered = all(each.stat().st_mode & stat.S_IXOTH for each in folders)
    return entered and bool(path.stat().st_mode & stat.S_IWOTH)


def test_another_user_can_connect_to_no_socket(reached: RunningMesh) -> None:
    assert sockets(reached)
    assert [path for path in sockets(reached) if others_may_connect(path, reached)] == []
    # Only root can be another user, and try.
    if os.geteuid() == 0:
        assert open_to(NOBODY, reached) == [str(reached.port)]


def test_the_owner_can_connect_to_the_sockets(reached: RunningMesh) -> None:
    # So that the test above would see an open one.
    found = open_to(0, reached)

    assert {str(reached.home.admin_socket), str(reached.port)} < {*found}
    assert any(path.startswith(str(reached.home.tools)) for path in found)


def test_what_is_in_the_mesh_directory_is_closed_to_others(mesh: RunningMesh) -> None:
    folders = [mesh.home.path, *(path for path in mesh.home.path.rglob("*") if path.is_dir())]

    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert not [path for path in sockets(mesh) if path.stat().st_mode & 0o077]
    assert not [path for path in mesh.home.keys.iterdir() if path.stat().st_mode & 0o077 and "key" in path.name]


def descriptors(pids: Iterable[int]) -> set[str]:
    """What processes have open, as the kernel writes it."""
    return {str(each.readlink()) for pid in pids for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}


def listening(pids: Iterable[int]) -> set[tuple[str, int]]:
    """The TCP addresses that processes listen on: (address as the kernel writes it, port)."""
    held = descriptors(pids)
    found: set[tuple[str, int]] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENING and f"socket:[{inode}]" in held:
                address, _, port = local.partition(":")
                found.add((address, int(port, 16)))
    return found


def test_nothing_listens_on_tcp_but_the_mesh_port(mesh: RunningMesh) -> None:
    assert listening(process.pid for process in mesh.processes if process.alive) == {("0100007F", mesh.port)}


def test_no_socket_is_abstract(mesh: RunningMesh) -> None:
    # Those have no mode: anybody may connect to them.
    held = descriptors(process.pid for process in mesh.processes if process.alive)
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]

    assert not [each for each in lines if f"socket:[{each[6]}]" in held and each[7:] and each[7].startswith("@")]
