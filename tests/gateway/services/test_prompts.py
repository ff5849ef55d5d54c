"""A tool's prompts in the catalog: shown to its own domain, by whatever the tool says, within bounds."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc.aio
import pytest
from acme.testing.v1 import judges_pb2
from acme.testing.v1.echo_pb2_grpc import EchoServicer
from acme.testing.v1.judges_pb2_grpc import JudgesServicer

import llmesh
from gateway import prompts as gateway_prompts
from gateway.catalog import Endpoint, Report, State, Step, Tool
from gateway.prompts import AT_ONCE, ENDPOINTS_MAX, PROMPTS_MAX, Prompts
from gateway.reading.calls import as_sent
from governance.words import Caller
from llmesh import Denied, NotFound, Prompt, Unavailable
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.api.prompts.v1 import prompts_pb2 as told
from llmesh.status import error_from_rpc
from tests.gateway.services.world import (
    AGENT,
    COMMON,
    DOC_SEARCH,
    DOCS,
    ENGINEER,
    OVERSEER,
    TICKET_TOOL,
    TICKETS,
    by,
    mesh,
    tool_of,
)

TEXT = "Is this good? {{ text }}\n"
DIGEST = hashlib.sha256(TEXT.encode()).hexdigest()
Answer = Callable[[], Awaitable[bytes]]


@pytest.fixture
def folder() -> object:
    with TemporaryDirectory(prefix="p") as name:
        yield Path(name)


def prompt_of(folder: Path, text: str = TEXT) -> Prompt:
    path = folder / "judge.jinja"
    path.write_text(text)
    return Prompt.load(path, judges_pb2.JudgeRequest)


@asynccontextmanager
async def judges(folder: Path, name: str, text: str = TEXT) -> AsyncGenerator[str]:
    """A tool of the SDK's that has one prompt; its address."""
    address = f"unix:{folder}/{name}/t.sock"
    async with llmesh.Server(JudgesServicer, prompts=[prompt_of(folder, text)], address=address, drain_limit_s=0):
        yield address


@asynccontextmanager
async def anything(folder: Path, answer: Answer, name: str = "any") -> AsyncGenerator[str]:
    """A server in some language or other, which answers about its prompts what it likes."""
    server = grpc.aio.server()

    async def list_prompts(_: bytes, __: object) -> bytes:
        return await answer()

    handler = grpc.unary_unary_rpc_method_handler(
        list_prompts,  # pyright: ignore[reportArgumentType] gRPC's stubs know no coroutine here
        request_deserializer=as_sent,
        response_serializer=as_sent,
    )
    service = gateway_prompts.PATH[1:].partition("/")[0]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ListPrompts": handler}),))
    server.add_insecure_port(f"unix:{folder}/{name}.sock")
    await server.start()
    yield f"unix:{folder}/{name}.sock"
    await server.stop(0)


def at(*addresses: str) -> Tool:
    """The ticket tool, at these addresses, all of them ready."""
    made = [tool_of(TICKET_TOOL, COMMON, TICKETS, address=address) for address in addresses]
    endpoints = tuple(each.endpoints[0] for each in made)
    return replace(made[0], endpoints=endpoints, ready=frozenset(endpoints))


def reports_of(*tools: Tool) -> list[Report]:
    """What is reported of their endpoints: that each serves all of the tools that have it."""
    served: dict[Endpoint, tuple[str, ...]] = {}
    for tool in tools:
        for endpoint in tool.endpoints:
            served[endpoint] = (*served.get(endpoint, ()), tool.service)
    return [Report(endpoint, State.READY, services=services) for endpoint, services in served.items()]


async def listed(
    tool: Tool, *others: Tool, caller: Caller = AGENT, reports: Iterable[Report] | None = None
) -> list[pb.ToolPrompt]:
    """What the catalog shows the caller. Raises as the SDK does. reports: None for those of tools that are admitted."""
    async with mesh(tool, *others, reports=reports_of(tool, *others) if reports is None else reports) as running:
        asked = pb.ListPromptsRequest(service=tool.service)
        try:
            answer = await CatalogServiceStub(running.services).ListPrompts(asked, metadata=by(caller), timeout=60)
        except grpc.aio.AioRpcError as err:
            raise error_from_rpc(err) from err
        return list(answer.prompts)


async def test_a_domain_reads_the_prompts_of_its_tools_as_they_serve_them(folder: Path) -> None:
    async with judges(folder, "a") as address:
        (prompt,) = await listed(at(address))

    assert (prompt.name, prompt.text, prompt.digest) == ("judge", TEXT, DIGEST)
    assert prompt.request_type == "acme.testing.v1.JudgeRequest"
    assert (list(prompt.methods), prompt.endpoint_count) == (["acme.testing.v1.Judges/Judge"], 1)


ACTED_FOR = replace(AGENT, actor=DOC_SEARCH)
# Of them, erin may call the tool, and pat everything.
STRANGER = Caller(issuer="test", subject="stranger", domain="support")
OTHERS = [ENGINEER, OVERSEER, ACTED_FOR]


@pytest.mark.parametrize("caller", OTHERS, ids=["another domain", "the platform", "a tool, for one of the domain"])
async def test_callers_of_other_domains_and_tools_do_not_see_them(folder: Path, caller: Caller) -> None:
    async with judges(folder, "a") as address:
        with pytest.raises(Denied) as caught:
            await listed(at(address), caller=caller)

    assert caught.value.reason == "NOT_YOUR_DOMAIN"
    assert "good" not in caught.value.message


async def test_of_a_tool_that_a_caller_does_not_see_they_learn_nothing(folder: Path) -> None:
    async with judges(folder, "a") as address:
        with pytest.raises(NotFound):
            await listed(at(address), caller=STRANGER)


async def test_prompts_of_a_process_that_serves_several_domains_are_nobodys(folder: Path) -> None:
    async with judges(folder, "a") as address:
        with pytest.raises(Denied):
            await listed(at(address), tool_of(DOC_SEARCH, COMMON, DOCS, address=address))


async def test_a_process_that_tries_to_serve_a_tool_of_another_domain_shows_none(folder: Path) -> None:
    async with judges(folder, "a") as address:
        tool = at(address)
        (report,) = reports_of(tool)
        refused = Step("owner", passed=False, service=DOC_SEARCH, reason="NOT_OWNED")
        with pytest.raises(Denied):
            await listed(tool, reports=[replace(report, steps=(refused,))])


async def test_a_process_of_which_nothing_is_reported_shows_none(folder: Path) -> None:
    async with judges(folder, "a") as address:
        with pytest.raises(Denied):
            await listed(at(address), reports=[])


async def test_while_endpoints_have_different_ones_all_are_shown(folder: Path) -> None:
    async with judges(folder, "a") as one, judges(folder, "b") as two, judges(folder, "c", "New {{ text }}") as three:
        found = await listed(at(one, two, three))

    assert sorted((each.text, each.endpoint_count) for each in found) == [(TEXT, 2), ("New {{ text }}", 1)]


async def test_a_tool_that_says_nothing_of_prompts_has_none(folder: Path) -> None:
    server = grpc.aio.server()
    server.add_insecure_port(f"unix:{folder}/x.sock")
    await server.start()
    assert await listed(at(f"unix:{folder}/x.sock")) == []
    await server.stop(0)

    address = f"unix:{folder}/s/t.sock"
    async with llmesh.Server(EchoServicer(), address=address, drain_limit_s=0):  # pyright: ignore[reportAbstractUsage]
        assert await listed(at(address)) == []


async def test_where_no_endpoint_answers_the_caller_is_told(folder: Path) -> None:
    with pytest.raises(Unavailable, match="no endpoint of"):
        await listed(at(f"unix:{folder}/gone.sock"))


def saying(*prompts: told.Prompt) -> Answer:
    async def answer() -> bytes:
        return told.ListPromptsResponse(prompts=prompts).SerializeToString()

    return answer


async def garbage() -> bytes:
    return b"\xff\xff"


async def test_a_tool_in_another_language_shows_its_prompts_too(folder: Path) -> None:
    async with anything(folder, saying(told.Prompt(name="triage", text=TEXT))) as address:
        (prompt,) = await listed(at(address))

    assert (prompt.name, prompt.digest) == ("triage", DIGEST)


async def test_what_acts_on_a_terminal_is_not_shown(folder: Path) -> None:
    nasty = told.Prompt(name="a\x1b[2J", text="b\x1b]0;c\x07\u202ed\n", request_type="e\r", methods=["f\x00"])
    async with anything(folder, saying(nasty)) as address:
        (prompt,) = await listed(at(address))

    shown = (prompt.name, prompt.text, prompt.request_type, *prompt.methods)
    assert shown == ("a\ufffd[2J", "b\ufffd]0;c\ufffd\ufffdd\n", "e\ufffd", "f\ufffd")
    assert prompt.digest == hashlib.sha256(nasty.text.encode()).hexdigest()


LARGE = saying(told.Prompt(name="x", text="y" * gateway_prompts.MESSAGE_BYTES))
ELSE = [(garbage, "its answer is no message"), (LARGE, "its answer has more than 1048576 bytes")]


@pytest.mark.parametrize(("answer", "why"), ELSE, ids=["no message", "too large"])
async def test_an_endpoint_that_says_something_else_is_left_out(folder: Path, answer: Answer, why: str) -> None:
    async with anything(folder, answer) as hostile, judges(folder, "a") as good:
        found = await listed(at(hostile, good))
        with pytest.raises(Unavailable, match=why):
            await listed(at(hostile))

    assert [each.name for each in found] == ["judge"]


async def test_an_endpoint_that_never_answers_is_not_waited_for(folder: Path) -> None:
    async def never() -> bytes:
        await asyncio.Event().wait()
        return b""

    async with anything(folder, never) as hanging:
        with pytest.raises(Unavailable, match="it did not answer in time"):
            await Prompts(answer_within_s=0.2).of(at(hanging))


async def test_a_domain_whose_tool_hangs_keeps_no_other_from_its_prompts(folder: Path) -> None:
    async def never() -> bytes:
        asked.release()
        await asyncio.Event().wait()
        return b""

    asked = asyncio.Semaphore(0)
    prompts = Prompts(answer_within_s=600)
    async with anything(folder, never) as hanging, judges(folder, "a") as good, asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(prompts.of(at(hanging))) for _ in range(2 * AT_ONCE)]
        for _ in range(AT_ONCE):
            await asked.acquire()
        found = await asyncio.wait_for(prompts.of(replace(at(good), domain="finance")), 60)
        for each in waiting:
            each.cancel()

    assert [each.name for each in found] == ["judge"]


async def test_as_much_as_the_sdk_serves_is_shown(folder: Path) -> None:
    prompts = [Prompt.load(written(folder, f"p{number:02}", 15_900), judges_pb2.JudgeRequest) for number in range(63)]
    address = f"unix:{folder}/a/t.sock"
    async with llmesh.Server(JudgesServicer, prompts=[prompt_of(folder), *prompts], address=address, drain_limit_s=0):
        assert len(await listed(at(address))) == PROMPTS_MAX


def written(folder: Path, name: str, length: int) -> Path:
    """A file of a prompt."""
    path = folder / f"{name}.jinja"
    path.write_text("x" * length)
    return path


async def test_no_more_is_shown_than_the_bounds(folder: Path) -> None:
    many = [told.Prompt(name=f"p{number:04}" * 100) for number in range(2 * PROMPTS_MAX)]
    many[0].methods.extend(["m" * 2000] * 200)
    asked = 0

    async def counted() -> bytes:
        nonlocal asked
        asked += 1
        return await answer()

    answer = saying(*many)
    async with anything(folder, counted) as one:
        found = await Prompts(answer_within_s=60).of(at(*[f"{one}"] * (ENDPOINTS_MAX + 3)))

    assert (len(found), asked) == (PROMPTS_MAX, ENDPOINTS_MAX)
    assert {len(each.name) for each in found} == {255}
    assert (len(found[0].methods), len(found[0].methods[0])) == (PROMPTS_MAX, 510)
