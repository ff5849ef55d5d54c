"""`llmesh up` with TLS on the mesh port, on this machine alone and beyond it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.bootstrap import main as bootstrap_main
from llmesh.home import Home
from llmesh.identity import DevIssuer
from llmesh.supervisor.processes import marked
from llmesh.supervisor.supervise import MARK
from tests.e2e.mesh import free_port
from tests.envoy import ISSUERS, JWKS, token
from tests.eventually import eventually
from tests.llmesh.cli.command import Command
from tests.pki import Authority

REPO = Path(__file__).parents[3]
AUTHORITY = Authority()
MEASURE = ("call", "acme.writing.v1.Text/Measure", '{"text": "a"}')


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    return Path(shutil.copytree(REPO / "governance/policies", tmp_path / "policies"))


@pytest.fixture
def no_process_left(command: Command) -> Iterator[None]:
    """Nothing that a test starts outlives it, even if it fails."""
    assert command
    yield
    for process in marked(f"{MARK}={Home.find().path}"):
        os.kill(process.pid, signal.SIGKILL)


def mesh_of(folder: Path, listen: str, *, tls: str = "tls: {certificate: port.crt, key: port.key}\n") -> Path:
    """A mesh of one tool."""
    path = folder / "mesh.yaml"
    path.write_text(
        f"listen: {listen}\noperations: ''\npolicies: policies\n{tls}"
        f"processes:\n  - {{name: writer, folder: {REPO}/tools/writing/text}}\n"
    )
    return path


@pytest.mark.usefixtures("policies", "no_process_left")
def test_a_mesh_with_tls_needs_nothing_more_on_its_own_machine(command: Command, tmp_path: Path) -> None:
    AUTHORITY.issue("mesh.acme.example").write(tmp_path, "port")
    address = f"127.0.0.1:{free_port()}"
    up = command("up", "--detach", "-f", str(mesh_of(tmp_path, address)), "--timeout", "120")
    assert up.code == 0, up.err
    assert "a call that works" in up.out
    assert f"the mesh is up on https://{address} " in command("status").out
    assert command(*MEASURE).code == 0

    (tmp_path / "port.key").write_text("no key")

    async def told() -> None:
        assert Home.find().tls_error.exists()

    asyncio.run(eventually(told))
    status = command("status")
    # Up, but not as its files say.
    assert status.code == 3
    assert "holds no private key" in status.out
    assert "certificates are refused, the last good ones are in force: " in status.out
    assert command(*MEASURE).code == 0
    assert command("down").code == 0


@pytest.mark.usefixtures("no_process_left")
def test_a_mesh_beyond_loopback_is_called_with_a_token_and_its_authority(
    command: Command, tmp_path: Path, policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AUTHORITY.issue("127.0.0.1").write(tmp_path, "port")
    (policies / "issuers.yaml").write_text(ISSUERS)
    (policies / "corp.jwks.json").write_text(JWKS)
    port = free_port()
    up = command("up", "--detach", "-f", str(mesh_of(tmp_path, f"0.0.0.0:{port}")), "--timeout", "120")
    assert up.code == 0, up.err
    assert f"the mesh is up on https://0.0.0.0:{port}" in up.out
    status = command("status", "--json").json
    assert status["fault"] == ""
    assert "acme.writing.v1.Text" in [tool["service"] for tool in status["tools"]]

    monkeypatch.setenv("LLMESH_ADDRESS", f"https://127.0.0.1:{port}")
    monkeypatch.setenv("LLMESH_TOKEN", token())
    stranger = command(*MEASURE)
    assert (stranger.code, "the mesh's certificate is not believed" in stranger.err) == (1, True)
    monkeypatch.setenv("LLMESH_AUTHORITY", str(AUTHORITY.write(tmp_path)))
    assert command(*MEASURE).code == 0
    assert command("down").code == 0


def test_beyond_loopback_nothing_starts_without_tls_or_with_the_development_issuer(
    command: Command, tmp_path: Path, policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command
    DevIssuer.open(Home.find().create())

    def refusal(**facts: str) -> str:
        mesh_file = mesh_of(tmp_path, "0.0.0.0:8700", **facts)
        monkeypatch.setattr(sys, "argv", ["gateway.bootstrap", "--mesh-file", str(mesh_file)])
        with pytest.raises(SystemExit) as refused:
            bootstrap_main()
        return str(refused.value)

    assert "`0.0.0.0` is reachable from other machines, and tokens would travel there in the clear" in refusal(tls="")
    assert "`dev` is a development issuer, which a mesh that listens beyond loopback" in refusal()
    (policies / "issuers.yaml").write_text(ISSUERS)
    (policies / "corp.jwks.json").write_text(JWKS)
    assert "port.crt` cannot be read: No such file" in refusal()
    AUTHORITY.issue("mesh.acme.example").write(tmp_path, "port")
    AUTHORITY.issue("mesh.acme.example").write(tmp_path, "tool")
    settings = "tls: {certificate: port.crt, key: port.key}\n"
    tools = "tool_tls: {certificate: tool.crt, key: tool.key, authority: port.crt}\n"
    assert "does not name the URI llmesh://gateway, by which tools know the gateway" in refusal(tls=settings + tools)
