"""A caller calls all tools by one connection: what one answers wrongly must not fail the answers of the others."""

from __future__ import annotations

from typing import Any as Untyped

import grpc
import grpc.aio
import pytest

from tests.envoy import bearer, mesh, method_of, token, tool_of
from tests.hostile.wire import Call, Misbehave, misbehaving

BAD, GOOD = "acme.support.v1.Bad", "acme.support.v1.Good"
DENIED = ("grpc-status", "7")
# What gRPC's C core cannot read of a field, and what it can.
FIELDS = {
    "status": ([("grpc-status", "seven")], [DENIED]),
    "details": (
        [DENIED, ("grpc-status-details-bin", "!!not base64!!")],
        [DENIED, ("grpc-status-details-bin", "CAU=")],
    ),
    "a tool's own": ([DENIED, ("x-own-bin", "!!not base64!!")], [DENIED, ("x-own-bin", "CAU=")]),
}


def trails(*fields: tuple[str, str]) -> Misbehave:
    async def answer(call: Call) -> None:
        await call.begin()
        await call.trail(*fields)

    return answer


@pytest.mark.parametrize(("bad", "good"), FIELDS.values(), ids=FIELDS.keys())
async def test_a_tools_malformed_trailer_fails_its_own_answer_alone_also_for_callers_without_the_sdk(
    bad: list[tuple[str, str]], good: list[tuple[str, str]]
) -> None:
    async with mesh() as running:
        one, other = (str(running.folder / name) for name in ("bad.sock", "good.sock"))
        async with misbehaving(one, trails(*bad)), misbehaving(other, trails(*good)):
            await running.publish(
                tool_of(BAD, f"unix:{one}", method_of("Get")), tool_of(GOOD, f"unix:{other}", method_of("Get"))
            )
            # As gRPC makes it of itself; the tests' other channel has options of its own.
            async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
                ends = [await end_of(channel, service) for service in (BAD, GOOD, BAD, GOOD)]

    assert ends[1::2] == [grpc.StatusCode.PERMISSION_DENIED] * 2


async def end_of(channel: grpc.aio.Channel, service: str) -> grpc.StatusCode:
    untyped: Untyped = channel
    return await untyped.unary_unary(f"/{service}/Get")(b"", metadata=bearer(token()), timeout=30).code()
