import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
from acme.handbook.v1.handbook_search_pb2_grpc import HandbookSearchStub
from google.protobuf import json_format
from search.handbook import Handbook
from search.index import ATTRIBUTES
from search.service import HandbookSearch

from llmesh import testing
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest
from llmesh.retrieval import Meanings

TOOL = Path(__file__).resolve().parent.parent
REPOSITORY = TOOL.parents[2]
README = TOOL.joinpath("README.md").read_text()


async def test_python_snippet_runs(meanings: Meanings) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    async with testing.run(HandbookSearch(Handbook(REPOSITORY), meanings)) as tool:
        env = {**os.environ, "MESH": tool.server.address}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", snippet, cwd=TOOL, env=env, stdout=-1)
        printed, _ = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 0
    assert b"Handbook search > Scores: tools/handbook/search/README.md#scores" in printed


async def test_call_on_the_command_line_is_one_the_method_takes(meanings: Meanings) -> None:
    (request,) = re.findall(r"llmesh call acme.handbook.v1.HandbookSearch/Retrieve '(.*?)'", README)
    async with testing.run(HandbookSearch(Handbook(REPOSITORY), meanings)) as tool:
        found = await HandbookSearchStub(tool.channel).Retrieve(
            json_format.Parse(request, RetrieveRequest()), timeout=60
        )

    assert found.passages


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_readme_lists_every_attribute(attribute: str) -> None:
    assert f"| `{attribute}` |" in README


def test_readme_says_where_every_module_is() -> None:
    modules = {path.name for path in TOOL.joinpath("search").glob("[!_]*.py")}

    assert modules == set(re.findall(r"\| `search/(\w+\.py)`", README))
