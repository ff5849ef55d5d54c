"""Which calls Envoy traces when nobody says so, with the real Envoy."""

from __future__ import annotations

import pytest

from gateway.listener.tracing import SERVICE_NAME, Traces
from llmesh.mesh_file import split_host_port
from tests.collector import collecting
from tests.envoy import bearer, mesh, token
from tests.eventually import eventually

SERVICE = "acme.support.v1.Tickets"
SAMPLED, NOT_SAMPLED = "01", "00"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(("sample_percent", "flags"), [(100, SAMPLED), (0, NOT_SAMPLED)])
async def test_a_caller_who_says_nothing_is_traced_by_the_sample(sample_percent: float, flags: str) -> None:
    async with collecting() as collector:
        traces = Traces(*split_host_port(collector.address), sample_percent=sample_percent)
        async with mesh(traces=traces) as running:
            await running.publish(running.tool(SERVICE))
            silent = await running.call(f"/{SERVICE}/Get")
            assert silent.seen["traceparent"].rpartition("-")[2] == flags

            parent = f"00-{TRACE}-b7ad6b7169203331-{SAMPLED}"
            # As many as Envoy tells at once, rather than after 5 s.
            for _ in range(5):
                saying = await running.call(f"/{SERVICE}/Get", [*bearer(token()), ("traceparent", parent)])
                assert saying.seen["traceparent"].startswith(f"00-{TRACE}-")

            async def told() -> None:
                assert {service for service, _ in collector.spans} == {SERVICE_NAME}
                traced = {span.trace_id.hex() for _, span in collector.spans}
                assert TRACE in traced
                assert len(traced) == 1 + (flags == SAMPLED)

            await eventually(told)


async def test_without_a_collector_nothing_is_added_to_a_call() -> None:
    async with mesh() as running:
        await running.publish(running.tool(SERVICE))
        assert "traceparent" not in (await running.call(f"/{SERVICE}/Get")).seen
