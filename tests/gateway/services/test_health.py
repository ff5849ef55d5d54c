"""Health of tools over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb

from governance.words import Caller
from tests.gateway.services.world import AGENT, DOC_SEARCH, ENGINEER, NOBODY, TICKET_TOOL, Mesh, by, mesh, small_mesh

SERVING, NOT_SERVING, UNKNOWN = (
    pb.HealthCheckResponse.SERVING,
    pb.HealthCheckResponse.NOT_SERVING,
    pb.HealthCheckResponse.SERVICE_UNKNOWN,
)


async def _check(running: Mesh, service: str, caller: Caller) -> pb.HealthCheckResponse:
    check = running.services.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=pb.HealthCheckRequest.SerializeToString,
        response_deserializer=pb.HealthCheckResponse.FromString,
    )
    return await check(pb.HealthCheckRequest(service=service), metadata=by(caller))


def _watch(running: Mesh, service: str, caller: Caller) -> AsyncIterator[pb.HealthCheckResponse]:
    watch = running.services.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=pb.HealthCheckRequest.SerializeToString,
        response_deserializer=pb.HealthCheckResponse.FromString,
    )
    return aiter(watch(pb.HealthCheckRequest(service=service), metadata=by(caller)))


async def test_mesh_itself_serves_whoever_asks() -> None:
    async with mesh() as running:
        assert (await _check(running, "", NOBODY)).status == SERVING


async def test_tool_serves_while_an_endpoint_of_it_answers() -> None:
    tool = small_mesh()[TICKET_TOOL]
    async with mesh(tool) as running:
        assert (await _check(running, TICKET_TOOL, AGENT)).status == SERVING
        await running.post(replace(tool, ready=frozenset()))
        assert (await _check(running, TICKET_TOOL, AGENT)).status == NOT_SERVING


@pytest.mark.parametrize("service", [DOC_SEARCH, "acme.nowhere.v1.Nothing"])
async def test_tool_that_is_not_seen_is_not_found(service: str) -> None:
    async with mesh(*small_mesh().values()) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _check(running, service, AGENT)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_watch_follows_a_tool_that_comes_fails_and_goes() -> None:
    tool = small_mesh()[TICKET_TOOL]
    async with mesh() as running:
        watching = _watch(running, TICKET_TOOL, ENGINEER)
        statuses = [(await anext(watching)).status]
        for tools in ([tool], [replace(tool, ready=frozenset())], []):
            await running.post(*tools)
            statuses.append((await anext(watching)).status)
    assert statuses == [UNKNOWN, SERVING, NOT_SERVING, UNKNOWN]


async def test_watch_of_a_tool_that_is_not_seen_says_unknown() -> None:
    async with mesh(*small_mesh().values()) as running:
        assert (await anext(_watch(running, DOC_SEARCH, AGENT))).status == UNKNOWN
