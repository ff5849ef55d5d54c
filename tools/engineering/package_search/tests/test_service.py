import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from acme.engineering.v1 import package_search_pb2
from acme.engineering.v1.package_search_pb2_grpc import PackageSearchStub
from google.protobuf import json_format
from package_search.installed import Installed
from package_search.service import PackageSearch

from llmesh import InvalidCall, Unavailable, testing
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1.retrieval_pb2 import Filter, RetrieveRequest, RetrieveResponse
from llmesh.retrieval import Meanings

STATUS = Path(__file__).with_name("status.txt")
SERVICE = package_search_pb2.DESCRIPTOR.services_by_name["PackageSearch"]
RETRIEVE = SERVICE.methods_by_name["Retrieve"]


@pytest.fixture
async def tool(meanings: Meanings) -> AsyncIterator[testing.ToolUnderTest]:
    async with testing.run(PackageSearch(Installed(STATUS), meanings)) as running:
        yield running


async def retrieve(
    tool: testing.ToolUnderTest, query: str, *filters: tuple[str, list[str]], limit: int = 0
) -> RetrieveResponse:
    request = RetrieveRequest(
        query=query, limit=limit, filters=[Filter(attribute=name, values=values) for name, values in filters]
    )
    return await PackageSearchStub(tool.channel).Retrieve(request, timeout=60)


def names(found: RetrieveResponse) -> list[str]:
    return [passage.attributes["package"] for passage in found.passages]


async def test_passage_carries_its_source_and_proof(tool: testing.ToolUnderTest) -> None:
    found = (await retrieve(tool, "json", limit=1)).passages[0]

    assert found.text == (
        "lightweight and flexible command-line JSON processor\n\n"
        "jq is like sed for JSON data: slice, filter, map and transform it."
    )
    assert found.citation.source == "installed Debian packages"
    assert found.citation.title == "jq 1.6-2.1"
    assert found.citation.location == "dpkg --status jq"
    assert found.citation.digest == hashlib.sha256(found.text.encode()).hexdigest()
    assert dict(found.attributes) == {"package": "jq", "section": "utils"}
    assert 0 < found.score <= 1


async def test_package_that_was_removed_is_not_found(tool: testing.ToolUnderTest) -> None:
    assert "wget" not in names(await retrieve(tool, "wget retrieves files from the web"))


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (2, 2), (0, 7), (100, 7)])
async def test_limit_bounds_the_passages(tool: testing.ToolUnderTest, limit: int, count: int) -> None:
    query = "users toolkit compiler json data library"
    assert len((await retrieve(tool, query, limit=limit)).passages) == count


FILTERS = [
    ([("section", ["utils"])], {"openssl"}),
    ([("section", ["utils", "libdevel"])], {"openssl", "libssl-dev"}),
    ([("package", ["libssl-dev"]), ("section", ["libdevel"])], {"libssl-dev"}),
    ([("package", ["libssl-dev"]), ("section", ["utils"])], set[str]()),
    ([("package", ["libssl"])], set[str]()),
    ([("section", [""])], set[str]()),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS)
async def test_passages_pass_every_filter(
    tool: testing.ToolUnderTest, filters: list[tuple[str, list[str]]], expected: set[str]
) -> None:
    assert set(names(await retrieve(tool, "secure sockets layer", *filters))) == expected


async def test_unknown_attributes_are_named(tool: testing.ToolUnderTest) -> None:
    with pytest.raises(InvalidCall) as caught:
        await retrieve(tool, "json", ("name", ["jq"]), ("section", ["utils"]), ("__class__", ["x"]))

    assert [each.field for each in caught.value.violations] == ["filters[0].attribute", "filters[2].attribute"]
    assert "`name` is not one of `package`, `section`" in caught.value.violations[0].description


HOSTILE = [
    "qqqqzzzz",
    "   ",
    "!?",
    "how do I",
    "\x00\x01\x7f",
    "../../etc/shadow",
    "a" * 4096,
    "- " * 2048,
    "(((((((((" * 400,
    "\u202e\u0000\U0010ffff",
    "'; DROP TABLE x; --",
    "${jndi:ldap://x}",
]


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
async def test_odd_query_is_only_words_that_nothing_bears_on(tool: testing.ToolUnderTest, query: str) -> None:
    assert names(await retrieve(tool, query)) == []


REFUSED = [
    (RetrieveRequest(), "query"),
    (RetrieveRequest(query="x" * 4097), "query"),
    (RetrieveRequest(query="x", limit=101), "limit"),
    (RetrieveRequest(query="x", filters=[Filter(attribute="section")]), "filters[0].values"),
    (RetrieveRequest(query="x", filters=[Filter(attribute="section", values=["a"])] * 17), "filters"),
]


@pytest.mark.parametrize(("request_", "field"), REFUSED, ids=range(len(REFUSED)))
async def test_request_outside_its_contract_is_refused(
    tool: testing.ToolUnderTest, request_: RetrieveRequest, field: str
) -> None:
    with pytest.raises(InvalidCall) as caught:
        await PackageSearchStub(tool.channel).Retrieve(request_, timeout=60)

    assert [violation.field for violation in caught.value.violations] == [field]


async def test_list_that_cannot_be_read_is_unavailable_for_a_while(tmp_path: Path, meanings: Meanings) -> None:
    async with testing.run(PackageSearch(Installed(tmp_path / "gone"), meanings)) as tool:
        with pytest.raises(Unavailable) as caught:
            await retrieve(tool, "json")

    assert caught.value.retry_after_s == 5
    assert str(tmp_path) not in str(caught.value)


async def test_provenance_names_what_was_answered_from(tool: testing.ToolUnderTest) -> None:
    call = PackageSearchStub(tool.channel).Retrieve(RetrieveRequest(query="json"), timeout=60)
    await call
    [cited] = json.loads(str(dict(await call.trailing_metadata() or ())["x-llmesh-provenance"]))

    assert cited == {"source": "installed Debian packages", "index": (await Installed(STATUS).index()).digest}


EXAMPLES = RETRIEVE.GetOptions().Extensions[options.method].examples


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.summary for example in EXAMPLES])
async def test_example_of_the_contract_works(tool: testing.ToolUnderTest, example: options.Example) -> None:
    request = json_format.Parse(example.request_json, RetrieveRequest())
    found = await PackageSearchStub(tool.channel).Retrieve(request, timeout=60)

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
