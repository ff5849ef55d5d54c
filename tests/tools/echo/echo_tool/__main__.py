"""Serve it: python -m echo_tool."""

import llmesh
from echo_tool.service import EchoServicer

if __name__ == "__main__":
    llmesh.serve(EchoServicer())
