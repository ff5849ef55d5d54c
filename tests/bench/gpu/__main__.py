"""On a machine with a GPU, after `make model DEVICE=gpu`: `python -m tests.bench.gpu [FOLDER]`, of a model's files.

Runs the tests of the real engine; then asks our server and vLLM's own for the
same texts, of the same model on the same machine. Without a folder it is the
tiny model with random weights, which measures the servers and no GPU.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.figures import record
from tests.bench.model_rounds import OPENAI, OURS, compared, rounds, told
from tests.bench.model_servers import start_openai, start_ours
from tests.e2e.mesh import REPO, running_mesh

CONFORMANCE = ("tests/model_server/test_model_server.py", "tests/model_server/test_death.py")


def main() -> None:
    """Test, then measure, and record the figures in out/gpu.json."""
    subprocess.run((sys.executable, "-m", "pytest", "-q", *CONFORMANCE), cwd=REPO, check=True)
    folders = [Path(each).absolute() for each in sys.argv[1:2]]
    with running_mesh() as mesh:
        ours = start_ours(mesh, *(f"--model={folder}" for folder in folders))
        (model,) = folders or (mesh.home.cache / "models").glob("tiny-random-*")
        found = rounds({OURS: ours.direct(), OPENAI: start_openai(mesh, model).way})
    record("gpu", [*compared(found), *told(found)])


if __name__ == "__main__":
    main()
