"""Measure: `python -m tests.bench [NAME ...]`, all of them if none is named."""

from __future__ import annotations

import compileall
import sys
from importlib import import_module
from pathlib import Path

from tests.bench.figures import record

REPO = Path(__file__).parents[2]
# In the order in which they disturb each other least.
NAMES = (
    *("data_path", "rules", "blocks", "records", "fleet", "fanout", "up", "hostile", "restart"),
    *("model", "passages", "questions", "search"),
)


def main() -> None:
    """Run each benchmark, and record its figures."""
    names = tuple(name.replace("-", "_") for name in sys.argv[1:]) or NAMES
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        sys.exit(f"no benchmark `{unknown[0]}`; there are: {', '.join(NAMES)}")
    # As they are once installed; a start would compile them anew where Python may write no byte code.
    for package in ("llmesh", "gateway", "governance", "model_server", "tools"):
        compileall.compile_dir(REPO / package, quiet=1)
    for name in names:
        record(name, import_module(f"tests.bench.{name}").measure())


if __name__ == "__main__":
    main()
