"""The tool's folder is the path root of its packages, as when it runs; `acme` is a namespace that tools share."""

import sys
from pathlib import Path

# Last, so that it hides nothing.
sys.path.append(str(Path(__file__).resolve().parent.parent))
