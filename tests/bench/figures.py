"""The figures of a benchmark: measured against a target, printed, and committed as the record of what was reached."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

OUT = Path(__file__).with_name("out")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. target: what it is to be; None for one that is only told."""

    name: str
    value: float
    unit: str
    target: float | None = None
    comparison: Literal["<=", ">="] = "<="

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.comparison == "<=" else self.value >= self.target


def record(name: str, figures: Sequence[Figure]) -> None:
    """Write a benchmark's figures to out/NAME.json, and print them."""
    same = {"machine": _machine(), "date": datetime.now(UTC).date().isoformat(), "commit": _commit()}
    rows = [
        {
            "figure": figure.name,
            "value": float(f"{figure.value:.4g}"),
            "unit": figure.unit,
            "target": figure.target,
            "comparison": figure.comparison,
            "met": figure.met,
            **same,
        }
        for figure in figures
    ]
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(rows, indent=2) + "\n")
    _print(name, figures)


def _print(name: str, figures: Sequence[Figure]) -> None:
    table = Table("figure", "value", "unit", "target", "met", title=name, title_justify="left")
    for figure in figures:
        target = "" if figure.target is None else f"{figure.comparison} {figure.target:g}"
        met = {None: "", True: "yes", False: "NO"}[figure.met]
        table.add_row(figure.name, f"{figure.value:.4g}", figure.unit, target, met)
    Console().print(table)


def _machine() -> str:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    gpus = _gpus()
    return f"{os.cpu_count()} x {_processor()}, {memory_gib:.0f} GiB, {gpus}Python {platform.python_version()}"


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()


def _gpus() -> str:
    """NVIDIA's, each followed by a comma; empty if there are none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    argv = (program, "--query-gpu=name", "--format=csv,noheader")
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return "".join(f"{name}, " for name in said.splitlines())


def _commit() -> str:
    """The commit that was measured; marked if the tree had changes beside it."""
    return subprocess.run(
        ("git", "describe", "--always", "--dirty", "--exclude=*"), capture_output=True, text=True, check=True
    ).stdout.strip()
