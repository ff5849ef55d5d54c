"""A wall clock of one process that can be set. Of Envoy too, which hangs at its start with libfaketime."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="sets a process's clock by C: install gcc")


@dataclass(frozen=True, slots=True)
class WallClock:
    """What a process must be started with for its clock to be set in a folder."""

    folder: Path

    @property
    def env(self) -> Mapping[str, str]:
        """The process's variables."""
        library = self.folder / "wall_clock.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run(("cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source), check=True)
        self.step(0)
        return {"LD_PRELOAD": str(library), "WALL_CLOCK": str(self._path)}

    def step(self, seconds: int) -> None:
        """Set the clock to so much after the machine's."""
        draft = self._path.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self._path)

    @property
    def _path(self) -> Path:
        return self.folder / "step"
