import asyncio
import os
import re
import sys
from pathlib import Path

from acme.support.v1 import triage_pb2 as pb
from acme.support.v1.triage_pb2_grpc import TriageServicer
from google.protobuf import json_format

from llmesh import testing

TOOL = Path(__file__).resolve().parent.parent
README = TOOL.joinpath("README.md").read_text()


class Sorting(TriageServicer):
    """Sorts every ticket alike: a snippet's process brings no right to ask a model."""

    async def TriageTicket(self, request: pb.TriageTicketRequest, context: object) -> pb.TriageTicketResponse:
        return pb.TriageTicketResponse(
            category=pb.CATEGORY_DEFECT,
            urgency=pb.URGENCY_NORMAL,
            summary=f"{len(request.text)} characters.",
            next_step="Ask for one of them.",
            confidence=0.75,
        )


async def test_python_snippet_runs() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    async with testing.run(Sorting()) as tool:
        env = {**os.environ, "MESH": tool.server.address}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", snippet, cwd=TOOL, env=env, stdout=-1)
        printed, _ = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 0
    assert printed.decode().splitlines() == [
        "CATEGORY_DEFECT URGENCY_NORMAL 75%",
        "41 characters.",
        "Next: Ask for one of them.",
    ]


def test_call_on_the_command_line_is_one_the_method_takes() -> None:
    (request,) = re.findall(r"llmesh call acme.support.v1.Triage/TriageTicket '(.*?)'", README)

    assert json_format.Parse(request, pb.TriageTicketRequest()).text


def test_readme_says_where_every_file_is() -> None:
    files = {str(path.relative_to(TOOL)) for path in TOOL.joinpath("triage").rglob("[!_]*.jinja")}

    assert files | {"triage/__main__.py"} == set(re.findall(r"\| `(triage/[\w./]+)`", README))
