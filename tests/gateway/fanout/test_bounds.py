"""What of a fan-out itself is bounded: what it says, and what the gateway keeps of it."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from gateway.fanout import room
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest
from llmesh.errors import InvalidCall, OverQuota
from llmesh.status import error_from_rpc
from tests.eventually import eventually
from tests.gateway.fanout.world import EIGHT, eight, hang, refused

LONG = "x" * 256
SELECTORS = {
    "selector.domains[0]": pb.Selector(domains=[LONG]),
    "selector.tools[1]": pb.Selector(tools=["a", LONG]),
    "selector.methods[0]": pb.Selector(methods=[LONG]),
    "selector.stages": pb.Selector(stages=[options.STAGE_STABLE] * 17),
    f'selector.labels["{LONG}"]': pb.Selector(labels={LONG: "en"}),
    'selector.labels["language"]': pb.Selector(labels={"language": LONG}),
}


async def test_no_part_of_a_selector_is_longer_than_a_name_can_be() -> None:
    async with eight() as running:
        for field, selector in SELECTORS.items():
            error = await refused(running, selector=selector)
            assert isinstance(error, InvalidCall)
            assert error.code is grpc.StatusCode.INVALID_ARGUMENT
            assert [each.field for each in error.violations] == [field]


async def test_a_request_is_no_larger_than_four_mebibytes() -> None:
    async with eight() as running:
        error = await refused(running, request=RetrieveRequest(query="x" * (4 << 20)))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_requests_are_held_until_their_fan_outs_end_and_only_as_far_as_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "HELD_OF_A_CALLER_BYTES", 3 << 19)
    async with eight() as running:
        large = RetrieveRequest(query="x" * (1 << 20))
        for name in EIGHT:
            running.tools.behaviours[f"/{name}/Retrieve"] = hang
        first = asyncio.ensure_future(running.fan_out(large, timeout_s=60))

        async def is_held() -> None:
            assert running.legs.room.held_bytes > 1 << 20

        await eventually(is_held, within_s=20)
        with pytest.raises(grpc.aio.AioRpcError) as over:
            await running.fan_out(large)
        assert over.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert isinstance(error_from_rpc(over.value), OverQuota)
        first.cancel()

        async def is_let_go() -> None:
            assert running.legs.room.held_bytes == 0

        await eventually(is_let_go, within_s=20)
        await running.released()
