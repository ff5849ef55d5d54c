"""Makes the tool importable as it is when it runs: its folder on the path."""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
TOOLS = FOLDER.parent.parent
# With the stubs of those that Suggest calls. Last, so that nothing here hides
# another package; `acme` is a namespace that every tool's folder adds to.
sys.path += [str(folder) for folder in (FOLDER, TOOLS / "engineering/doc_search", TOOLS / "handbook/search")]
