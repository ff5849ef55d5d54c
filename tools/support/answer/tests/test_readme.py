import asyncio
import os
import re
import sys
from pathlib import Path

from acme.support.v1 import answer_pb2 as pb
from acme.support.v1.answer_pb2_grpc import AnswersServicer
from google.protobuf import json_format

from llmesh import testing

TOOL = Path(__file__).resolve().parent.parent
README = TOOL.joinpath("README.md").read_text()


class Answering(AnswersServicer):
    """Answers with one source and one that gave none: a snippet's process brings no right to ask others."""

    async def AnswerTicket(self, request: pb.AnswerTicketRequest, context: object) -> pb.AnswerTicketResponse:
        source = pb.Source(tool="acme.engineering.v1.DocSearch")
        source.passage.score = 0.5
        source.passage.citation.title = request.text
        gone = pb.Unanswered(method="acme.handbook.v1.HandbookSearch/Retrieve", reason="it is not on the mesh")
        reply = pb.Reply(found=True, sentences=[pb.Sentence(text="So it is.", passages=[1])])
        return pb.AnswerTicketResponse(sources=[source], unanswered=[gone], reply=reply, note="a test wrote it")


async def test_python_snippet_runs() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    async with testing.run(Answering()) as tool:
        env = {**os.environ, "MESH": tool.server.address}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", snippet, cwd=TOOL, env=env, stdout=-1)
        printed, _ = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 0
    assert printed.decode().splitlines() == [
        "0.50 group of tasks, by acme.engineering.v1.DocSearch",
        "no answer of acme.handbook.v1.HandbookSearch/Retrieve: it is not on the mesh",
        "So it is. [1]",
        "a test wrote it",
    ]


def test_calls_on_the_command_line_are_ones_the_method_takes() -> None:
    requests = re.findall(r"llmesh call acme.support.v1.Answers/AnswerTicket '(.*?)'", README)

    assert len(requests) == 2
    for each in requests:
        assert json_format.Parse(each, pb.AnswerTicketRequest()).text


def test_readme_says_where_every_module_is() -> None:
    modules = {path.name for path in TOOL.joinpath("answer").glob("[!_]*.py")}

    assert modules == set(re.findall(r"\| `answer/(\w+\.py)`", README))
