"""The tool's folder is the path root of its packages, as when it runs; `acme` is a namespace that tools share."""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
TOOLS = FOLDER.parents[1]
# Last, so that they hide nothing. Of the others, the tests take stubs.
OTHERS = ("engineering/doc_search", "engineering/package_search", "handbook/search", "support/tickets")
sys.path += [str(FOLDER), *(str(TOOLS / other) for other in OTHERS)]
