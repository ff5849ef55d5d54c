"""The backend of a load: the contract of the reference tool `tickets`, answered by backend.c faster than any proxy."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_reflection.v1alpha.reflection_pb2 import (
    FileDescriptorResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from gateway.reading.calls import as_sent
from gateway.reading.reflect import PATHS
from tests.bench.processes import started
from tests.e2e.mesh import REPO

__all__ = ["ANSWER", "PATH", "REQUEST", "SERVICE", "Backend", "MissingPackageError", "backend", "framed"]

SERVICE = "acme.support.v1.Tickets"
# It gives personal data, so that the shipped policies ask who calls.
PATH = f"/{SERVICE}/GetTicket"
HEADER = Path("/usr/include/nghttp2/nghttp2.h")


class MissingPackageError(Exception):
    """A program is missing that the system's package has."""

    def __init__(self, what: str, package: str) -> None:
        super().__init__(f"{what} is missing: apt-get install {package}")


def framed(message: bytes) -> bytes:
    """A gRPC message as it is sent."""
    return b"\0" + len(message).to_bytes(4) + message


# One text field each: 65 and 247 bytes, as small calls usually have.
REQUEST = framed(b"\n\x3f" + b"q" * 63)
ANSWER = framed(b"\n\xf4\x01" + b"a" * 244)


@dataclass(frozen=True, slots=True)
class Backend:
    """A running backend."""

    address: str

    def answered(self) -> int:
        """How many calls it has answered, each with OK."""
        with grpc.insecure_channel(self.address) as channel:
            ask = channel.unary_unary(
                "/bench.Backend/Answered", request_serializer=as_sent, response_deserializer=as_sent
            )
            return int(ask(b"", timeout=10, wait_for_ready=True))


@contextmanager
def backend(folder: Path) -> Generator[Backend]:
    """A backend at a Unix socket in the folder. Raises MissingPackageError."""
    socket, answers = folder / "backend.sock", folder / "answers"
    answers.write_bytes(b"".join(_sized(text) for entry in _entries() for text in entry))
    with started((str(_compiled(folder)), str(socket), str(answers)), log=folder / "backend.log"):
        yield Backend(f"unix:{socket}")


def _compiled(folder: Path) -> Path:
    if shutil.which("gcc") is None:
        raise MissingPackageError("gcc", "gcc libc6-dev")
    if not HEADER.exists():
        raise MissingPackageError(str(HEADER), "libnghttp2-dev")
    program = folder / "backend"
    source = Path(__file__).with_name("backend.c")
    subprocess.run(("gcc", "-std=gnu11", "-O2", "-o", program, source, "-lnghttp2"), check=True)
    return program


def _sized(text: bytes) -> bytes:
    return len(text).to_bytes(4) + text


def _entries() -> Iterable[tuple[bytes, bytes, bytes]]:
    """(path, request, answer): what the gateway asks of the contract, and at last the answer to all else."""
    listed = ServerReflectionResponse()
    listed.list_services_response.service.add(name=SERVICE)
    file = ServerReflectionResponse(file_descriptor_response=FileDescriptorResponse(file_descriptor_proto=[_file()]))
    asked = {
        ServerReflectionRequest(list_services="").SerializeToString(): listed.SerializeToString(),
        ServerReflectionRequest(file_containing_symbol=SERVICE).SerializeToString(): file.SerializeToString(),
    }
    for question, answer in asked.items():
        yield PATHS[0].encode(), framed(question), framed(answer)
    yield b"", b"", ANSWER


def _file() -> bytes:
    tool = str(REPO / "tools/support/tickets")
    sys.path.append(tool)
    try:
        stubs = importlib.import_module("acme.support.v1.tickets_pb2")
    finally:
        sys.path.remove(tool)
    return bytes(stubs.DESCRIPTOR.serialized_pb)
