"""One model server on a mesh for all tests that leave it as it is: its engine takes long to start."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator

import pytest

from llmesh.mesh_file import TraceSettings
from llmesh.supervisor.plan import tracing_environment
from tests.collector import Collector, collecting_beside
from tests.e2e.mesh import REPO, running_mesh
from tests.model_server.models import (
    AT_ONCE,
    METRICS_PORT,
    NAME,
    SERVICE,
    START_S,
    WAITING,
    ModelServer,
    start_models,
    wait_answered,
)

# The reference tools' stubs. Last, so that nothing there hides another package.
sys.path += [str(folder) for folder in sorted(REPO.glob("tools/*/*")) if str(folder) not in sys.path]


@pytest.fixture(scope="session")
def collector() -> Generator[Collector]:
    """Where the traces of the models' mesh go."""
    with collecting_beside() as found:
        yield found


@pytest.fixture(scope="session")
def models(collector: Collector) -> Generator[ModelServer]:
    """A model server on a mesh, its models ready. Who names no trace is not traced."""
    traces = {"otlp": collector.address, "sample_percent": 0}
    limits = (f"--concurrency={AT_ONCE}", f"--queue={WAITING}", f"--metrics=127.0.0.1:{METRICS_PORT}")
    with running_mesh(traces=traces) as mesh:
        server = start_models(mesh, *limits, env=tracing_environment(NAME, TraceSettings.model_validate(traces)))
        asyncio.run(server.wait_ready())
        mesh.wait_ready(SERVICE, within_s=START_S)
        asyncio.run(wait_answered(mesh))
        yield server
