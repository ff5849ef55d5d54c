"""Serve the tool: python -m text."""

import llmesh
from text.service import TextService

if __name__ == "__main__":
    llmesh.serve(TextService())
