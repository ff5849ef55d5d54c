"""The environment that `make model` makes, and the model that is built in it for want of another."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.mesh import REPO
from tests.model_server.models import PYTHON

LOCKS = ("requirements-cpu.txt", "requirements-gpu.txt")
# Asked for by what is installed, and not needed: model_server/requirements-cpu.txt.
LEFT_OUT = {"torchaudio", "torchcodec", "torchvision", "triton"}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_a_version_of_each_package_and_nowhere_to_get_it_from(lock: str) -> None:
    text = (REPO / "model_server" / lock).read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len({line.partition("==")[0] for line in lines}) == len(lines) > 100
    assert all(line.count("==") == 1 and not set("/:@ ") & set(line) for line in lines)


def test_the_environment_lacks_nothing_but_what_is_left_out_on_purpose() -> None:
    found = subprocess.run(
        [PYTHON, "-m", "pip", "check"], capture_output=True, text=True, timeout=300, check=False
    ).stdout.splitlines()
    missing = {line.split(" requires ")[1].split(",")[0] for line in found if ", which is not installed" in line}
    assert missing <= LEFT_OUT
    assert not [line for line in found if ", which is not installed" not in line]


def test_the_placeholder_is_the_same_bytes_wherever_it_is_built(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from model_server.placeholder import build_placeholder; "
        "from model_server.source import find_source; "
        "print(find_source(str(build_placeholder(pathlib.Path(sys.argv[1]))), '').weights_digest)"
    )
    digests = {
        subprocess.run(
            [PYTHON, "-P", "-c", program, tmp_path / name], capture_output=True, text=True, timeout=300, check=True
        ).stdout
        for name in ("one", "two", "one")
    }
    assert len(digests) == 1
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["tiny-random-1"]


def test_the_meshs_own_environment_knows_no_engine() -> None:
    assert importlib.util.find_spec("vllm") is None
    assert importlib.util.find_spec("torch") is None


def test_a_hubs_model_that_is_here_at_its_commit_is_found_without_the_hub(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    here = tmp_path / "hub/models--acme--small/snapshots" / commit
    here.mkdir(parents=True)
    (here / "model.safetensors").write_text("weights")
    program = (
        "import sys; from model_server.source import find_source; "
        "found = find_source('acme/small', sys.argv[1]); print(found.id, found.revision, found.folder)"
    )
    found = subprocess.run(
        [PYTHON, "-P", "-c", program, commit],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.stdout.split() == ["acme/small", commit, str(here)], found.stderr


def test_an_engines_process_imports_nothing_of_the_server_before_its_own_work() -> None:
    program = "import sys; import model_server.__main__; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [PYTHON, "-P", "-c", program], capture_output=True, text=True, timeout=300, check=True, cwd=REPO
    )
    assert not {"grpc", "uvloop", "pydantic", "torch"} & set(run.stdout.split())
