"""`llmesh up`, `status` and `down`: what stops a start, and a real mesh from start to end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import grpc.aio
import pytest

from llmesh.cli import starting
from llmesh.cli.running import NOT_AS_TOLD, policy_error
from llmesh.home import Home
from llmesh.supervisor import checks
from llmesh.supervisor.processes import ProcessId, marked, port_holder, wait_gone
from llmesh.supervisor.ready import wait_ready
from llmesh.supervisor.state import read_state
from llmesh.supervisor.supervise import MARK, held, is_up
from tests.eventually import eventually
from tests.llmesh.cli.command import Command

REPO = Path(__file__).parents[3]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def mesh_file(tmp_path: Path, port: int) -> Path:
    """A mesh of one tool."""
    path = tmp_path / "mesh.yaml"
    path.write_text(
        f"listen: 127.0.0.1:{port}\noperations: ''\n"
        f"policies: {REPO}/governance/policies\n"
        f"processes:\n  - {{name: writer, folder: {REPO}/tools/writing/text}}\n"
    )
    return path


@pytest.fixture
def no_process_left(command: Command) -> Iterator[None]:
    """Nothing that a test starts outlives it, even if it fails."""
    assert command
    yield
    for process in marked(f"{MARK}={Home.find().path}"):
        os.kill(process.pid, signal.SIGKILL)


def wait_until(holds: Callable[[], bool]) -> None:
    async def check() -> None:
        assert holds()

    asyncio.run(eventually(check))


def test_a_taken_port_is_named_with_who_has_it(command: Command, mesh_file: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        answer = command("up", "-f", str(mesh_file))
    assert (answer.code, answer.out) == (1, "")
    assert f"port {port} on 127.0.0.1 is taken by " in answer.err
    assert f"(pid {os.getpid()})" in answer.err


def test_who_listens_is_found_and_nobody_is_nobody(port: int) -> None:
    assert port_holder(port) == ""
    with socket.create_server(("127.0.0.1", port)):
        assert f"(pid {os.getpid()})" in port_holder(port)


def test_a_mesh_that_is_up_is_not_started_again(command: Command, mesh_file: Path) -> None:
    with held(Home.find().create()):
        for args in (("up",), ("up", "--detach")):
            answer = command(*args, "-f", str(mesh_file))
            assert answer.code == 1
            assert "this mesh is already up" in answer.err
            assert "llmesh down" in answer.err


def test_what_is_not_installed_is_named(command: Command, mesh_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "NEEDED", ("grpc", "no_such_module"))
    monkeypatch.setattr(sys, "prefix", "/opt/somewhere")
    answer = command("up", "-f", str(mesh_file))
    assert answer.code == 1
    assert "what runs the mesh is not installed: no_such_module" in answer.err
    assert "pip install 'll-mesh[gateway]'" in answer.err


def test_a_half_made_environment_is_told_apart(
    command: Command, mesh_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Makefile").touch()
    monkeypatch.setattr(checks, "NEEDED", ("no_such_module",))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    answer = command("up", "-f", str(mesh_file))
    assert "is only half made" in answer.err
    assert "make setup" in answer.err


def test_a_missing_mesh_file_is_named(command: Command, tmp_path: Path) -> None:
    answer = command("up", "-f", str(tmp_path / "none.yaml"))
    assert answer.code == 1
    assert f"{tmp_path}/none.yaml" in answer.err
    assert "cannot be read" in answer.err


def test_a_wrong_mesh_file_is_named_with_its_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("listen: 127.0.0.1:0\nporcesses: []\n")
    answer = command("up", "-f", str(tmp_path / "mesh.yaml"))
    assert answer.code == 1
    assert "mesh.yaml:2: `porcesses`" in answer.err


@pytest.mark.parametrize(
    ("home", "said"),
    [("x" * 100, "a path of"), ("file", "is not a directory"), ("file/below", "is not a directory")],
    ids=["too long", "a file", "below a file"],
)
def test_a_mesh_directory_that_cannot_be_is_a_sentence(command: Command, home: str, said: str) -> None:
    # tmp_path can be too long for a mesh directory by itself.
    with tempfile.TemporaryDirectory(prefix="llmesh-") as folder:
        Path(folder, "file").touch()
        answer = command("up", "--home", f"{folder}/{home}")
    assert answer.code == 1
    assert said in answer.err
    assert "--home" in answer.err


def test_without_a_mesh_status_and_down_say_so(command: Command) -> None:
    answer = command("status")
    assert (answer.code, answer.out) == (1, "no mesh is up here; start one: llmesh up\n")
    assert command("status", "--json").json["up"] is False
    assert command("down").out == "no mesh was up here\n"


def test_a_mesh_that_has_not_yet_said_what_it_runs_is_starting(command: Command) -> None:
    with held(Home.find().create()):
        answer = command("status")
        assert (answer.code, answer.out) == (1, "the mesh here is starting\n")
        assert command("status", "--json").json["starting"] is True


@pytest.mark.usefixtures("no_process_left")
def test_ctrl_c_while_a_detached_mesh_starts_leaves_nothing(command: Command, mesh_file: Path) -> None:
    assert command
    # A tool that never registers keeps the start waiting.
    mesh_file.write_text(mesh_file.read_text() + f"  - {{name: mute, folder: {REPO}, command: [sleep, '60']}}\n")
    arguments = [sys.executable, "-P", "-m", "llmesh.cli", "up", "--detach", "-f", str(mesh_file), "--timeout", "120"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: read_state(Home.find()) is not None)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    assert marked(f"{MARK}={Home.find().path}") == []
    assert not is_up(Home.find())


def state_pids() -> dict[str, ProcessId]:
    state = read_state(Home.find())
    return {child.name: child.process for child in state.children} if state else {}


def restarts(name: str) -> int:
    state = read_state(Home.find())
    return next(child.restarts for child in state.children if child.name == name) if state else 0


@pytest.mark.usefixtures("no_process_left")
def test_a_mesh_from_start_to_end(command: Command, mesh_file: Path) -> None:
    up = command("up", "--detach", "-f", str(mesh_file), "--timeout", "120")
    assert up.code == 0, up.err
    assert "a call that works" in up.out
    # There is no terminal to press it in.
    assert "Ctrl-C" not in up.out
    assert "`llmesh down` ends it" in up.out
    home = Home.find()

    status = command("status", "--json").json
    assert status["up"] is True
    assert [child["state"] for child in status["supervisor"]["children"]] == ["running"] * 3
    assert "acme.writing.v1.Text" in [tool["service"] for tool in status["tools"]]
    assert status["envoy_version"].startswith("1.40.")
    assert status["gateway"]["endpoints"]["ready"] == 1
    assert status["gateway"]["catalog"]["tools"] == 1
    seen = command("status")
    assert (seen.code, "running" in seen.out) == (0, True)
    assert command("call", "acme.writing.v1.Text/Measure", '{"text": "a"}').code == 0
    assert "already up" in command("up", "-f", str(mesh_file)).err

    before = state_pids()["writer"]
    assert command("restart", "writer").out == "writer is restarted\n"
    assert not before.alive()
    unknown = command("restart", "reader")
    assert (unknown.code, unknown.out) == (1, "")
    assert "nothing that runs here is called `reader`" in unknown.err

    boss = read_state(home)
    assert boss
    assert command("down").out == "the mesh is down\n"
    assert not boss.process.alive()
    assert marked(f"{MARK}={home.path}") == []
    assert list(home.tools.iterdir()) == []
    assert command("status").code == 1


@pytest.mark.usefixtures("no_process_left")
def test_a_killed_supervisor_leaves_nothing_and_the_next_start_works(command: Command, mesh_file: Path) -> None:
    first = command("up", "--detach", "-f", str(mesh_file), "--timeout", "120", "--json")
    assert first.code == 0, first.err
    assert first.json["ready"] is True
    boss, pids = read_state(Home.find()), state_pids()
    assert boss
    os.kill(boss.pid, signal.SIGKILL)
    assert all(wait_gone(process, 15) for process in (boss.process, *pids.values()))
    assert command("status").code == 1

    assert command("up", "--detach", "-f", str(mesh_file), "--timeout", "120").code == 0
    assert set(state_pids().values()).isdisjoint(pids.values())
    assert command("down").code == 0


async def wait_for_the_others(
    channel: grpc.aio.Channel, *, processes: Collection[str], timeout_s: float
) -> dict[str, str]:
    """What is missing as soon as all but the tool `mute` can be called."""
    await wait_ready(channel, processes=[name for name in processes if name != "mute"], timeout_s=timeout_s)
    return await wait_ready(channel, processes=processes, timeout_s=0)


@pytest.mark.usefixtures("no_process_left")
def test_a_tool_that_is_not_ready_is_named_with_its_last_words(
    command: Command, mesh_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "wait_ready", wait_for_the_others)
    broken = tmp_path / "broken.yaml"
    broken.write_text(
        mesh_file.read_text()
        + f"  - {{name: mute, folder: {tmp_path}, command: [{sys.executable}, -c, 'print(1); input()']}}\n"
    )
    answer = command("up", "--detach", "-f", str(broken), "--timeout", "120")
    assert answer.code == 1
    assert "mute has not registered\n" in answer.out
    # Nor does it stay up.
    assert command("status").code == NOT_AS_TOLD
    assert "the mesh is up, but not all of it" in answer.err
    assert command("down").code == 0


@pytest.mark.usefixtures("no_process_left")
def test_policy_files_that_are_refused_are_told_of_for_as_long_as_they_are(
    command: Command, mesh_file: Path, tmp_path: Path
) -> None:
    policies = tmp_path / "policies"
    shutil.copytree(REPO / "governance/policies", policies)
    mesh_file.write_text(mesh_file.read_text().replace(f"{REPO}/governance/policies", str(policies)))
    right = (policies / "ownership.yaml").read_text()
    arguments = ("up", "--detach", "-f", str(mesh_file), "--timeout", "120")
    assert command(*arguments, "--json").json["policy_error"] == ""
    assert command("down").code == 0

    (policies / "ownership.yaml").write_text("owners: 1\n")
    said = "the policy files are refused, the last good ones are in force: "
    answer = command(*arguments)
    assert answer.code == 1
    assert said in answer.out
    assert "the mesh is up, but not with these policy files" in answer.err
    refused = command("status")
    assert (refused.code, said in refused.out) == (NOT_AS_TOLD, True)
    assert "ownership.yaml:1: `owners`" in command("status", "--json").json["policy_error"]

    (policies / "ownership.yaml").write_text(right)
    wait_until(lambda: policy_error(Home.find()) == "")
    mended = command("status")
    assert (mended.code, "refused" in mended.out) == (0, False)
    assert command("down").code == 0


@pytest.mark.usefixtures("no_process_left")
def test_in_the_foreground_ctrl_c_ends_it_all(command: Command, mesh_file: Path) -> None:
    assert command
    arguments = [sys.executable, "-P", "-m", "llmesh.cli", "up", "-f", str(mesh_file)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if "Ctrl-C" in line:
                break
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    said = rest.splitlines()
    # How each program ends is in its log.
    assert "ending: calls are finished first; Ctrl-C again ends it at once" in said
    assert "Traceback" not in errors
    assert marked(f"{MARK}={Home.find().path}") == []


@pytest.mark.usefixtures("no_process_left")
def test_in_the_foreground_it_ends_in_order_when_nobody_looks_any_more(command: Command, mesh_file: Path) -> None:
    assert command
    arguments = [sys.executable, "-P", "-m", "llmesh.cli", "up", "-f", str(mesh_file)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
    assert list(Home.find().tools.iterdir()) == []


@pytest.mark.usefixtures("no_process_left")
def test_in_the_foreground_it_goes_on_and_ends_though_its_output_is_not_read(
    command: Command, tmp_path: Path, port: int
) -> None:
    assert command
    chatty = tmp_path / "chatty.yaml"
    # More than a pipe holds.
    code = '"print((chr(121) * 99 + chr(10)) * 4000)"'
    chatty.write_text(
        f"listen: 127.0.0.1:{port}\noperations: ''\n"
        f"policies: {REPO}/governance/policies\n"
        f"processes:\n  - {{name: chatty, folder: {tmp_path}, command: [{sys.executable}, -c, {code}]}}\n"
    )
    arguments = [sys.executable, "-P", "-m", "llmesh.cli", "up", "-f", str(chatty), "--timeout", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        assert any(line.startswith("chatty  | y") for line in process.stdout)
        before = restarts("chatty")
        wait_until(lambda: restarts("chatty") > before)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
