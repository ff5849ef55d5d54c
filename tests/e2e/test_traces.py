"""One trace through a real mesh: the client's span, Envoy's, the tool's."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llmesh._client import open_channel
from llmesh.api.records.v1 import records_pb2 as records
from llmesh.api.records.v1.records_pb2_grpc import RecordServiceStub
from llmesh.mesh_file import TraceSettings
from llmesh.supervisor.plan import tracing_environment
from tests.collector import Collector, collecting
from tests.e2e.mesh import ECHO, READER, REPO, RunningMesh, running_mesh
from tests.eventually import eventually

CLIENT = """
import asyncio, os, sys
import llmesh
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub

async def main():
    async with llmesh.Mesh(sys.argv[1], os.environ["TOKEN"]) as mesh:
        call = EchoStub(mesh.channel).Unary(pb.UnaryRequest(text="very private"), timeout=20, wait_for_ready=True)
        await call
        print(dict(await call.initial_metadata())["x-llmesh-call-id"])

asyncio.run(main())
"""
# Spans of calls that are nobody's: the waiting of the tests, for one.
METHOD = f"/{ECHO}/Unary"


@asynccontextmanager
async def traced(*, sample_percent: float) -> AsyncGenerator[tuple[RunningMesh, Collector]]:
    async with collecting() as collector:
        traces = {"otlp": collector.address, "sample_percent": sample_percent}
        with running_mesh(traces=traces) as mesh:
            env = tracing_environment("echo", TraceSettings.model_validate(traces))
            folder = REPO / "tests/tools/echo"
            mesh.start("echo", (sys.executable, "-m", "echo_tool"), folder=folder, env=env)
            await asyncio.to_thread(mesh.wait_ready, ECHO)
            yield mesh, collector


async def call(mesh: RunningMesh, **env: str) -> str:
    """Call the tool from a program of its own; the call's id."""
    known = {"PYTHONPATH": f"{REPO}/tests/tools/echo", "TOKEN": mesh.token(READER), "PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CLIENT, mesh.address), env={**known, **env}, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode().strip()


def attributes(span: Span) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


async def test_a_call_is_one_trace_of_client_envoy_and_tool() -> None:
    # Of the callers who say nothing, none.
    async with traced(sample_percent=0) as (mesh, collector):
        await call(mesh)
        joining = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}", "OTEL_SERVICE_NAME": "client"}
        call_id = await call(mesh, **joining)

        async def all_told() -> dict[str, Span]:
            [root] = [span for service, span in collector.spans if service == "client"]
            found = {service: span for service, span in collector.spans if span.trace_id == root.trace_id}
            assert found.keys() == {"client", "llmesh-envoy", "echo"}
            return found

        spans = await eventually(all_told)
        client, envoy, tool = spans["client"], spans["llmesh-envoy"], spans["echo"]
        assert len(collector.spans) == 3
        assert (client.parent_span_id, envoy.parent_span_id, tool.parent_span_id) == (
            b"",
            client.span_id,
            envoy.span_id,
        )
        assert client.kind == Span.SPAN_KIND_CLIENT
        assert envoy.kind == tool.kind == Span.SPAN_KIND_SERVER
        assert attributes(envoy)["llmesh.call_id"] == attributes(tool)["llmesh.call_id"] == call_id
        assert attributes(tool)["rpc.method"] == attributes(client)["rpc.method"] == METHOD[1:]

        assert {attributes(envoy)[name] for name in ("peer.address", "user_agent")} == {"-"}
        told = " ".join(str(span) for _, span in collector.spans)
        for private in ("very private", READER.name, "grpc-python", "Bearer"):
            assert private not in told, private

        async def is_recorded() -> records.Record:
            async with open_channel(mesh.address) as channel:
                asked = records.GetTreeRequest(call_id=call_id)
                return (await RecordServiceStub(channel).GetTree(asked, metadata=mesh.bearer())).records[0]

        assert (await eventually(is_recorded, within_s=60)).trace_id == client.trace_id.hex()
