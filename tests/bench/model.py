"""What our model server costs against vLLM's own, with the same tiny model, and how well it does what is only ours."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tests.bench.figures import Figure
from tests.bench.model_embed import embedding_figures
from tests.bench.model_rounds import MESH, OPENAI, OURS, compared, rate_ratio, rounds, told
from tests.bench.model_servers import ON_CPU, STREAMS, Ours, start_openai, start_ours
from tests.bench.model_typed import parse_rate
from tests.e2e.mesh import RunningMesh, running_mesh

STARTS = 5


def measure() -> Sequence[Figure]:
    """The figures. Raises BadAnswersError unless every text was written."""
    with running_mesh() as mesh:
        ours, ready_s = _started(mesh)
        (model,) = (mesh.home.cache / "models").glob("tiny-random-*")
        theirs = start_openai(mesh, model, *ON_CPU)
        found = rounds({OURS: ours.direct(), OPENAI: theirs.way, MESH: ours.through_mesh()})
        theirs.process.stop()
        parsed = parse_rate(ours.server)
    return [
        *compared(found),
        Figure("generate_rps_mesh_vs_direct", rate_ratio(found, STREAMS, MESH, OURS), "ratio", 0.9, ">="),
        parsed,
        Figure("engine_ready_s", ready_s, "s", 30),
        *embedding_figures(),
        *told(found),
    ]


def _started(mesh: RunningMesh) -> tuple[Ours, float]:
    """Our server, and the median of how long it takes to its first token."""
    took: list[float] = []
    while True:
        ours = start_ours(mesh)
        took.append(ours.ready_s)
        if len(took) == STARTS:
            return ours, statistics.median(took)
        ours.server.process.stop()
