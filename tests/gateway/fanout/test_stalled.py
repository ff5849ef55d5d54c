"""Tools that take a connection and read nothing of what they are sent: they harm their own branches alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from gateway.fanout import room
from gateway.listener.listener import BRANCHES_BYTES, HELD_BYTES
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest
from tests.eventually import eventually
from tests.gateway.fanout.world import OPEN, passages, world

# Enough to use up what Envoy takes of a connection of the mesh port's; as long as a tool of the tests takes.
STALLED = [f"acme.support.v1.Stalled{index}" for index in range(20)]
LONG = RetrieveRequest(query="x" * 1_900_000)
# What HTTP/2 lets anybody send before the other side has said how much it takes (RFC 9113, 6.9.2).
UNASKED_BYTES = 65_535
PREFACE_BYTES = 24
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
OTHER = "acme.support.v1.Other"


@dataclass(slots=True)
class Stalling:
    """Speaks HTTP/2, and says of nothing that more may be sent."""

    taken: dict[asyncio.StreamWriter, int] = field(default_factory=dict[asyncio.StreamWriter, int])

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        await reader.readexactly(PREFACE_BYTES)
        writer.write(SETTINGS)
        self.taken[writer] = 0
        while data := await reader.read(1 << 16):
            self.taken[writer] += len(data)
        writer.close()


async def test_tools_that_read_nothing_keep_no_branch_to_another_from_its_answer() -> None:
    async with world() as running:
        stalling = Stalling()
        address = str(running.envoy.folder / "stalling.sock")
        server = await asyncio.start_unix_server(stalling.connected, address)

        async def answers(_data: bytes, _context: object) -> bytes:
            return passages(("one", 1))

        running.tools.behaviours[f"/{OTHER}/Retrieve"] = answers
        stalled = [running.tool(name, address=f"unix:{address}") for name in STALLED]
        await running.publish(*stalled, running.tool(OTHER), policy=OPEN)
        large = running.call(LONG, timeout_s=60)
        first = asyncio.ensure_future(large.read())

        async def are_full() -> None:
            assert len(stalling.taken) == len(STALLED)
            assert min(stalling.taken.values()) >= UNASKED_BYTES

        await eventually(are_full, within_s=20)
        small = await running.fan_out(selector=pb.Selector(tools=[OTHER]), timeout_s=20)
        assert small.codes == {"Other": 0}
        told = await asyncio.wait_for(first, 20)
        assert isinstance(told, pb.FanOutResponse)
        assert [(branch.tool, branch.status.code) for branch in told.branches] == [(OTHER, 0)]
        large.cancel()
        server.close()
        await running.released()


def test_all_that_one_caller_may_ask_of_one_tool_waits_and_leaves_room_for_others() -> None:
    assert BRANCHES_BYTES == 2 * room.OF_BOTH * HELD_BYTES
