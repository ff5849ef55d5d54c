import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import pytest
from acme.engineering.v1 import doc_search_pb2
from acme.engineering.v1.doc_search_pb2_grpc import DocSearchStub
from doc_search.index import Index
from doc_search.passages import PYTHON
from doc_search.service import DocSearch
from google.protobuf import json_format

from llmesh import InvalidCall, testing
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1.retrieval_pb2 import Filter, RetrieveRequest, RetrieveResponse
from llmesh.retrieval import Meanings

SERVICE = doc_search_pb2.DESCRIPTOR.services_by_name["DocSearch"]
RETRIEVE = SERVICE.methods_by_name["Retrieve"]


@pytest.fixture
async def tool(index: Index, meanings: Meanings) -> AsyncIterator[testing.ToolUnderTest]:
    async with testing.run(DocSearch(index, meanings)) as running:
        yield running


async def retrieve(
    tool: testing.ToolUnderTest, query: str, *filters: tuple[str, list[str]], limit: int = 0
) -> RetrieveResponse:
    request = RetrieveRequest(
        query=query, limit=limit, filters=[Filter(attribute=name, values=values) for name, values in filters]
    )
    return await DocSearchStub(tool.channel).Retrieve(request, timeout=60)


async def test_passage_carries_its_source_and_proof(tool: testing.ToolUnderTest) -> None:
    found = (await retrieve(tool, "asyncio timeout", limit=1)).passages[0]

    assert found.text.startswith("asyncio.timeout(")
    assert found.citation.source == f"python {PYTHON} standard library"
    assert found.citation.title == "asyncio.timeout"
    assert found.citation.location == f"python{PYTHON} -m pydoc asyncio.timeout"
    assert found.citation.digest == hashlib.sha256(found.text.encode()).hexdigest()
    assert dict(found.attributes) == {"kind": "function", "module": "asyncio"}
    assert 0 < found.score <= 1


@pytest.mark.parametrize(("limit", "count"), [(0, 10), (1, 1), (3, 3), (100, 100)])
async def test_limit_bounds_the_passages(tool: testing.ToolUnderTest, limit: int, count: int) -> None:
    assert len((await retrieve(tool, "file", limit=limit)).passages) == count


@pytest.mark.parametrize("query", ["qqqqzzzz", "   ", "!?", "how do I"])
async def test_query_that_nothing_bears_on_finds_nothing(tool: testing.ToolUnderTest, query: str) -> None:
    assert list((await retrieve(tool, query)).passages) == []


FILTERS = [
    ([("kind", ["class"])], {"class"}, None),
    ([("kind", ["class", "topic"])], {"class", "topic"}, None),
    ([("module", ["asyncio"])], None, {"asyncio"}),
    ([("module", ["asyncio", "threading"]), ("kind", ["class"])], {"class"}, {"asyncio", "threading"}),
]


@pytest.mark.parametrize(("filters", "kinds", "modules"), FILTERS)
async def test_passages_pass_every_filter(
    tool: testing.ToolUnderTest, filters: list[tuple[str, list[str]]], kinds: set[str] | None, modules: set[str] | None
) -> None:
    found = (await retrieve(tool, "event loop lock statement", *filters, limit=50)).passages

    assert found
    assert kinds is None or {passage.attributes["kind"] for passage in found} <= kinds
    assert modules is None or {passage.attributes["module"] for passage in found} <= modules


@pytest.mark.parametrize(
    "filters",
    [[("module", ["nosuchmodule"])], [("module", [""])], [("kind", ["topic"]), ("module", ["asyncio"])]],
    ids=["unknown value", "empty value", "no passage passes both"],
)
async def test_filters_that_nothing_passes_find_nothing(
    tool: testing.ToolUnderTest, filters: list[tuple[str, list[str]]]
) -> None:
    assert list((await retrieve(tool, "lock", *filters)).passages) == []


async def test_unknown_attribute_is_named(tool: testing.ToolUnderTest) -> None:
    with pytest.raises(InvalidCall) as caught:
        await retrieve(tool, "lock", ("kind", ["class"]), ("colour", ["red"]))

    assert [violation.field for violation in caught.value.violations] == ["filters[1].attribute"]
    assert "`colour` is not one of `kind`, `module`" in caught.value.violations[0].description


INVALID = [
    (RetrieveRequest(), "query"),
    (RetrieveRequest(query="x" * 4097), "query"),
    (RetrieveRequest(query="x", limit=101), "limit"),
    (RetrieveRequest(query="x", filters=[Filter(attribute="kind")]), "filters[0].values"),
    (RetrieveRequest(query="x", filters=[Filter(values=["class"])]), "filters[0].attribute"),
]


@pytest.mark.parametrize(("request_", "field"), INVALID, ids=[f"{field}-{at}" for at, (_, field) in enumerate(INVALID)])
async def test_request_outside_its_contract_is_refused(
    tool: testing.ToolUnderTest, request_: RetrieveRequest, field: str
) -> None:
    with pytest.raises(InvalidCall) as caught:
        await DocSearchStub(tool.channel).Retrieve(request_, timeout=60)

    assert field in [violation.field for violation in caught.value.violations]


async def test_provenance_names_the_source_and_the_index(tool: testing.ToolUnderTest, index: Index) -> None:
    call = DocSearchStub(tool.channel).Retrieve(RetrieveRequest(query="lock"), timeout=60)
    await call

    trailers = dict(await call.trailing_metadata() or ())
    assert json.loads(trailers["x-llmesh-provenance"]) == [
        {"source": f"python {PYTHON} standard library", "index": index.digest}
    ]


async def test_same_question_gets_the_same_answer_from_calls_at_once(tool: testing.ToolUnderTest) -> None:
    queries = ["asyncio timeout", "sort a list", "open file", "with"] * 25
    answers = await asyncio.gather(*(retrieve(tool, query) for query in queries))

    for query, answer in zip(queries, answers, strict=True):
        assert answer == answers[queries.index(query)]


async def test_longest_query_is_answered(tool: testing.ToolUnderTest) -> None:
    longest = ("read write file socket " * 200)[:4096]

    assert (await retrieve(tool, longest)).passages


EXAMPLES = RETRIEVE.GetOptions().Extensions[options.method].examples


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.summary for example in EXAMPLES])
async def test_example_of_the_contract_works(tool: testing.ToolUnderTest, example: options.Example) -> None:
    request = json_format.Parse(example.request_json, RetrieveRequest())
    found = await DocSearchStub(tool.channel).Retrieve(request, timeout=60)

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
