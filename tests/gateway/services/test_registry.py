"""Leases over a real socket."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from gateway.catalog import Endpoint, Report, State, Step
from gateway.services import registry as registries
from gateway.services.registry import check_address
from llmesh.api.registry.v1 import registry_pb2 as pb
from llmesh.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
from llmesh.errors import InvalidCall
from tests.gateway.services.world import mesh


@pytest.mark.parametrize(
    "address",
    ["unix:/run/tool.sock", "unix:/a", "127.0.0.1:50051", "10.0.0.7:443", "[::1]:50051"],
)
def test_address_is_taken(address: str) -> None:
    assert check_address(address) == address


def test_localhost_is_taken_as_its_ip_address() -> None:
    assert check_address("localhost:1") == "127.0.0.1:1"


def test_a_host_name_is_refused_with_what_to_write() -> None:
    with pytest.raises(InvalidCall, match=r"`tools\.internal` is not an IP address.*write its IP"):
        check_address("tools.internal:443")


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
        pytest.param("10.0.0.1:0", id="port 0"),
        pytest.param("10.0.0.1:65536", id="port too large"),
        pytest.param("10.0.0.1:x", id="port of letters"),
        pytest.param("10.0.0.256:1", id="no IP address"),
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


async def test_a_release_is_answered_when_no_call_is_sent_there_any_more() -> None:
    address = "unix:/run/tool.sock"
    async with mesh() as running:
        registry = RegistryServiceStub(running.registry)
        lease = await registry.Register(pb.RegisterRequest(address=address))
        await running.board.post({}, {address: Report(Endpoint(address, "lease"), State.READY)})
        releasing = asyncio.ensure_future(registry.Release(pb.ReleaseRequest(lease_id=lease.lease_id)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(releasing), 0.1)
        await running.board.post({}, {})
        await asyncio.wait_for(releasing, 60)


async def test_a_release_is_answered_though_the_catalog_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "UNROUTED_WITHIN_S", 0.01)
    address = "unix:/run/tool.sock"
    async with mesh() as running:
        registry = RegistryServiceStub(running.registry)
        lease = await registry.Register(pb.RegisterRequest(address=address))
        await running.board.post({}, {address: Report(Endpoint(address, "lease"), State.READY)})
        await registry.Release(pb.ReleaseRequest(lease_id=lease.lease_id))


@pytest.mark.parametrize(
    ("state", "told"),
    [(State.REFUSED, ["NOT_OWNER"]), (State.READY, ["NOT_OWNER"]), (State.DOWN, []), (State.PENDING, [])],
)
async def test_who_renews_is_told_what_of_the_endpoint_is_refused(state: State, told: list[str]) -> None:
    address = "unix:/run/tool.sock"
    steps = (Step("connect", passed=True), Step("owner", passed=False, service="acme.a.v1.A", reason="NOT_OWNER"))
    async with mesh() as running:
        await running.board.post({}, {address: Report(Endpoint(address, "lease"), state, steps)})
        registry = RegistryServiceStub(running.registry)
        lease = await registry.Register(pb.RegisterRequest(address=address))
        kept = await registry.Renew(pb.RenewRequest(lease_id=lease.lease_id))
    assert [each.reason for each in kept.refusals] == told


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
