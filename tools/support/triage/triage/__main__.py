"""Serve ticket triage: `python -m triage`."""

from pathlib import Path

from acme.support.v1.triage_pb2 import TriageTicketRequest
from acme.support.v1.triage_pb2_grpc import TriageServicer

import llmesh

PROMPT = Path(__file__).with_name("prompts") / "triage.jinja"


def main() -> None:
    """Serve until stopped."""
    llmesh.serve(TriageServicer, prompts=[llmesh.Prompt.load(PROMPT, TriageTicketRequest)])


if __name__ == "__main__":
    main()
