"""All attacks on a mesh, several at once, while somebody else calls."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from google.protobuf.duration_pb2 import Duration

from llmesh._client import open_channel
from tests.e2e.mesh import OWNER, READER, RunningMesh
from tests.e2e.traffic import OK, Traffic
from tests.hostile.calls import Case, Outcome, attempt
from tests.hostile.frames import ALL_FRAMES
from tests.hostile.requests import FLOOD, REQUESTS

# The flood comes last: while it lasts, no other connection may show a bad token and go on.
CASES = (*REQUESTS, *ALL_FRAMES, FLOOD)
AT_ONCE = 4
# An answer in parts, such that calls are under way whenever an attack may cut them.
_PARTS = pb.ServerStreamRequest(text="good", count=3, orders=pb.Orders(delay=Duration(nanos=20_000_000)))


@dataclass(frozen=True, slots=True)
class Harm:
    """What all the attacks did. failed, failures: good calls. unlike: which attack was not answered as is due."""

    cases: int
    good_calls: int
    failed: int
    failures: tuple[str, ...]
    unlike: tuple[str, ...]


async def attack(mesh: RunningMesh) -> Harm:
    """Make every attack on a mesh with the echo tool."""
    async with open_channel(mesh.address) as channel:
        echo = EchoStub(channel)

        async def call() -> None:
            metadata = mesh.bearer(OWNER)
            async for _ in echo.ServerStream(_PARTS, metadata=metadata, timeout=60):
                pass
            await echo.Unary(pb.UnaryRequest(text="good"), metadata=metadata, timeout=60)

        async with Traffic(call) as traffic:
            outcomes = await asyncio.to_thread(_all, mesh)
            await traffic.more(20)
    failures = [f"{words}: {count}" for words, count in traffic.failures.items()]
    failures += [f"after {case.name}" for case, outcome in outcomes if outcome.failed]
    failed = sum(outcome.failed for _, outcome in outcomes) + traffic.outcomes.total() - traffic.outcomes[OK]
    made = sum(outcome.good_calls for _, outcome in outcomes) + traffic.outcomes.total()
    assert traffic.outcomes[OK], "nobody called meanwhile"
    return Harm(len(CASES), made, failed, tuple(failures), tuple(o.unlike for _, o in outcomes if o.unlike))


def _all(mesh: RunningMesh) -> list[tuple[Case, Outcome]]:
    token = mesh.token(READER)

    def one(case: Case) -> tuple[Case, Outcome]:
        return case, attempt(case, mesh.port, token)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [*pool.map(one, CASES[:-1]), one(CASES[-1])]
