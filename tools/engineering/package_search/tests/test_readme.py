import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
from acme.engineering.v1.package_search_pb2_grpc import PackageSearchStub
from google.protobuf import json_format
from package_search.index import ATTRIBUTES
from package_search.installed import Installed
from package_search.service import PackageSearch

from llmesh import testing
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest
from llmesh.retrieval import Meanings

TOOL = Path(__file__).resolve().parent.parent
STATUS = Path(__file__).with_name("status.txt")
README = TOOL.joinpath("README.md").read_text()


async def test_python_snippet_runs(meanings: Meanings) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    async with testing.run(PackageSearch(Installed(STATUS), meanings)) as tool:
        env = {**os.environ, "MESH": tool.server.address}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", snippet, cwd=TOOL, env=env, stdout=-1)
        printed, _ = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 0
    assert b"jq 1.6-2.1: dpkg --status jq" in printed


async def test_call_on_the_command_line_is_one_the_method_takes(meanings: Meanings) -> None:
    (request,) = re.findall(r"llmesh call acme.engineering.v1.PackageSearch/Retrieve '(.*?)'", README)
    async with testing.run(PackageSearch(Installed(STATUS), meanings)) as tool:
        found = await PackageSearchStub(tool.channel).Retrieve(
            json_format.Parse(request, RetrieveRequest()), timeout=60
        )

    assert found.passages


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_readme_lists_every_attribute(attribute: str) -> None:
    assert f"| `{attribute}` |" in README


def test_readme_says_where_every_module_is() -> None:
    modules = {path.name for path in TOOL.joinpath("package_search").glob("[!_]*.py")}

    assert modules == set(re.findall(r"\| `package_search/(\w+\.py)`", README))
