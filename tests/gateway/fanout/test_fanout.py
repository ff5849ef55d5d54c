"""Fan-outs through the real Envoy: who is asked, and what is told."""

from __future__ import annotations

from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveResponse
from tests.gateway.fanout.world import Behaviour, passages, world

EIGHT = [f"acme.support.v1.Tool{index}" for index in range(8)]


async def test_every_tool_that_takes_the_request_answers() -> None:
    async with world() as running:
        await running.publish(*(running.tool(name) for name in EIGHT))

        told = await running.fan_out()

        assert told.codes == {f"Tool{index}": 0 for index in range(8)}
        for name, items in told.items.items():
            answer = RetrieveResponse()
            assert [each.Unpack(answer) for each in items] == [True]
            assert [each.text for each in answer.passages] == [f"/{name}"]
        assert told.summary == pb.Summary(end=pb.Summary.END_ALL_ENDED, met=True, asked_count=8, answered_count=8)
        assert all(each.attempt_count == 1 and each.call_id for each in told.branches.values())


async def test_a_capability_says_how_answers_are_merged() -> None:
    async with world() as running:
        await running.publish(*(running.tool(name) for name in EIGHT[:3]))
        for index, name in enumerate(EIGHT[:3]):
            running.tools.behaviours[f"/{name}/Retrieve"] = gives(
                ("shared", 0.1 * index), (f"own {index}", 0.5 - 0.1 * index)
            )

        told = await running.fan_out(merge=options.Merge())

        merged = RetrieveResponse()
        assert told.summary.merged.Unpack(merged)
        assert [each.text for each in merged.passages] == ["own 0", "own 1", "own 2", "shared"]


def gives(*scored: tuple[str, float]) -> Behaviour:
    """Answer with these passages."""

    async def answer(_data: bytes, _context: object) -> bytes:
        return passages(*scored)

    return answer
