import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
from acme.engineering.v1.doc_search_pb2_grpc import DocSearchStub
from doc_search.index import ATTRIBUTES, Index
from doc_search.service import DocSearch
from google.protobuf import json_format

from llmesh import testing
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest
from llmesh.retrieval import Meanings

TOOL = Path(__file__).resolve().parent.parent
README = TOOL.joinpath("README.md").read_text()


async def test_python_snippet_runs(index: Index, meanings: Meanings) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    async with testing.run(DocSearch(index, meanings)) as tool:
        env = {**os.environ, "MESH": tool.server.address}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", snippet, cwd=TOOL, env=env, stdout=-1)
        printed, _ = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 0
    assert b"asyncio.TaskGroup: python3" in printed


async def test_call_on_the_command_line_is_one_the_method_takes(index: Index, meanings: Meanings) -> None:
    (request,) = re.findall(r"llmesh call acme.engineering.v1.DocSearch/Retrieve '(.*?)'", README)
    async with testing.run(DocSearch(index, meanings)) as tool:
        found = await DocSearchStub(tool.channel).Retrieve(json_format.Parse(request, RetrieveRequest()), timeout=60)

    assert found.passages[0].citation.title == "asyncio.timeout"


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_readme_lists_every_attribute(attribute: str) -> None:
    assert f"| `{attribute}` |" in README


def test_readme_says_where_every_module_is() -> None:
    modules = {path.name for path in TOOL.joinpath("doc_search").glob("[!_]*.py")}

    assert modules == set(re.findall(r"\| `doc_search/(\w+\.py)`", README))
