"""Engines that are killed, and servers that are: what their callers are told, and what is left of them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator, Sequence
from os import kill

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2  # pyright: ignore[reportMissingTypeStubs]: it ships none

import llmesh
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceStub
from tests.e2e.mesh import running_mesh
from tests.eventually import eventually
from tests.model_server.models import (
    CALL_S,
    EMBEDDER,
    SERVICE,
    START_S,
    ModelServer,
    alive,
    asked,
    build_model,
    named_below,
    processes_below,
    start_models,
    starting_below,
    wait_answered,
)

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
HealthWatch = grpc.aio.UnaryStreamCall[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
ENGINE = "VLLM::EngineCore"
OWN = "own-model"


@pytest.fixture
def models() -> Generator[ModelServer]:
    """A model server of its own, its models ready, one of them from a folder; no mesh."""
    with running_mesh(start=False) as mesh:
        build_model(mesh.folder / OWN)
        server = start_models(mesh, f"--model={mesh.folder / OWN}", "--concurrency=4", "--drain-s=60")
        asyncio.run(server.wait_ready())
        yield server


async def read_all(call: grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse]) -> object:
    """The last piece."""
    last = None
    while (piece := await call.read()) is not grpc.aio.EOF:
        last = piece
    return last


async def kill_while_it_writes(models: ModelServer, how: signal.Signals = signal.SIGKILL) -> None:
    """Kill the engine, or have it hang, while it writes: all who read are told so."""
    (victim,) = named_below(models.process.pid, ENGINE)
    async with llmesh.Mesh(f"unix:{models.socket}") as mesh:
        calls = [ModelServiceStub(mesh.channel).Generate(asked(max_tokens=4000), timeout=CALL_S) for _ in range(4)]
        await asyncio.gather(*(call.read() for call in calls))
        kill(victim, how)
        for call in calls:
            with pytest.raises(llmesh.Unavailable) as told:
                await read_all(call)
            assert told.value.retry_after_s
            assert told.value.reason == "ENGINE_DIED"


async def writes_nothing(models: ModelServer) -> None:
    assert await models.health(OWN) == NOT_SERVING


async def what_can_be_done_is_done(models: ModelServer) -> None:
    """Through the mesh: all but to write, which is told to come again."""
    assert await models.health(EMBEDDER) == await models.health(SERVICE) == SERVING
    async with llmesh.Mesh(models.mesh.address, models.mesh.token()) as mesh:
        stub = ModelServiceStub(mesh.channel)
        with pytest.raises(llmesh.Unavailable) as told:
            async for _ in stub.Generate(asked(max_tokens=1), timeout=CALL_S):
                pass
        assert (await stub.Embed(pb.EmbedRequest(texts=["a"]), timeout=CALL_S)).vectors
        assert (await stub.CountTokens(pb.CountTokensRequest(prompt="a", model=EMBEDDER), timeout=CALL_S)).token_count
        listed = (await stub.ListModels(pb.ListModelsRequest(), timeout=CALL_S)).models
    assert told.value.reason == "MODEL_NOT_READY"
    assert told.value.retry_after_s
    assert {each.id: each.ready for each in listed} == {OWN: False, EMBEDDER: True}
    assert not any(each.is_placeholder or each.warning for each in listed)


async def all_are_gone(pids: list[int]) -> None:
    assert not alive(pids)


async def test_an_engine_that_is_killed_fails_its_streams_at_once_and_is_started_again(models: ModelServer) -> None:
    models.mesh.start_gateway()
    models.mesh.start_envoy()
    await asyncio.to_thread(models.mesh.wait_ready, SERVICE)
    await wait_answered(models.mesh)
    engine = named_below(models.process.pid, ENGINE)
    await kill_while_it_writes(models)
    await eventually(lambda: writes_nothing(models))
    await what_can_be_done_is_done(models)
    await eventually(lambda: all_are_gone(engine))
    await models.wait_ready()
    await it_drains(models)


async def test_an_engine_that_hangs_is_noticed_and_another_one_is_started(models: ModelServer) -> None:
    engine = named_below(models.process.pid, ENGINE)
    await kill_while_it_writes(models, signal.SIGSTOP)
    await eventually(lambda: writes_nothing(models))
    await eventually(lambda: all_are_gone(engine))
    await models.wait_ready()
    await it_drains(models)


def watch(channel: grpc.aio.Channel, service: str) -> HealthWatch:
    """What is told of a service's health, as it changes."""
    method = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return method(health_pb2.HealthCheckRequest(service=service), timeout=CALL_S)


async def said_by(watches: Sequence[HealthWatch]) -> list[object]:
    """What each says next."""
    told = [await each.read() for each in watches]
    return [each.status for each in told if isinstance(each, health_pb2.HealthCheckResponse)]


async def it_drains(models: ModelServer) -> None:
    """SIGTERM lets what is being written end, and nothing else begin; then nothing is left."""
    everything = processes_below(models.process.pid)
    async with models.direct() as channel:
        watches = [watch(channel, service) for service in ("", SERVICE, OWN, EMBEDDER)]
        assert await said_by(watches) == [SERVING] * 4
        call = ModelServiceStub(channel).Generate(asked(max_tokens=3000), timeout=CALL_S)
        assert await call.read()
        models.process.signal(signal.SIGTERM)
        assert await said_by(watches) == [NOT_SERVING] * 4
        # It is still being written for whoever is told so.
        assert await call.read()
        last = await read_all(call)
    assert isinstance(last, pb.GenerateResponse)
    assert last.finish_reason == pb.FINISH_REASON_LENGTH
    assert await asyncio.to_thread(models.process.wait) == 0, models.process.said()[-3000:]
    await eventually(lambda: all_are_gone(everything))


async def test_a_text_that_takes_longer_than_a_server_may_drain_is_cut_and_nothing_is_left() -> None:
    with running_mesh(start=False) as mesh:
        models = start_models(mesh, "--drain-s=1")
        await models.wait_ready()
        everything = processes_below(models.process.pid)
        async with llmesh.Mesh(f"unix:{models.socket}") as client:
            call = ModelServiceStub(client.channel).Generate(asked(max_tokens=4000), timeout=CALL_S)
            assert await call.read()
            models.process.signal(signal.SIGTERM)
            with pytest.raises(llmesh.MeshError) as told:
                await read_all(call)
        assert isinstance(told.value, llmesh.Unavailable | llmesh.Cancelled), told.value
        assert await asyncio.to_thread(models.process.wait) == 0, models.process.said()[-3000:]
        assert "calls cut at the drain limit" in models.process.said()
        await eventually(lambda: all_are_gone(everything))


async def test_a_server_that_is_told_to_end_while_its_engine_starts_leaves_nothing() -> None:
    with running_mesh(start=False) as mesh:
        models = start_models(mesh)

        async def starts() -> None:
            assert starting_below(models.process.pid), models.process.said()[-3000:]

        await eventually(starts, within_s=START_S)
        everything = processes_below(models.process.pid)
        models.process.signal(signal.SIGTERM)
        assert await asyncio.to_thread(models.process.wait) == 0, models.process.said()[-3000:]
        await eventually(lambda: all_are_gone(everything))


async def test_a_server_that_is_killed_takes_an_engine_along_that_is_just_being_started(models: ModelServer) -> None:
    killed = named_below(models.process.pid, ENGINE)
    await kill_while_it_writes(models)
    await eventually(lambda: all_are_gone(killed))

    async def starts_again() -> None:
        assert named_below(models.process.pid, ENGINE)

    await eventually(starts_again, within_s=START_S)
    everything = processes_below(models.process.pid)
    models.process.kill()
    # One that had not even begun to run finds out minutes later.
    await eventually(lambda: all_are_gone(everything), within_s=START_S)
