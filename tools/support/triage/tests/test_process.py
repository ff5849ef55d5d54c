"""The tool as it runs: a process of its own, in a mesh directory, no gateway there."""

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from acme.support.v1.triage_pb2 import TriageTicketRequest
from acme.support.v1.triage_pb2_grpc import TriageStub

from llmesh import Mesh, ToolFailed
from llmesh.home import Home

TOOL = Path(__file__).resolve().parent.parent


async def test_process_serves_asks_no_model_without_a_mesh_and_stops_clean() -> None:
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:  # pytest's own paths are too long for a socket
        home = Home.find(Path(folder) / "m").create()
        env = {**os.environ, "LLMESH_HOME": str(home.path), "LLMESH_NAME": "triage"}
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "triage", cwd=TOOL, env=env, stderr=-1)
        assert process.stderr is not None
        try:
            async with asyncio.timeout(60):
                log = b""
                while b'"serving"' not in log:
                    line = await process.stderr.readline()
                    assert line, log.decode()
                    log += line
                async with Mesh(f"unix:{home.tool_socket('triage', pid=process.pid)}") as mesh:
                    with pytest.raises(ToolFailed, match="was given no right to call other tools"):
                        await TriageStub(mesh.channel).TriageTicket(TriageTicketRequest(text="tea"), timeout=30)
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()
        assert list(home.tools.iterdir()) == []
