"""What of a fan-out itself is bounded: what it says, and what the gateway keeps of it."""

from __future__ import annotations

import grpc

from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.errors import InvalidCall
from tests.gateway.fanout.world import eight, refused

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
