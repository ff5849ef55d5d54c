"""What people do to a model server from the shell."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from llmesh.identity import DevCaller
from tests.model_server.models import CALL_S, ModelServer, wait_answered

OPS = DevCaller("ops", roles=("editor",), domain="platform")


def command(models: ModelServer, caller: DevCaller, *arguments: str) -> str:
    """What `llmesh ...` of somebody who has a token says. Raises CalledProcessError if it fails."""
    mesh = models.mesh
    told = {"LLMESH_HOME": str(mesh.home.path), "LLMESH_ADDRESS": mesh.address, "LLMESH_TOKEN": mesh.token(caller)}
    argv = (sys.executable, "-m", "llmesh.cli", *arguments)
    return subprocess.run(
        argv, env=os.environ | told, capture_output=True, text=True, check=True, timeout=CALL_S
    ).stdout


@asynccontextmanager
async def blocked(models: ModelServer, target: str) -> AsyncGenerator[None]:
    """The method or the service is blocked for as long as the block lasts."""
    await asyncio.to_thread(command, models, OPS, "block", target, "--reason", "it raves")
    try:
        yield
    finally:
        await asyncio.to_thread(command, models, OPS, "unblock", target)
    await wait_answered(models.mesh)
