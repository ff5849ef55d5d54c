"""Makes the tool importable as it is when it runs: its folder on the path."""

import sys
from pathlib import Path

# Last, so that nothing here hides another package; `acme` is a namespace that
# every tool's folder adds to.
sys.path.append(str(Path(__file__).resolve().parent.parent))
