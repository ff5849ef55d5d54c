"""What bfloat16 gains on this machine where vectors are made."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

from tests.bench.figures import Figure
from tests.e2e.mesh import REPO
from tests.model_server.models import PYTHON

TIMEOUT_S = 300


def embedding_figures() -> Sequence[Figure]:
    """The figures, by a program of the model server's environment."""
    argv = (str(PYTHON), "-m", "tests.bench.model_vectors")
    said = subprocess.run(argv, cwd=REPO, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=True).stdout
    ratio, cosine = json.loads(said.splitlines()[-1])
    return (
        Figure("embed_bf16_vs_fp32", ratio, "ratio", 1.6, ">="),
        Figure("embed_bf16_cosine", cosine, "cosine", 0.999, ">="),
    )
