"""Somebody who follows a page to the letter, in a checkout of their own with its mesh running."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import cast

from llmesh.home import Home, write_atomically
from llmesh.identity import DEV, Logins
from tests.docs.pages import Block, Command, commands
from tests.eventually import eventually

REPO = Path(__file__).resolve().parent.parent.parent
# The mesh port, the operations port, the model server's, and the port of a mesh that a page starts beside it.
WRITTEN = (":8700", ":8701", ":8702", ":8743")
# What pages change, and so is the checkout's own; all else is the repository's.
OWN = ("mesh.yaml", "governance")
# What the mesh file says of models; their figures are by default at the port that is written.
MODELS = "environment: .venv-model"
# The longest wait is for an engine, on a machine that does much else.
COMMAND_TIMEOUT_S = 400
READY_TIMEOUT_S = 120
HIDDEN_NAMES = ("LLMESH_", "PYTHONPATH", "TOKEN")


class Checkout:
    """A checkout of the repository, and a mesh that runs in it on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = [f":{_free_port()}" for _ in WRITTEN]
        for entry in REPO.iterdir():
            if entry.name not in OWN and not entry.name.startswith("."):
                (folder / entry.name).symlink_to(entry)
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / ".venv-model").symlink_to(REPO / ".venv-model")
        mesh_file = (REPO / "mesh.yaml").read_text().replace(MODELS, f"{MODELS}\n  metrics: 127.0.0.1:8702")
        (folder / "mesh.yaml").write_text(self.here(mesh_file))
        self.reset_policies()

    def here(self, text: str) -> str:
        """The text with the mesh's ports in place of the written ones."""
        for written, own in zip(WRITTEN, self._ports, strict=True):
            text = text.replace(written, own)
        return text

    def as_written(self, text: str) -> str:
        """What the mesh here prints, as it would on the written ports."""
        for written, own in zip(WRITTEN, self._ports, strict=True):
            text = text.replace(own, written)
        return text

    def reset_policies(self) -> None:
        """The repository's policy files, and no others; the gateway that reads them never sees one missing or half."""
        ours = REPO / "governance/policies"
        theirs = self.folder / "governance/policies"
        for path in ours.rglob("*.yaml"):
            copy = theirs / path.relative_to(ours)
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(copy, path.read_bytes())
        for path in theirs.rglob("*.yaml"):
            if not (ours / path.relative_to(theirs)).exists():
                path.unlink()

    def reset_login(self) -> None:
        """The one that `llmesh up` signs in, and nobody else."""
        Logins().signed_in(DEV).save(Home.find(self.folder / ".llmesh"))

    @property
    def environment(self) -> dict[str, str]:
        """A reader's, with the repository's commands to hand."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN_NAMES)}
        return {**kept, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}

    def llmesh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line from the checkout; what it prints is kept."""
        argv = [f"{sys.prefix}/bin/llmesh", *arguments]
        return subprocess.run(
            argv, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )


@contextmanager
def running_checkout() -> Generator[Checkout]:
    """A checkout whose mesh is up, every tool of the mesh file callable."""
    with tempfile.TemporaryDirectory(prefix="llmesh-docs-") as folder:
        root = Path(folder) / "ll-mesh"
        root.mkdir()
        checkout = Checkout(root)
        up = checkout.llmesh("up", "--detach", "--timeout", str(READY_TIMEOUT_S))
        try:
            assert up.returncode == 0, up.stdout + up.stderr
            yield checkout
        finally:
            checkout.llmesh("down")


class Reader:
    """Does what a page says, in one shell: what it sets and where it goes stays from block to block."""

    def __init__(self, checkout: Checkout, shell: asyncio.subprocess.Process) -> None:
        self._checkout = checkout
        self._shell = shell
        self._background: list[int] = []
        # Something was started or changed that takes a moment to be in force.
        self._settling = False

    async def follow(self, block: Block) -> None:
        """Write the file that the block is, or type its commands. Raises AssertionError where the page is wrong."""
        if block.path:
            await self._write(block)
            return
        for command in commands(block):
            if command.typed.endswith(" &"):
                await self._start(command.typed.removesuffix(" &"))
            elif self._settling and command.printed:
                await eventually(lambda command=command: self._check(command))
                self._settling = False
            else:
                await self._check(command)

    async def _write(self, block: Block) -> None:
        here, _ = await self._type("pwd")
        path = Path(here.strip(), block.path)
        assert path.parent.is_dir(), f"the page makes no folder for `{block.path}`"
        write_atomically(path, self._checkout.here(block.body).encode())
        self._settling |= path.suffix == ".yaml"

    async def _check(self, command: Command) -> None:
        output, code = await self._type(self._checkout.here(command.typed))
        shown = self._checkout.as_written(output)
        assert (code != 0) == command.fails, f"$ {command.typed}\n{shown}(exit code {code})"
        expected = "\n".join(command.printed)
        assert command.accepts(shown), f"$ {command.typed}\n{shown}--- the page shows:\n{expected}"

    async def _start(self, typed: str) -> None:
        _, _ = await self._type(f"{typed} >background.log 2>&1 &")
        pid, _ = await self._type("echo $!")
        self._background.append(int(pid))
        self._settling = True

    async def _type(self, typed: str) -> tuple[str, int]:
        """What the command prints, and its exit code."""
        writer = cast("asyncio.StreamWriter", self._shell.stdin)
        reader = cast("asyncio.StreamReader", self._shell.stdout)
        mark = f"--{secrets.token_hex(8)}--"
        writer.write(f"{{ {typed}\n}} </dev/null\nprintf '%s%s\\n' {mark} $?\n".encode())
        await writer.drain()
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            output = (await reader.readuntil(mark.encode())).decode().removesuffix(mark)
            code = int(await reader.readline())
        self._settling |= "sed -i" in typed
        return output, code

    async def leave(self) -> None:
        """End what was started."""
        for pid in self._background:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        # The shell waits for what it started, then ends.
        cast("asyncio.StreamWriter", self._shell.stdin).write(b"wait\nexit\n")
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            await self._shell.communicate()


@asynccontextmanager
async def reading(checkout: Checkout) -> AsyncGenerator[Reader]:
    """A reader who starts in the checkout, signed in as `llmesh up` does it."""
    checkout.reset_policies()
    checkout.reset_login()
    shell = await asyncio.create_subprocess_exec(
        *("bash", "--noprofile", "--norc"),
        cwd=checkout.folder,
        env=checkout.environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 22,
    )
    reader = Reader(checkout, shell)
    try:
        yield reader
    finally:
        await reader.leave()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
