"""Ask a server what it serves, by gRPC server reflection.

Whatever comes back was chosen by the peer: every answer is bounded, checked
and, where it is wrong, refused for the one service that needs it.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from gateway.catalog import Step
from gateway.reading.calls import as_sent, read_next
from gateway.reading.refusal import Refusal, Unreachable, printable
from gateway.reading.texts import all_texts
from governance.contract.types import service_in

__all__ = ["CONTRACTS", "Limits", "Reading", "Reflected", "is_full_name", "parse_file", "reflect"]

# v1 is v1alpha under another name: the messages are the same on the wire.
PATHS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
# Services that servers carry besides their tools.
NOT_TOOLS = "grpc."
NAME_MAX = 255
# Of contracts as large as one may be, and as all that an endpoint may send, so many are read.
CONTRACTS = 4
# Streams that were answered and that the server has not ended, before we end them.
OPEN_STREAMS = 16
FULL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an endpoint may send, and how long it may take, to say what it serves.

    definitions: how many messages, fields, values and methods a contract may
    define, which is what reading it costs. at_once: how many endpoints are
    looked at at one time. quick_s: who takes longer goes on in a lane of its
    own, so that nobody waits behind it.
    """

    file_bytes: int = 1 << 20
    files: int = 1024
    endpoint_bytes: int = 8 << 20
    definitions: int = 1 << 16
    timeout_s: float = 10.0
    at_once: int = 16
    quick_s: float = 2.0

    @property
    def message_bytes(self) -> int:
        """The largest answer to receive: servers may send all files in one."""
        return self.endpoint_bytes + (64 << 10)

    @property
    def contracts_bytes(self) -> int:
        """How much its contracts may come to, a file counted for each that imports it: what they cost to read."""
        return CONTRACTS * self.endpoint_bytes


@dataclass(frozen=True, slots=True)
class Reflected:
    """What an endpoint says it serves.

    services: full name -> the files that its contract needs, as sent, without
    those that the platform pins. failures: the services that could not be read.
    size_bytes: of all files together.
    """

    services: Mapping[str, tuple[FileDescriptorProto, ...]]
    failures: tuple[Step, ...] = ()
    size_bytes: int = 0


class _Exhausted(Refusal):
    """The endpoint has used up what it may send; nothing more is asked of it."""


class _UnimplementedPath(Refusal):
    """The server has no reflection of that version."""


async def reflect(channel: grpc.aio.Channel, limits: Limits, *, pinned: Mapping[str, FileDescriptorProto]) -> Reflected:
    """What the server at the other end serves, besides reflection and health.

    pinned: files that are never asked for. Raises Refusal if it cannot be
    asked, Unreachable if it went away.
    """
    return await Reading(limits, pinned=pinned).go_on(channel)


@dataclass(slots=True)
class Reading:
    """What one process has sent of its contracts, within its limits, in as many goes as it takes.

    A go that ran out of time, or was cancelled, leaves what was read to the
    next: however slow the machine, each go adds to it.
    """

    limits: Limits
    pinned: Mapping[str, FileDescriptorProto] = field(kw_only=True)
    _files: _Files = field(init=False)
    _services: dict[str, tuple[FileDescriptorProto, ...]] = field(
        init=False, default_factory=dict[str, tuple[FileDescriptorProto, ...]]
    )

    def __post_init__(self) -> None:
        """Nothing is read yet."""
        self._files = _Files(self.limits, pinned=self.pinned)

    async def go_on(self, channel: grpc.aio.Channel) -> Reflected:
        """Read what is not read yet. Raises as `reflect` does."""
        deadline_s = asyncio.get_running_loop().time() + self.limits.timeout_s
        for path in PATHS:
            session = _Session(channel, path, deadline_s)
            try:
                names = await session.services()
            except _UnimplementedPath:
                continue
            else:
                return await self._read(session, names)
            finally:
                session.close()
        raise Refusal(
            "NO_REFLECTION", "the server has no gRPC reflection: serve it, so that the mesh can read the contract"
        )

    async def _read(self, session: _Session, names: Sequence[str]) -> Reflected:
        if len(names) > self.limits.files:
            raise Refusal(
                "TOO_MANY_SERVICES", f"reflection lists {len(names)} services; at most {self.limits.files} are read"
            )
        failures: list[Step] = []
        spent: _Exhausted | None = None
        tools = dict.fromkeys(name for name in names if not name.startswith(NOT_TOOLS))
        for name in [each for each in tools if each not in self._services]:
            try:
                if spent is not None:
                    raise spent
                self._services[name] = await self._files.of_service(session, name)
            except _Exhausted as refusal:
                spent = refusal
                failures.append(refusal.step("reflect", printable(name[:NAME_MAX])))
            except Unreachable:
                raise
            except Refusal as refusal:
                failures.append(refusal.step("reflect", printable(name[:NAME_MAX])))
        services = {name: self._services[name] for name in tools if name in self._services}
        return Reflected(services, tuple(failures), self._files.size_bytes)


@dataclass(slots=True)
class _Files:
    """The files one endpoint has sent, within its limits."""

    limits: Limits
    pinned: Mapping[str, FileDescriptorProto] = field(kw_only=True)
    received: dict[str, bytes] = field(default_factory=dict[str, bytes])
    parsed: dict[str, FileDescriptorProto] = field(default_factory=dict[str, FileDescriptorProto])
    read: dict[bytes, FileDescriptorProto] = field(default_factory=dict[bytes, FileDescriptorProto])
    size_bytes: int = 0
    contracts: dict[str, int] = field(default_factory=dict[str, int])

    async def of_service(self, session: _Session, name: str) -> tuple[FileDescriptorProto, ...]:
        """The service's file and all that it imports, pinned ones left out."""
        if not is_full_name(name):
            raise Refusal("BAD_NAME", f"that is no service's full name of at most {NAME_MAX} characters")
        sent = self._keep(await session.ask(ServerReflectionRequest(file_containing_symbol=name)))
        found = service_in(sent, name)
        if found is None:
            raise Refusal("WRONG_FILE", f"reflection answered with files that do not define `{name}`")
        needed: dict[str, FileDescriptorProto] = {}
        waiting = [found[0].name]
        while waiting:
            each = waiting.pop()
            if each not in needed and each not in self.pinned:
                needed[each] = await self._file(session, each)
                waiting.extend(needed[each].dependency)
        # Services of one file have one contract.
        self.contracts[found[0].name] = sum(len(self.received[each]) for each in needed)
        if sum(self.contracts.values()) > self.limits.contracts_bytes:
            limit = f"{self.limits.contracts_bytes} bytes, a file counted for each contract that imports it"
            raise _Exhausted("CONTRACT_TOO_LARGE", f"the endpoint's contracts come to more than {limit}")
        return tuple(needed.values())

    async def _file(self, session: _Session, name: str) -> FileDescriptorProto:
        if name not in self.parsed:
            self._keep(await session.ask(ServerReflectionRequest(file_by_filename=name)))
        if name not in self.parsed:
            raise Refusal("MISSING_FILE", f"the contract imports `{name[:NAME_MAX]}`, which reflection does not send")
        return self.parsed[name]

    def _keep(self, answer: ServerReflectionResponse) -> list[FileDescriptorProto]:
        """Take the files of an answer in. Raises Refusal for one that is too large, broken or sent in two forms."""
        sent: list[FileDescriptorProto] = []
        for content in answer.file_descriptor_response.file_descriptor_proto:
            if len(content) > self.limits.file_bytes:
                raise Refusal("FILE_TOO_LARGE", f"a file of the contract exceeds {self.limits.file_bytes} bytes")
            # Servers send what many services import along with each of them.
            file = self.read.get(content)
            if file is None:
                file = parse_file(content)
                if file.name in self.received:
                    raise Refusal("AMBIGUOUS_FILE", f"reflection sends `{file.name[:NAME_MAX]}` in two forms")
                self._count(content)
                self.received[file.name] = content
                self.parsed[file.name] = self.read[content] = file
            sent.append(file)
        return sent

    def _count(self, content: bytes) -> None:
        self.size_bytes += len(content)
        if self.size_bytes > self.limits.endpoint_bytes or len(self.received) >= self.limits.files:
            limit = f"{self.limits.files} files or {self.limits.endpoint_bytes} bytes"
            raise _Exhausted("CONTRACT_TOO_LARGE", f"the endpoint's contracts exceed {limit}")


def is_full_name(name: str) -> bool:
    """Whether a service can be called that."""
    return len(name) <= NAME_MAX and FULL_NAME.fullmatch(name) is not None


def parse_file(content: bytes) -> FileDescriptorProto:
    """A file as it was sent. Raises Refusal."""
    try:
        file = FileDescriptorProto.FromString(content)
    except DecodeError as err:
        raise Refusal("BAD_FILE", "a file of the contract is no file descriptor, or an option in it is broken") from err
    if not all_texts(content):
        raise Refusal("BAD_FILE", "a file of the contract has a name or another text that is not UTF-8")
    return file


class _Session:
    """Questions to one version of reflection, each on a stream of its own.

    A question is sent whole, in one batch: where a server ends a stream that
    is still being written to, grpc may report the failed write in place of the
    status that the server gave.
    """

    def __init__(self, channel: grpc.aio.Channel, path: str, deadline_s: float) -> None:
        """deadline_s: on the loop's clock, for all questions together."""
        self._open = channel.unary_stream(
            path, request_serializer=ServerReflectionRequest.SerializeToString, response_deserializer=as_sent
        )
        self._deadline_s = deadline_s
        self._answered: deque[grpc.aio.UnaryStreamCall[ServerReflectionRequest, bytes]] = deque()

    async def services(self) -> list[str]:
        """Full names of the services. Raises _UnimplementedPath if the server has no such reflection."""
        answer = await self.ask(ServerReflectionRequest(list_services=""))
        names = [each.name for each in answer.list_services_response.service]
        if not any(name for name in names if not name.startswith(NOT_TOOLS)):
            raise Refusal("NO_SERVICES", "reflection lists no service besides the server's own")
        return names

    async def ask(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        """The server's answer. Raises Refusal if it has none."""
        call = self._open(request)
        self._leave(call)
        try:
            async with asyncio.timeout_at(self._deadline_s):
                content = await read_next(call)
        except TimeoutError as err:
            call.cancel()
            raise _Exhausted("TIMEOUT", "the endpoint took too long to say what it serves") from err
        except grpc.aio.AioRpcError as err:
            if err.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise _UnimplementedPath("NO_REFLECTION", "the server has no such reflection") from err
            raise _refusal_of(err) from err
        try:
            answer = ServerReflectionResponse.FromString(content)
        except DecodeError as err:
            raise Refusal("BAD_ANSWER", "the answer is no reflection response") from err
        if answer.HasField("error_response"):
            raise Refusal("MISSING_FILE", f"reflection answers `{answer.error_response.error_message[:NAME_MAX]}`")
        return answer

    def _leave(self, call: grpc.aio.UnaryStreamCall[ServerReflectionRequest, bytes]) -> None:
        """Let the server end its streams by itself, but not for as long as it likes."""
        self._answered.append(call)
        if len(self._answered) > OPEN_STREAMS:
            self._answered.popleft().cancel()

    def close(self) -> None:
        """End the streams that are still open."""
        while self._answered:
            self._answered.pop().cancel()


def _refusal_of(err: grpc.aio.AioRpcError) -> Refusal:
    if err.code() is grpc.StatusCode.UNAVAILABLE:
        return Unreachable("UNREACHABLE", "the connection was lost while the endpoint was asked what it serves")
    if err.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Refusal("CONTRACT_TOO_LARGE", "an answer of reflection exceeds what is received")
    return Refusal("REFLECTION_FAILED", f"reflection failed with {err.code().name}")
