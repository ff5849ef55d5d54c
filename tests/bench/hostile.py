"""How many good calls fail while hostile tools and callers do what they can to a mesh as it is shipped."""

from __future__ import annotations

import asyncio
import sys

from tests.bench.figures import Figure
from tests.e2e.mesh import ECHO, REPO, RunningMesh, running_mesh

# The stubs of the tests' own tool.
sys.path.append(str(REPO / "tests/tools/echo"))

from tests.hostile import attack, tools


def measure() -> list[Figure]:
    """The figures. Raises AssertionError where an attack was not answered as it must be."""
    with running_mesh() as mesh:
        mesh.start_echo()
        mesh.wait_ready(ECHO)
        return asyncio.run(_harm(mesh))


async def _harm(mesh: RunningMesh) -> list[Figure]:
    by_tools, good, failed = await tools.harm(mesh)
    by_callers = await attack.attack(mesh)
    assert by_callers.unlike == (), by_callers.unlike
    return [
        Figure("hostile_harm", failed + by_callers.failed, "calls", 0),
        Figure("hostile_tools", by_tools, "cases"),
        Figure("hostile_callers", by_callers.cases, "cases"),
        Figure("hostile_good_calls", good + by_callers.good_calls, "calls"),
    ]
