"""Leases on a place in the mesh, for tools that start on this machine."""

from __future__ import annotations

import asyncio
import posixpath
from contextlib import aclosing, suppress
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from gateway.catalog import CatalogBoard, State
from gateway.sources.lease import Lease, Leases
from llmesh.api.registry.v1 import registry_pb2 as pb
from llmesh.api.registry.v1.registry_pb2_grpc import RegistryServiceServicer
from llmesh.errors import InvalidCall, NotFound, Violation
from llmesh.home import SOCKET_PATH_MAX_BYTES
from llmesh.mesh_file import join_host_port, split_host_port

_UNIX = "unix:"
# Less than a tool waits for.
UNROUTED_WITHIN_S = 1.5


class RegistryServicer(RegistryServiceServicer):
    """Gives leases to whoever may open its socket."""

    def __init__(self, leases: Leases, board: CatalogBoard) -> None:
        """Give the leases of `leases`, and tell what the board says of their endpoints."""
        self._leases = leases
        self._board = board

    async def Register(self, request: pb.RegisterRequest, context: object) -> pb.RegisterResponse:
        """A new lease on a checked address."""
        lease = await self._leases.register(check_address(request.address))
        return pb.RegisterResponse(lease_id=lease.id, ttl=_ttl(lease))

    async def Renew(self, request: pb.RenewRequest, context: object) -> pb.RenewResponse:
        """The lease goes on; NotFound if it has ended."""
        lease = await self._leases.renew(request.lease_id)
        if lease is None:
            raise NotFound("the lease has ended; register again", reason="LEASE_ENDED")
        return pb.RenewResponse(ttl=_ttl(lease), refusals=self._refusals(lease.address))

    def _refusals(self, address: str) -> list[pb.Refusal]:
        report = self._board.current.reports.get(address)
        # One that is pending or down is looked at again; nothing is held against it.
        if report is None or report.state not in (State.READY, State.REFUSED):
            return []
        failed = (step for step in report.steps if not step.passed)
        return [
            pb.Refusal(service=step.service, step=step.name, reason=step.reason, message=step.message)
            for step in failed
        ]

    async def Release(self, request: pb.ReleaseRequest, context: object) -> pb.ReleaseResponse:
        """The lease has ended, if it had not before. Returns when no call is sent to its address any more, or soon."""
        address = await self._leases.release(request.lease_id)
        if address is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(UNROUTED_WITHIN_S), aclosing(self._board.watch()) as catalogs:
                    async for catalog in catalogs:
                        if address not in catalog.reports:
                            break
        return pb.ReleaseResponse()


def _ttl(lease: Lease) -> Duration:
    span = Duration()
    span.FromTimedelta(timedelta(seconds=lease.ttl_s))
    return span


def check_address(address: str) -> str:
    """The address, if the gateway and Envoy can both reach it: as it is written, or localhost as its IP address.

    That is "unix:" with an absolute path in its shortest form, or "IP:port"
    (IPv6 in brackets). Raises InvalidCall.
    """
    if not address.startswith(_UNIX):
        return _checked_port(address)
    fault = _fault_of_path(address.removeprefix(_UNIX))
    if fault:
        raise _refusal(fault)
    return address


def _refusal(fault: str) -> InvalidCall:
    return InvalidCall(f"address {fault}", [Violation("address", fault)], reason="BAD_ADDRESS")


def _fault_of_path(path: str) -> str:
    if not path.startswith("/") or path.startswith("//") or path != posixpath.normpath(path) or path == "/":
        return "must have an absolute path without `..`, such as unix:/run/tool.sock"
    if not path.isprintable():
        return "has a path with characters that cannot be printed"
    if len(path.encode()) > SOCKET_PATH_MAX_BYTES:
        return f"has a path of more than {SOCKET_PATH_MAX_BYTES} bytes, which no Unix socket can have"
    return ""


def _checked_port(address: str) -> str:
    try:
        host, port = split_host_port(address)
    except ValueError as err:
        raise _refusal(f"must be unix:/absolute/path or IP:port: {err}") from err
    if port == 0:
        raise _refusal("names no port")
    return join_host_port(host, port)
