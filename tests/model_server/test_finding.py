"""Models that are looked for: by a process that may take long, and is waited for by nobody who is told to end."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from model_server.finding import apart
from model_server.source import ModelSource, SourceError, find_source
from tests.e2e.mesh import running_mesh
from tests.eventually import eventually
from tests.model_server.models import START_S, alive, processes_below, start_models

TEBIBYTE = 1 << 40


def model_at(folder: Path, *, size: int) -> Path:
    """A folder with weights of so many bytes, which take no room."""
    folder.mkdir()
    (folder / "model.safetensors").touch()
    os.truncate(folder / "model.safetensors", size)
    return folder


async def test_what_is_found_is_what_this_process_would_find(tmp_path: Path) -> None:
    folder = str(model_at(tmp_path / "small", size=1000))
    assert await apart(partial(find_source, folder, "", warning="beware")) == find_source(folder, "", warning="beware")


async def test_why_nothing_is_found_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no weights"):
        await apart(partial(find_source, str(tmp_path), ""))


def be_killed() -> ModelSource:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


async def test_a_search_that_is_killed_found_nothing() -> None:
    with pytest.raises(SourceError, match="-9"):
        await apart(be_killed)


async def test_a_server_that_is_told_to_end_while_it_reads_weights_does_not_wait_for_them(tmp_path: Path) -> None:
    folder = model_at(tmp_path / "huge", size=TEBIBYTE)
    with running_mesh(start=False) as mesh:
        models = start_models(mesh, f"--model={folder}")

        async def serves() -> None:
            assert models.socket.exists(), models.process.said()[-3000:]

        await eventually(serves, within_s=START_S)
        everything = processes_below(models.process.pid)
        models.process.signal(signal.SIGTERM)
        assert await asyncio.to_thread(models.process.wait) == 0, models.process.said()[-3000:]

        async def all_are_gone() -> None:
            assert not alive(everything)

        await eventually(all_are_gone)


async def test_a_server_that_is_told_to_end_while_it_imports_does_not_wait_for_that(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm/__init__.py").write_text("import threading\nthreading.Event().wait()\n")
    with running_mesh(start=False) as mesh:
        models = start_models(mesh, env={"PYTHONPATH": str(tmp_path)})

        async def imports() -> None:
            assert "placeholder" in models.process.said(), models.process.said()[-3000:]

        await eventually(imports, within_s=START_S)
        models.process.signal(signal.SIGTERM)
        assert await asyncio.to_thread(models.process.wait) == 0, models.process.said()[-3000:]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--model={}/none",), "there is no folder `{}/none`"),
        (("--model={}",), "holds no weights"),
        (("--embeddings=acme/small",), "the revision must be a whole commit"),
    ],
)
async def test_a_model_that_there_cannot_be_ends_the_server_at_once(
    tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    with running_mesh(start=False) as mesh:
        models = start_models(mesh, *(flag.format(tmp_path) for flag in flags))
        assert await asyncio.to_thread(models.process.wait) == 1
        assert words.format(tmp_path) in models.process.said()
