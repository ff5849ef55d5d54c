"""The wheel, installed bare, in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
MOST_BYTES = 60_000_000

# What a tool team does with the bare SDK: serve a tool and call it, typed.
TRIAL = """
import asyncio, importlib.util
import llmesh, llmesh.testing
from grpc_health.v1 import health_pb2, health_pb2_grpc
from llmesh.api.registry.v1 import registry_pb2, registry_pb2_grpc

class Registry(registry_pb2_grpc.RegistryServiceServicer):
    async def Register(self, request, context):
        return registry_pb2.RegisterResponse(lease_id=request.address)

async def main():
    async with llmesh.testing.run(Registry()) as tool:
        stub = registry_pb2_grpc.RegistryServiceStub(tool.channel)
        answer = await stub.Register(registry_pb2.RegisterRequest(address="unix:/a"))
        assert answer.lease_id == "unix:/a", answer
        try:
            await stub.Register(registry_pb2.RegisterRequest())
        except llmesh.InvalidCall as refused:
            assert refused.violations[0].field == "address"
        else:
            raise AssertionError("an empty address is against the contract")

asyncio.run(main())
heavy = [name for name in ("torch", "vllm", "envoy", "cel_expr_python", "numpy") if importlib.util.find_spec(name)]
assert not heavy, heavy
print("served and called")
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_bare_install_serves_a_tool_and_is_light(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", wheels, REPO, cwd=tmp_path)
    run(*pip, "download", "--dest", wheels, *wheels.glob("ll_mesh-*.whl"), cwd=tmp_path)
    assert sum(wheel.stat().st_size for wheel in wheels.iterdir()) < MOST_BYTES

    run(sys.executable, "-m", "venv", tmp_path / "bare", cwd=tmp_path)
    python = tmp_path / "bare" / "bin" / "python"
    install = ("-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-index", "--find-links", wheels)
    run(python, *install, "ll-mesh", cwd=tmp_path)
    assert "served and called" in run(python, "-c", TRIAL, cwd=tmp_path)
    assert "Usage" in run(tmp_path / "bare" / "bin" / "llmesh", "--help", cwd=tmp_path)
    includes = run(python, "-c", "import llmesh.protos as p; print(*p.proto_folders())", cwd=tmp_path).split()
    assert any(Path(folder, "llmesh/api/options/v1/options.proto").exists() for folder in includes)
    assert any(Path(folder, "buf/validate/validate.proto").exists() for folder in includes)
