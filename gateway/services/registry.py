"""Leases on a place in the mesh, for tools that start on this machine."""

from __future__ import annotations

import posixpath
import re
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from gateway.sources.lease import Lease, Leases
from llmesh.api.registry.v1 import registry_pb2 as pb
from llmesh.api.registry.v1.registry_pb2_grpc import RegistryServiceServicer
from llmesh.errors import InvalidCall, NotFound, Violation
from llmesh.home import SOCKET_PATH_MAX_BYTES

_UNIX = "unix:"
_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)):(?P<port>[0-9]{1,5})"
)
_PORT_MAX = 65535


class RegistryServicer(RegistryServiceServicer):
    """Gives leases to whoever may open its socket."""

    def __init__(self, leases: Leases) -> None:
        """Give the leases of `leases`."""
        self._leases = leases

    async def Register(self, request: pb.RegisterRequest, context: object) -> pb.RegisterResponse:
        """A new lease on a checked address."""
        lease = await self._leases.register(check_address(request.address))
        return pb.RegisterResponse(lease_id=lease.id, ttl=_ttl(lease))

    async def Renew(self, request: pb.RenewRequest, context: object) -> pb.RenewResponse:
        """The lease goes on; NotFound if it has ended."""
        lease = await self._leases.renew(request.lease_id)
        if lease is None:
            raise NotFound("the lease has ended; register again", reason="LEASE_ENDED")
        return pb.RenewResponse(ttl=_ttl(lease))

    async def Release(self, request: pb.ReleaseRequest, context: object) -> pb.ReleaseResponse:
        """The lease has ended, if it had not before."""
        await self._leases.release(request.lease_id)
        return pb.ReleaseResponse()


def _ttl(lease: Lease) -> Duration:
    span = Duration()
    span.FromTimedelta(timedelta(seconds=lease.ttl_s))
    return span


def check_address(address: str) -> str:
    """The address, if the gateway and Envoy can both reach it as it is written.

    That is "unix:" with an absolute path in its shortest form, or "host:port"
    (IPv6 in brackets). Raises InvalidCall.
    """
    fault = _fault_of_path(address.removeprefix(_UNIX)) if address.startswith(_UNIX) else _fault_of_port(address)
    if fault:
        raise InvalidCall(f"address {fault}", [Violation("address", fault)], reason="BAD_ADDRESS")
    return address


def _fault_of_path(path: str) -> str:
    if not path.startswith("/") or path.startswith("//") or path != posixpath.normpath(path) or path == "/":
        return "must have an absolute path without `..`, such as unix:/run/tool.sock"
    if not path.isprintable():
        return "has a path with characters that cannot be printed"
    if len(path.encode()) > SOCKET_PATH_MAX_BYTES:
        return f"has a path of more than {SOCKET_PATH_MAX_BYTES} bytes, which no Unix socket can have"
    return ""


def _fault_of_port(address: str) -> str:
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None or not 0 < int(match["port"]) <= _PORT_MAX:
        return "must be unix:/absolute/path or host:port"
    return ""
