"""What the mesh file states as limits is what discovery keeps to."""

from __future__ import annotations

from pathlib import Path

from gateway.__main__ import look_limits
from gateway.config import read_config
from gateway.reading.reflect import Limits

STATED = """
listen: 127.0.0.1:8700
limits: {file_bytes: 2048, files: 3, endpoint_bytes: 4096, definitions: 9, look_timeout_s: 5.5, looks_at_once: 7}
"""


def limits(folder: Path, text: str) -> Limits:
    path = folder / "mesh.yaml"
    path.write_text(text)
    return look_limits(read_config(str(folder / "m"), str(path)))


def test_limits_are_those_of_the_mesh_file(tmp_path: Path) -> None:
    stated = Limits(file_bytes=2048, files=3, endpoint_bytes=4096, definitions=9, timeout_s=5.5, at_once=7)
    assert limits(tmp_path, STATED) == stated


def test_a_mesh_file_without_limits_has_the_usual_ones(tmp_path: Path) -> None:
    assert limits(tmp_path, "listen: 127.0.0.1:8700") == Limits()
    usual = Limits(
        file_bytes=1 << 20, files=1024, endpoint_bytes=8 << 20, definitions=65536, timeout_s=10.0, at_once=16
    )
    assert Limits() == usual
