import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from acme.handbook.v1 import handbook_search_pb2
from acme.handbook.v1.handbook_search_pb2_grpc import HandbookSearchStub
from google.protobuf import json_format
from search.handbook import Handbook
from search.service import HandbookSearch

from llmesh import InvalidCall, testing
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1.retrieval_pb2 import Filter, RetrieveRequest, RetrieveResponse
from llmesh.retrieval import Meanings

SERVICE = handbook_search_pb2.DESCRIPTOR.services_by_name["HandbookSearch"]
RETRIEVE = SERVICE.methods_by_name["Retrieve"]

# A handbook as a team would write one: page by page, what stands under which heading.
PAGES = {
    "README.md": """
# LL-Mesh
A governed mesh for LLM tools.
## Install
Run `make setup` once. It needs Python 3.11.
## Start the mesh
`make up` starts Envoy, the gateway and the tools, and signs in a caller.
""",
    "docs/call.md": """
# Call a tool
## From Python
Open `llmesh.Mesh` and pass its channel to your stubs.
## Deadlines
A call has 30 seconds unless the contract says otherwise; the client's own deadline is honoured.
## Why was I refused?
PERMISSION_DENIED names the rule and its reason.
""",
    "docs/rules.md": """
# Write a rule
Rules are CEL over caller, tool and context.
## Test a rule
Tests stand beside the rule: a request and the decision you expect.
## Block a tool at once
`llmesh block` stops a tool, a method or a caller within milliseconds.
""",
    "docs/publish.md": """
# Publish a tool
Write a proto with options, and a servicer; `llmesh.serve` does the rest.
## Deprecate a tool
Set the lifecycle's stage, the date and the successor.
""",
    "tools/support/tickets/README.md": """
# Tickets
Opens and closes support tickets.
""",
}
WANTED = [
    ("how do I install it", "LL-Mesh > Install"),
    ("which python version", "LL-Mesh > Install"),
    ("start the mesh", "LL-Mesh > Start the mesh"),
    ("make up", "LL-Mesh > Start the mesh"),
    ("call a tool from python", "Call a tool > From Python"),
    ("llmesh.Mesh channel", "Call a tool > From Python"),
    ("deadline of a call", "Call a tool > Deadlines"),
    ("timeout seconds", "Call a tool > Deadlines"),
    ("permission denied", "Call a tool > Why was I refused?"),
    ("refused call reason", "Call a tool > Why was I refused?"),
    ("write rules in CEL", "Write a rule"),
    ("test my rule", "Write a rule > Test a rule"),
    ("block a caller", "Write a rule > Block a tool at once"),
    ("stop a tool now", "Write a rule > Block a tool at once"),
    ("publish tools", "Publish a tool"),
    ("llmesh serve servicer", "Publish a tool"),
    ("deprecate with a successor", "Publish a tool > Deprecate a tool"),
    ("close ticket", "Tickets"),
]


@pytest.fixture
async def tool(tmp_path: Path, meanings: Meanings) -> AsyncIterator[testing.ToolUnderTest]:
    for file, text in PAGES.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    async with testing.run(HandbookSearch(Handbook(tmp_path), meanings)) as running:
        yield running


async def retrieve(
    tool: testing.ToolUnderTest, query: str, *filters: tuple[str, list[str]], limit: int = 0
) -> RetrieveResponse:
    request = RetrieveRequest(
        query=query, limit=limit, filters=[Filter(attribute=name, values=values) for name, values in filters]
    )
    return await HandbookSearchStub(tool.channel).Retrieve(request, timeout=60)


@pytest.mark.parametrize(("query", "title"), WANTED, ids=[query for query, _ in WANTED])
async def test_wanted_section_is_among_the_first_three(tool: testing.ToolUnderTest, query: str, title: str) -> None:
    found = await retrieve(tool, query, limit=3)

    assert title in [passage.citation.title for passage in found.passages]


async def test_passage_carries_its_source_and_proof(tool: testing.ToolUnderTest) -> None:
    found = (await retrieve(tool, "block a tool", limit=1)).passages[0]

    assert found.text == "`llmesh block` stops a tool, a method or a caller within milliseconds."
    assert found.citation.source == "LL-Mesh handbook"
    assert found.citation.title == "Write a rule > Block a tool at once"
    assert found.citation.location == "docs/rules.md#block-a-tool-at-once"
    assert found.citation.digest == hashlib.sha256(found.text.encode()).hexdigest()
    assert dict(found.attributes) == {"file": "docs/rules.md", "heading": "Block a tool at once"}
    assert 0 < found.score <= 1


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (3, 3), (0, 10), (100, 12)])
async def test_limit_bounds_the_passages(tool: testing.ToolUnderTest, limit: int, count: int) -> None:
    assert len((await retrieve(tool, "tool rule mesh", limit=limit)).passages) == count


async def test_hostile_page_keeps_nobody_from_an_answer(tool: testing.ToolUnderTest, tmp_path: Path) -> None:
    wide = "\U0001f310" * 20_000
    headings = "\n".join(f"{'#' * level} tool {wide}" for level in range(1, 7))
    tmp_path.joinpath("docs/hostile.md").write_text(f"{headings}\n\n" + f"tool {wide}\n\n" * 20)

    found = await retrieve(tool, "tool", limit=100)

    assert len(found.passages) == 100
    assert found.passages[-1].citation.location.startswith("docs/hostile.md#tool-")


@pytest.mark.parametrize("query", ["qqqqzzzz", "   ", "!?", "how do I"])
async def test_query_that_nothing_bears_on_finds_nothing(tool: testing.ToolUnderTest, query: str) -> None:
    assert list((await retrieve(tool, query)).passages) == []


FILTERS = [
    ([("file", ["docs/rules.md"])], {"docs/rules.md"}),
    ([("file", ["docs/rules.md", "README.md"])], {"docs/rules.md", "README.md"}),
    ([("heading", ["Publish a tool"])], {"docs/publish.md"}),
    ([("file", ["docs/rules.md"]), ("heading", ["Test a rule"])], {"docs/rules.md"}),
    ([("file", ["docs/rules.md"]), ("heading", ["Install"])], set[str]()),
    ([("file", ["docs"])], set[str]()),
]


@pytest.mark.parametrize(("filters", "files"), FILTERS)
async def test_passages_pass_every_filter(
    tool: testing.ToolUnderTest, filters: list[tuple[str, list[str]]], files: set[str]
) -> None:
    found = await retrieve(tool, "tool rule mesh", *filters)

    assert {passage.attributes["file"] for passage in found.passages} == files


async def test_unknown_attribute_is_named(tool: testing.ToolUnderTest) -> None:
    with pytest.raises(InvalidCall) as caught:
        await retrieve(tool, "rule", ("file", ["README.md"]), ("module", ["asyncio"]))

    assert [violation.field for violation in caught.value.violations] == ["filters[1].attribute"]
    assert "`module` is not one of `file`, `heading`" in caught.value.violations[0].description


@pytest.mark.parametrize(
    ("request_", "field"),
    [(RetrieveRequest(), "query"), (RetrieveRequest(query="x", limit=101), "limit")],
    ids=["no query", "limit too high"],
)
async def test_request_outside_its_contract_is_refused(
    tool: testing.ToolUnderTest, request_: RetrieveRequest, field: str
) -> None:
    with pytest.raises(InvalidCall) as caught:
        await HandbookSearchStub(tool.channel).Retrieve(request_, timeout=60)

    assert [violation.field for violation in caught.value.violations] == [field]


async def test_provenance_names_the_pages_answered_from(tool: testing.ToolUnderTest, tmp_path: Path) -> None:
    async def provenance() -> list[dict[str, str]]:
        call = HandbookSearchStub(tool.channel).Retrieve(RetrieveRequest(query="rule"), timeout=60)
        await call
        return json.loads(dict(await call.trailing_metadata() or ())["x-llmesh-provenance"])

    before = await provenance()
    tmp_path.joinpath("docs/rules.md").write_text("# No rules\n\nNone.")
    after = await provenance()

    assert before[0]["source"] == after[0]["source"] == "LL-Mesh handbook"
    assert before[0]["index"] != after[0]["index"]


async def test_pages_may_change_under_calls(tool: testing.ToolUnderTest, tmp_path: Path) -> None:
    async def write(revision: int) -> None:
        page = tmp_path / "docs/changing.md"
        await asyncio.to_thread(page.write_text, f"# Changing\n\nRevision {revision} of the page.")

    answers, _ = await asyncio.gather(
        asyncio.gather(*(retrieve(tool, "start the mesh", limit=1) for _ in range(40))),
        asyncio.gather(*(write(revision) for revision in range(40))),
    )

    assert {answer.passages[0].citation.title for answer in answers} == {"LL-Mesh > Start the mesh"}


EXAMPLES = RETRIEVE.GetOptions().Extensions[options.method].examples


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.summary for example in EXAMPLES])
async def test_example_of_the_contract_works(tool: testing.ToolUnderTest, example: options.Example) -> None:
    request = json_format.Parse(example.request_json, RetrieveRequest())
    found = await HandbookSearchStub(tool.channel).Retrieve(request, timeout=60)

    if example.response_json:
        assert found.passages == json_format.Parse(example.response_json, RetrieveResponse()).passages
    else:
        assert found.passages


def test_contract_is_a_whole_product_sheet() -> None:
    sheet = SERVICE.GetOptions().Extensions[options.tool]
    method = RETRIEVE.GetOptions().Extensions[options.method]

    empty = {field.name for field in sheet.DESCRIPTOR.fields} - {field.name for field, _ in sheet.ListFields()}
    assert empty == {"prompts", "hidden"}
    assert method.effect == options.EFFECT_READ
    assert RETRIEVE.GetOptions().idempotency_level == RETRIEVE.GetOptions().NO_SIDE_EFFECTS
    assert RETRIEVE.input_type.GetOptions().Extensions[options.capability].name == "retrieval"
