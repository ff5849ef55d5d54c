"""Every server that lies, breaks or strains the mesh, with what must become of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from tests.gateway.discovery.world import (
    V1,
    V1ALPHA,
    Answer,
    contract,
    file_answer,
    honest,
    lying,
    serving,
)
from tests.hostile import contracts as made
from tests.hostile import wire

Served = Callable[[str], AbstractAsyncContextManager[object]]
Failure = tuple[str, str]
BIG_BYTES = 7_600_000
# As long as there may be files.
CHAIN = 1000
# Endpoints with two contracts of one service -> the methods that each has beside Get.
ROLLED_OUT: Mapping[str, tuple[str, ...]] = {"rollsold": (), "rollsnew": ("Put",)}


@dataclass(frozen=True, slots=True)
class Case:
    """One server.

    serve: run it at a path, until the block ends. refused: service -> the step
    it fails at and the reason; "" is the endpoint as a whole. admitted: the
    services that are on the mesh nevertheless.
    """

    name: str
    serve: Served
    refused: Mapping[str, Failure] = field(default_factory=dict[str, Failure])
    admitted: tuple[str, ...] = ()

    def address(self, folder: str) -> str:
        """Where it is served."""
        return f"unix:{folder}/{self.name}.sock"


def bad(case: str) -> str:
    """The service of a case that lies."""
    return f"{made.package(case)}.Bad"


def good(case: str) -> str:
    """The service beside it that does not."""
    return f"{made.package(case)}.Good"


def reflecting(answer: Answer, *paths: str) -> Served:
    """Reflection that gives these answers, at these paths."""
    return lambda path: serving(f"unix:{path}", answer, paths=paths or (V1,))


def misbehaving(misbehave: wire.Misbehave) -> Served:
    """A server that does this with every call."""
    return lambda path: wire.misbehaving(path, misbehave)


def admitted(name: str, answer: Answer, *paths: str) -> Case:
    """A server that is odd, and in the right."""
    return Case(name, reflecting(answer, *paths), admitted=(bad(name),))


def beside_good(name: str, step: str, reason: str, *files: FileDescriptorProto | bytes, **more: object) -> Case:
    """A server with a good service, and with one for which it sends these files."""
    truth = honest(made.tool_file(name, "Good"), listed=[good(name), bad(name)])
    lies: dict[str, ServerReflectionResponse | Answer] = {bad(name): file_answer(*files), **more}  # pyright: ignore[reportAssignmentType] - passed on
    return Case(name, reflecting(lying(truth, lies)), {bad(name): (step, reason)}, (good(name),))


async def never(_request: ServerReflectionRequest) -> ServerReflectionResponse:
    """No answer."""
    await asyncio.Event().wait()
    raise AssertionError


def all_in_one(*files: FileDescriptorProto) -> Answer:
    """Reflection that answers every question with the same files."""
    truth = honest(*files)

    async def answer(request: ServerReflectionRequest) -> ServerReflectionResponse:
        return await truth(request) if request.HasField("list_services") else file_answer(*files)

    return answer


def failing(code: grpc.StatusCode) -> Served:
    """A server that ends every call to reflection with a code."""

    async def fail(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.abort(code, "\x1b[2J" + "no" * 1000)

    return _handled(fail)


async def nonsense(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    """An answer that is no message."""
    await context.write(b"\xff" * 9)


async def nothing(_: object, __: object) -> None:
    """The end, and no answer."""


def flooding(answer: Answer) -> Served:
    """A server that goes on answering for as long as it is let."""

    async def flood(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        content = await context.read()
        assert isinstance(content, bytes)
        reply = (await answer(ServerReflectionRequest.FromString(content))).SerializeToString()
        while True:
            await context.write(reply)

    return _handled(flood)


def _handled(handle: Callable[..., object], *settings: tuple[str, int]) -> Served:
    @asynccontextmanager
    async def serve(path: str) -> AsyncGenerator[None]:
        server = grpc.aio.server(options=settings)
        _, service, method = V1.split("/")
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(handle)  # pyright: ignore[reportArgumentType] - async is right here
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)

    return serve


def changing(name: str) -> Served:
    """A server with another contract at each look, which soon hangs up so as to be looked at again."""
    numbers = count()

    async def answer(requests: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
        async for content in requests:
            request = ServerReflectionRequest.FromString(content)
            truth = honest(made.tool_file(name, fields=["id", f"field_{next(numbers)}"]))
            yield (await truth(request)).SerializeToString()

    return _handled(answer, ("grpc.max_connection_age_ms", 300), ("grpc.max_connection_age_grace_ms", 5000))


def _transport() -> Iterator[Case]:
    """Servers that do not even answer."""
    yield Case("hangs", reflecting(never), {"": ("reflect", "TIMEOUT")})
    yield Case("drips", misbehaving(wire.drip), {"": ("reflect", "TIMEOUT")})
    yield Case("resets", misbehaving(wire.reset), {"": ("reflect", "REFLECTION_FAILED")})
    yield Case("hangsup", misbehaving(wire.hang_up), {"": ("connect", "UNREACHABLE")})
    yield Case("overstates", misbehaving(wire.overstate), {"": ("reflect", "CONTRACT_TOO_LARGE")})
    yield Case("babbles", wire.babbling, {"": ("connect", "UNREACHABLE")})
    yield Case("unimplemented", failing(grpc.StatusCode.UNIMPLEMENTED), {"": ("reflect", "NO_REFLECTION")})
    yield Case("fails", failing(grpc.StatusCode.INTERNAL), {"": ("reflect", "REFLECTION_FAILED")})
    yield Case("cancels", failing(grpc.StatusCode.CANCELLED), {"": ("reflect", "REFLECTION_FAILED")})
    yield Case("nonsense", _handled(nonsense), {"": ("reflect", "BAD_ANSWER")})
    yield Case("ends", _handled(nothing), {"": ("reflect", "NO_ANSWER")})
    yield Case("changes", changing("changes"), {"": ("connect", "UNSTABLE_CONTRACT")}, (bad("changes"),))
    name = "floods"
    yield Case(name, flooding(honest(made.tool_file(name))), admitted=(bad(name),))
    hung = beside_good("hangslater", "reflect", "TIMEOUT")
    truth = honest(made.tool_file(hung.name, "Good"), listed=[good(hung.name), bad(hung.name)])
    yield Case(hung.name, reflecting(lying(truth, {bad(hung.name): never})), hung.refused, hung.admitted)


def _sizes() -> Iterator[Case]:
    """Servers that send much."""
    yield admitted("big", all_in_one(*made.large("big", BIG_BYTES)))
    too_large = all_in_one(*made.large("toolarge", 9_000_000))
    yield Case("toolarge", reflecting(too_large), {bad("toolarge"): ("reflect", "CONTRACT_TOO_LARGE")})
    too_dense = all_in_one(*made.dense("toodense", BIG_BYTES))
    yield Case("toodense", reflecting(too_dense), {bad("toodense"): ("link", "CONTRACT_TOO_LARGE")})
    name = "largefile"
    yield beside_good(name, "reflect", "FILE_TOO_LARGE", *made.large(name, 1_200_000, part_bytes=1_200_000))
    many = made.many_services("many", 200)
    names = [f"{many.package}.{each.name}" for each in many.service]
    yield Case("many", reflecting(honest(many)), admitted=tuple(names))
    listed = [f"{made.package('lists')}.S{number}" for number in range(2000)]
    yield Case("lists", reflecting(honest(listed=listed)), {"": ("reflect", "TOO_MANY_SERVICES")})
    yield Case("nothing", reflecting(honest(listed=[])), {"": ("reflect", "NO_SERVICES")})

    async def endless(request: ServerReflectionRequest) -> ServerReflectionResponse:
        first = int(request.file_by_filename.partition(".")[0])
        numbers = range(first, first + 100)
        return file_answer(*(made.plain_file("endless", f"{each}.proto", f"{each + 1}.proto") for each in numbers))

    truth = honest(made.tool_file("endless", imports=["1.proto"]))
    lies: dict[str, ServerReflectionResponse | Answer] = {f"{number}.proto": endless for number in range(1, 1100)}
    yield Case("endless", reflecting(lying(truth, lies)), {bad("endless"): ("reflect", "CONTRACT_TOO_LARGE")})


def _files() -> Iterator[Case]:
    """Servers that send files that do not make a contract."""
    yield beside_good("wrongfile", "reflect", "WRONG_FILE", made.plain_file("wrongfile", "x.proto"))
    yield beside_good("nofile", "reflect", "WRONG_FILE")
    name = "missing"
    truth = honest(made.tool_file(name, "Good"), listed=[bad(name), good(name)])
    yield Case(name, reflecting(truth), {bad(name): ("reflect", "MISSING_FILE")}, (good(name),))
    name = "noimport"
    yield beside_good(name, "reflect", "MISSING_FILE", made.tool_file(name, imports=["nowhere.proto"]))
    name = "noweak"
    weak = made.tool_file(name, imports=["nowhere.proto"])
    weak.weak_dependency.append(1)
    yield beside_good(name, "reflect", "MISSING_FILE", weak)
    name = "circular"
    first, second = made.plain_file(name, "a.proto", "b.proto"), made.plain_file(name, "b.proto", "a.proto")
    yield beside_good(name, "link", "CIRCULAR_IMPORT", made.tool_file(name, imports=["a.proto"]), first, second)
    name = "wrongimport"
    other = made.plain_file(name, "other.proto")
    asked = made.tool_file(name, imports=["asked.proto"])
    yield beside_good(name, "reflect", "MISSING_FILE", asked, **{"asked.proto": file_answer(other)})
    name = "itself"
    own = made.tool_file(name)
    own.dependency.append(own.name)
    yield beside_good(name, "link", "CIRCULAR_IMPORT", own)
    name = "twice"
    twice = made.tool_file(name)
    twice.message_type.add().CopyFrom(twice.message_type[0])
    yield beside_good(name, "link", "LINK_FAILED", twice)
    name = "twicefiles"
    other = made.plain_file(name, "other.proto")
    other.message_type.add(name="BadRequest")
    yield beside_good(name, "link", "LINK_FAILED", made.tool_file(name, imports=[other.name]), other)
    name = "relative"
    relative = made.tool_file(name)
    relative.service[0].method[0].input_type = "BadRequest"
    yield beside_good(name, "link", "RELATIVE_NAME", relative)
    name = "twoforms"
    yield beside_good(
        name,
        "reflect",
        "AMBIGUOUS_FILE",
        made.tool_file(name),
        made.plain_file(name, made.tool_file(name, "Good").name),
    )
    yield beside_good("nobytes", "reflect", "BAD_FILE", b"\xff\xff\xff")
    yield beside_good("badoption", "reflect", "BAD_FILE", made.broken_option("badoption"))
    yield beside_good("nested", "reflect", "BAD_FILE", made.nested("nested", 500))
    yield beside_good(
        "future", "link", "LINK_FAILED", made.in_edition("future", descriptor_pb2.EDITION_99999_TEST_ONLY)
    )


def _odd() -> Iterator[Case]:
    """Contracts that are odd, and right."""
    yield admitted("alpha", honest(made.tool_file("alpha")), V1ALPHA)
    yield admitted("stable", honest(made.tool_file("stable")), V1)
    yield admitted("both", honest(made.tool_file("both")), V1, V1ALPHA)
    for name in ("twina", "twinb"):
        # One file name, other content.
        shared = made.plain_file(name, "shared/common.proto")
        shared.message_type.add(name="Shared")
        held = made.hold(
            made.tool_file(name, imports=[shared.name], name="service.proto"), f"{made.package(name)}.Shared"
        )
        yield admitted(name, honest(held, shared))
    name = "imports"
    chain = [made.plain_file(name, "c.proto"), made.plain_file(name, "b.proto", "c.proto")]
    chain[0].message_type.add(name="Deep")
    chain[1].public_dependency.append(0)
    weak = made.plain_file(name, "weak.proto")
    weak.message_type.add(name="Weak")
    top = made.tool_file(name, imports=["b.proto", "weak.proto"])
    top.weak_dependency.append(2)
    for number, each in enumerate(("Deep", "Weak"), start=90):
        made.hold(top, f"{made.package(name)}.{each}", number=number)
    yield admitted(name, all_in_one(*made.reversed_order([*chain, weak, top])))
    name = "chain"
    links = [made.plain_file(name, f"{number}.proto", f"{number + 1}.proto") for number in range(CHAIN)]
    end = made.plain_file(name, f"{CHAIN}.proto")
    yield admitted(name, all_in_one(made.tool_file(name, imports=["0.proto"]), *links, end))
    yield admitted("proto2", honest(made.old_syntax("proto2")))
    yield admitted("edition", honest(made.in_edition("edition", descriptor_pb2.EDITION_2023)))
    yield admitted("newer", honest(_with_option_import(made.in_edition("newer", descriptor_pb2.EDITION_2024))))
    yield admitted("ownoption", honest(*made.own_option("ownoption")))
    yield admitted("recursive", honest(made.recursive("recursive")))
    for name, methods in ROLLED_OUT.items():
        # One service: of two endpoints the newer one has a method more.
        file = made.tool_file("rolls")
        for method in methods:
            file.service[0].method.add(
                name=method, input_type=".google.protobuf.Empty", output_type=".google.protobuf.Empty"
            )
        file.dependency.append("google/protobuf/empty.proto")
        yield Case(name, reflecting(honest(file)), admitted=(bad("rolls"),))


def _with_option_import(file: FileDescriptorProto) -> FileDescriptorProto:
    """An import that is there for options alone, which nobody needs to read the contract."""
    file.option_dependency.append("nowhere/options.proto")
    return file


def _claims() -> Iterator[Case]:
    """Servers that claim what is not theirs."""
    for name, package, domain, reason in (
        ("elsewhere", "acme.support.hostile.v1", "testing", "DOMAIN_MISMATCH"),
        ("nobodys", "acme.nobody.v1", "testing", "NO_OWNER"),
        ("longer", "acme.testingmore.v1", "testing", "NO_OWNER"),
        ("evil", "google.evil.v1", "testing", "PLATFORM_PACKAGE"),
        ("mesh", "llmesh.api.catalog.v1", "platform", "PLATFORM_PACKAGE"),
    ):
        file = made.in_package(package, domain=domain)
        yield Case(name, reflecting(honest(file)), {f"{package}.Bad": ("own", reason)})
    name = "catalog"
    # The mesh's own service under its own name: what is pinned stands for what was sent.
    file = contract("llmesh.api.catalog.v1", "CatalogService", domain="platform")
    service = f"{file.package}.CatalogService"
    yield Case(name, reflecting(honest(file)), {service: ("own", "PLATFORM_PACKAGE")})
    name = "nooptions"
    yield Case(
        name, reflecting(honest(contract(made.package(name), "Bad", domain=""))), {bad(name): ("options", "NO_OPTIONS")}
    )
    for name, owner, message in (
        ("redefined", "llmesh.api.retrieval.v1", "RetrieveRequest"),
        ("borrowed", "acme.support.v1", "Ticket"),
        ("unowned", "acme.nobody.v1", "Thing"),
    ):
        refused = {bad(name): ("identity", "FOREIGN_TYPE")}
        yield Case(name, reflecting(honest(*made.redefined(name, owner, message))), refused)


def _names() -> Iterator[Case]:
    """Names that were made to break a configuration, a terminal or a path."""
    name = "names"
    odd = ["acme.x/../Y", "acme.\x1b[2JX", "a" * 300, "acme.é.X", "acme..X", " ", "acme.x\r\ny", "\x00"]
    truth = honest(made.tool_file(name, "Good"), listed=[*odd, good(name)])
    yield Case(name, reflecting(truth), dict.fromkeys(map(_printed, odd), ("reflect", "BAD_NAME")), (good(name),))
    yield beside_good("longname", "options", "BAD_NAME", made.with_method("longname", "G" * 999_000))
    for name, method in (
        ("slash", "Get/../../x"),
        ("lines", "Get\r\nx: y"),
        ("nul", "G\x00"),
        ("space", "Get x"),
        ("empty", ""),
    ):
        yield beside_good(name, "link", "LINK_FAILED", made.with_method(name, method))
    yield beside_good("label", "options", "BAD_OPTION", made.with_label("label", "tier", "x" * 990_000))
    yield beside_good("labelkey", "options", "BAD_OPTION", made.with_label("labelkey", "tier\r\n", "x"))
    yield beside_good("summary", "options", "OPTIONS_TOO_LARGE", made.with_text("summary", summary="x" * 990_000))
    yield beside_good("escape", "options", "BAD_OPTION", made.with_text("escape", summary="\x1b]0;owned\x07 \x1b[2J"))
    yield beside_good("title", "options", "BAD_OPTION", made.with_text("title", name="Tool\r\nx-llmesh-roles: owner"))
    yield beside_good("turned", "options", "BAD_OPTION", made.with_text("turned", contact="\u202eko"))
    for name, path in (
        ("pathup", "../../../etc/cron.d/x.proto"),
        ("pathroot", "/etc/x.proto"),
        ("pathback", "..\\x.proto"),
        ("pathlines", "a\nb.proto"),
        ("pathlong", "d/" * 200 + "x.proto"),
    ):
        tricky = made.plain_file(name, path)
        yield beside_good(name, "link", "BAD_FILE_NAME", made.tool_file(name, imports=[path]), tricky)


def _printed(name: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in name[:255])


def cases() -> Iterable[Case]:
    """All of them."""
    for each in (_transport, _sizes, _files, _odd, _claims, _names):
        yield from each()
