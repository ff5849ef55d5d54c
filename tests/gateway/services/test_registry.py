"""Leases over a real socket."""

from __future__ import annotations

import grpc
import pytest

from gateway.services.registry import check_address
from llmesh.api.registry.v1 import registry_pb2 as pb
from llmesh.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
from llmesh.errors import InvalidCall
from tests.gateway.services.world import mesh


@pytest.mark.parametrize(
    "address",
    ["unix:/run/tool.sock", "unix:/a", "127.0.0.1:50051", "tools.internal:443", "[::1]:50051", "localhost:1"],
)
def test_address_is_taken(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("", id="empty"),
        pytest.param("unix:", id="no path"),
        pytest.param("unix:tool.sock", id="relative"),
        pytest.param("unix:///run/tool.sock", id="three slashes"),
        pytest.param("unix:/run/../etc/x.sock", id="upwards"),
        pytest.param("unix:/run//x.sock", id="not the shortest form"),
        pytest.param("unix:/run/", id="a folder"),
        pytest.param("unix:/", id="the root"),
        pytest.param("unix:/run/x\0.sock", id="NUL"),
        pytest.param("unix:/" + "x" * 104, id="longer than a socket can be"),
        pytest.param("unix-abstract:x", id="abstract"),
        pytest.param("dns:///host:1", id="a scheme"),
        pytest.param("host", id="no port"),
        pytest.param("host:0", id="port 0"),
        pytest.param("host:65536", id="port too large"),
        pytest.param("host:x", id="port of letters"),
        pytest.param(":50051", id="no host"),
        pytest.param("::1:50051", id="IPv6 without brackets"),
        pytest.param("a b:1", id="space"),
    ],
)
def test_address_that_cannot_be_reached_is_an_invalid_call(address: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        check_address(address)
    assert [violation.field for violation in caught.value.violations] == ["address"]


async def test_lease_is_taken_kept_and_ended() -> None:
    async with mesh() as running:
        registry = RegistryServiceStub(running.registry)
        lease = await registry.Register(pb.RegisterRequest(address="unix:/run/tool.sock"))
        assert lease.lease_id
        assert lease.ttl.ToTimedelta().total_seconds() > 0
        kept = await registry.Renew(pb.RenewRequest(lease_id=lease.lease_id))
        assert kept.ttl == lease.ttl
        for _ in range(2):
            await registry.Release(pb.ReleaseRequest(lease_id=lease.lease_id))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await registry.Renew(pb.RenewRequest(lease_id=lease.lease_id))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_address_that_cannot_be_reached_gets_no_lease() -> None:
    async with mesh() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await RegistryServiceStub(running.registry).Register(pb.RegisterRequest(address="unix:tool.sock"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_registry_is_not_served_where_clients_call() -> None:
    async with mesh() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await RegistryServiceStub(running.services).Release(pb.ReleaseRequest(lease_id="x"))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
