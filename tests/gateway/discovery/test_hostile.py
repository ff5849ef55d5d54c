"""Servers whose reflection lies, breaks or never ends: they are refused, and nobody else is harmed.

Every such server at once, on a whole mesh: tests/e2e/test_tools_that_lie.py. Here is what needs limits of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from gateway.catalog import Grant, State, Step
from gateway.reading import health
from gateway.reading.descriptors import Linked, link
from gateway.reading.health import ASKED_AT_ONCE
from gateway.reading.pinned import pinned
from gateway.reading.reflect import CONTRACTS, Limits
from tests.gateway.discovery.world import (
    V1,
    Answer,
    Health,
    World,
    at,
    contract,
    file_answer,
    honest,
    lying,
    serving,
    small_world,
)

TICKETS = "acme.support.v1.Tickets"
GOOD = "acme.support.v1.Good"
OPTIONS = "llmesh/api/options/v1/options.proto"


def about_symbol(*files: FileDescriptorProto | bytes) -> dict[str, ServerReflectionResponse]:
    return {TICKETS: file_answer(*files)}


def with_file(name: str, *imports: str) -> FileDescriptorProto:
    return FileDescriptorProto(name=name, package="acme.support.v1", syntax="proto3", dependency=imports)


def importing(*names: str, **lies: FileDescriptorProto) -> dict[str, ServerReflectionResponse]:
    """Tickets imports these files; lies are the files sent for them."""
    answers = about_symbol(contract(imports=names))
    for name, file in zip(names, lies.values(), strict=False):
        answers[name] = file_answer(file)
    return answers


@asynccontextmanager
async def beside_a_good_one(world: World, lies: Mapping[str, ServerReflectionResponse | Answer]) -> AsyncGenerator[str]:
    """An endpoint with a good service and one that reflection lies about."""
    endpoint = at(world.folder)
    truth = honest(contract(service="Good"), contract(), listed=[GOOD, TICKETS])
    async with serving(endpoint.address, lying(truth, lies)):
        world.source.name(endpoint)
        yield endpoint.address


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.CANCELLED])
async def test_a_server_that_ends_the_stream_instead_of_answering_loses_that_service_only(
    code: grpc.StatusCode,
) -> None:
    endings = {TICKETS: code}
    async with small_world() as world, breaking(world, endings) as address:
        assert (await world.failure(address, TICKETS)).name == "reflect"
        assert (await world.until(lambda each: each.tools)).tools.keys() == {GOOD}


@asynccontextmanager
async def breaking(world: World, endings: Mapping[str, grpc.StatusCode]) -> AsyncGenerator[str]:
    """An endpoint whose reflection ends the stream with a code when it is asked for some symbols."""
    endpoint = at(world.folder)
    truth = honest(contract(service="Good"), contract(), listed=[TICKETS, GOOD])
    context: list[grpc.aio.ServicerContext[bytes, bytes]] = []

    async def reflect(_: object, given: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        context.append(given)
        while (content := await given.read()) is not grpc.aio.EOF:
            assert isinstance(content, bytes)
            request = ServerReflectionRequest.FromString(content)
            code = endings.get(request.file_containing_symbol)
            if code is not None:
                await given.abort(code, "no")
            await given.write((await truth(request)).SerializeToString())

    server = grpc.aio.server()
    _, service, method = V1.split("/")
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(reflect)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    server.add_insecure_port(endpoint.address)
    await server.start()
    world.source.name(endpoint)
    try:
        yield endpoint.address
    finally:
        await server.stop(0)


async def never(_request: ServerReflectionRequest) -> ServerReflectionResponse:
    await asyncio.Event().wait()
    raise AssertionError


def never_within(span_s: float) -> Answer:
    """An answer that never comes, by a clock on which the span has passed as soon as it is asked for.

    So no test waits for what hangs, and none needs a machine that is quick to answer otherwise.
    """

    async def hang(request: ServerReflectionRequest) -> ServerReflectionResponse:
        loop = asyncio.get_running_loop()
        time_s = loop.time
        # Of this test's loop alone, which ends with it.
        setattr(loop, "time", lambda: time_s() + span_s)  # noqa: B010 - no type says that it may be set
        return await never(request)

    return hang


async def refused_under(limits: Limits, lies: Mapping[str, ServerReflectionResponse | Answer]) -> tuple[Step, set[str]]:
    """How Tickets fails under the limits, and what is admitted nevertheless."""
    async with small_world(limits) as world, beside_a_good_one(world, lies) as address:
        step = await world.failure(address, TICKETS)
        return step, set(world.board.current.tools)


async def test_a_server_that_never_answers_is_given_up_and_what_it_said_before_counts() -> None:
    limits = Limits()
    step, admitted = await refused_under(limits, {TICKETS: never_within(limits.timeout_s)})
    assert (step.reason, admitted) == ("TIMEOUT", {GOOD})


async def test_a_server_too_slow_to_be_read_in_one_go_is_read_in_several() -> None:
    names = ("One", "Two", "Three", "Four")
    truth, left, limits = honest(*(contract(service=name) for name in names)), 0, Limits()
    late = never_within(limits.timeout_s)

    async def two_in_a_go(request: ServerReflectionRequest) -> ServerReflectionResponse:
        nonlocal left
        left = 2 if request.HasField("list_services") else left - 1
        return await (truth if left >= 0 else late)(request)

    async with small_world(limits) as world:
        endpoint = at(world.folder)
        async with serving(endpoint.address, two_in_a_go):
            world.source.name(endpoint)
            catalog = await world.until(lambda each: len(each.tools) == len(names))
    assert catalog.tools.keys() == {f"acme.support.v1.{name}" for name in names}


async def test_a_file_that_is_too_large_is_refused() -> None:
    large = contract(fields=[f"field_{number}" for number in range(100)])
    step, admitted = await refused_under(Limits(file_bytes=1000), about_symbol(large))
    assert (step.reason, admitted) == ("FILE_TOO_LARGE", {GOOD})


# What contract() defines: two messages with a field each, a service and a method.
DEFINED = 6


async def test_a_contract_that_defines_too_much_is_refused() -> None:
    large = contract()
    large.enum_type.add(name="Kind").value.add(name="KIND_UNSPECIFIED")
    large.message_type[0].nested_type.add(name="Inner").field.add(name="id", number=1, type=9, label=1)
    step, admitted = await refused_under(Limits(definitions=DEFINED + 3), about_symbol(large))
    assert (step.name, step.reason, admitted) == ("link", "CONTRACT_TOO_LARGE", {GOOD})
    async with small_world(Limits(definitions=DEFINED + 4)) as world, beside_a_good_one(world, about_symbol(large)):
        await world.until(lambda each: {*each.tools} == {GOOD, TICKETS})


async def test_contracts_that_define_too_much_together_are_refused() -> None:
    files = [contract(service=f"S{number}") for number in range(CONTRACTS + 2)]
    async with small_world(Limits(definitions=DEFINED)) as world:
        endpoint = at(world.folder)
        async with serving(endpoint.address, honest(*files)):
            world.source.name(endpoint)
            catalog = await world.until(lambda each: each.tools)
    refused = [step.reason for step in catalog.reports[endpoint.address].steps if not step.passed]
    assert (len(catalog.tools), refused) == (CONTRACTS, ["CONTRACT_TOO_LARGE"] * 2)


async def test_files_without_end_are_refused() -> None:
    async def endless(request: ServerReflectionRequest) -> ServerReflectionResponse:
        number = int(request.file_by_filename or "0")
        return file_answer(with_file(str(number), str(number + 1)))

    numbers: dict[str, ServerReflectionResponse | Answer] = {str(number): endless for number in range(1, 50)}
    step, admitted = await refused_under(Limits(files=20), {**importing("1"), **numbers})
    assert (step.reason, admitted) == ("CONTRACT_TOO_LARGE", {GOOD})


async def test_an_answer_beyond_what_is_received_is_refused() -> None:
    large = contract(fields=[f"field_{number}" for number in range(10_000)])
    step, _ = await refused_under(Limits(endpoint_bytes=10_000), about_symbol(large))
    assert step.reason == "CONTRACT_TOO_LARGE"


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ([], "NO_SERVICES"),
        (["grpc.health.v1.Health"], "NO_SERVICES"),
        ([f"a.S{number}" for number in range(30)], "TOO_MANY_SERVICES"),
    ],
)
async def test_a_server_that_lists_no_tool_or_too_many_is_refused(listed: list[str], reason: str) -> None:
    async with small_world(Limits(files=20)) as world:
        endpoint = at(world.folder)
        async with serving(endpoint.address, honest(contract(), listed=listed)):
            world.source.name(endpoint)
            assert (await world.failure(endpoint.address)).reason == reason


async def test_a_service_in_a_package_of_the_platform_is_refused() -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        async with serving(endpoint.address, honest(contract("llmesh.api.evil.v1", "Evil", domain="platform"))):
            world.source.name(endpoint)
            step = await world.failure(endpoint.address, "llmesh.api.evil.v1.Evil")
            assert (step.name, step.reason) == ("own", "PLATFORM_PACKAGE")


async def test_the_platforms_files_are_our_own_copies_whatever_a_tool_sends() -> None:
    forged = FileDescriptorProto.FromString(pinned()[OPTIONS].SerializeToString())
    forged.message_type[0].field[0].name = "forged"
    async with small_world() as world, beside_a_good_one(world, {TICKETS: file_answer(contract(), forged)}):
        catalog = await world.until(lambda each: len(each.tools) == 2)
    files = {file.name: file for file in catalog.tools[TICKETS].contract.files}
    assert files[OPTIONS] == pinned()[OPTIONS]


async def test_a_name_that_no_service_can_have_is_never_asked_for_and_is_safe_to_print() -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        names = ["acme.x/../Y", "acme.\x1b[2JX", "a" * 300, "acme.support.v1.Good"]
        async with serving(endpoint.address, honest(contract(service="Good"), listed=names)):
            world.source.name(endpoint)
            catalog = await world.until(lambda each: each.tools)
    steps = [step for step in catalog.reports[endpoint.address].steps if not step.passed]
    assert [step.reason for step in steps] == ["BAD_NAME"] * 3
    assert all(step.service.isprintable() for step in steps)


async def test_a_contract_that_breaks_the_reader_costs_no_other_and_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: set[threading.Thread] = set()

    def read(service: str, *arguments: Any, **options: Any) -> Linked:
        threads.add(threading.current_thread())
        if service == TICKETS:
            raise LookupError(service)
        return link(service, *arguments, **options)

    monkeypatch.setattr("gateway.reading.contracts.link", read)
    async with small_world() as world, beside_a_good_one(world, {}) as address:
        step = await world.failure(address, TICKETS)
        assert (step.name, step.reason) == ("link", "INTERNAL")
        assert (await world.until(lambda each: each.tools)).tools.keys() == {GOOD}
    assert threading.main_thread() not in threads


async def test_servers_that_hang_keep_nobody_else_waiting() -> None:
    # One goes on beside the quick lane, one in the slow one, and one waits for that. By the real clock, with a span
    # that is enough for the good one on a machine that is slow: another would be late for all at once.
    async with small_world(Limits(timeout_s=600, quick_s=3, at_once=1)) as world, AsyncExitStack() as servers:
        hanging = [at(world.folder, f"hangs{number}") for number in range(3)]
        for endpoint in hanging:
            await servers.enter_async_context(serving(endpoint.address, never))
        good = at(world.folder, "zgood")
        await servers.enter_async_context(serving(good.address, honest(contract(service="Good"))))
        world.source.name(*hanging)
        await world.until(lambda catalog: len(catalog.reports) == len(hanging))
        world.source.name(*hanging, good)
        await world.until(lambda catalog: GOOD in catalog.tools)
        assert all(world.board.current.reports[each.address].state is State.PENDING for each in hanging)


async def test_what_many_services_import_counts_for_each_of_them() -> None:
    shared = contract("acme.support.v1", "Shared", name="shared.proto", fields=[f"field_{n}" for n in range(500)])
    files = [contract(service=f"S{number}", imports=[shared.name]) for number in range(8)]
    for file in files:
        del file.dependency[0]
        file.service[0].ClearField("options")
    size = shared.ByteSize()
    async with small_world(Limits(endpoint_bytes=size + 5000)) as world:
        grants = [Grant(f"acme.support.v1.S{number}", "support", "team") for number in range(8)]
        endpoint = at(world.folder, "tool", *grants)
        del shared.service[:]
        shared.ClearField("dependency")
        async with serving(endpoint.address, honest(*files, shared)):
            world.source.name(endpoint)
            catalog = await world.until(lambda each: each.tools)
    refused = [step.reason for step in catalog.reports[endpoint.address].steps if not step.passed]
    assert set(refused) == {"CONTRACT_TOO_LARGE"}
    assert 0 < len(catalog.tools) < len(files)


async def test_a_server_whose_contract_keeps_changing_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.reading.watch.CHANGES_MAX", 2)
    async with small_world() as world:
        endpoint = at(world.folder)
        world.source.name(endpoint)
        for name in "abc":
            file = contract(fields=[name])
            digest = link(TICKETS, [file]).contract.digest
            async with serving(endpoint.address, honest(file)):
                await world.until(
                    lambda each, digest=digest: TICKETS in each.tools and each.tools[TICKETS].contract.digest == digest
                )
        await world.until(lambda each: each.reports[endpoint.address].steps[0].reason == "UNSTABLE_CONTRACT")
        assert not world.board.current.tools[TICKETS].ready


# Of the loop, in which whatever was sent arrives.
TURNS = 200


class Crowded(Health):
    """Answers nobody before so many ask at once, and all who could have asked as well. most: how many ever did."""

    def __init__(self, *services: str) -> None:
        super().__init__(HealthCheckResponse.SERVING, *services)
        self.asking = self.most = 0
        self.full = asyncio.Event()

    async def check(
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext[HealthCheckRequest, HealthCheckResponse]
    ) -> HealthCheckResponse:
        self.asking += 1
        self.most = max(self.most, self.asking)
        if self.asking == ASKED_AT_ONCE:
            self.full.set()
        await self.full.wait()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        self.asking -= 1
        return await super().check(request, context)


async def test_a_server_of_many_services_is_asked_about_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FIRST_ANSWER_S", 60)
    files = [contract(service=f"S{number}") for number in range(4 * ASKED_AT_ONCE)]
    said = Crowded(*(f"acme.support.v1.S{number}" for number in range(len(files))))
    async with small_world() as world:
        endpoint = at(world.folder)
        async with serving(endpoint.address, honest(*files), health=said):
            world.source.name(endpoint)
            tools = (await world.until(lambda each: len(each.tools) == len(files))).tools
    assert all(tool.health_checked for tool in tools.values())
    assert said.most == ASKED_AT_ONCE
