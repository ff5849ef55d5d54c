"""A tool's lease, against a small gateway of its own on a real socket."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Iterator

import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.service import EchoServicer

import llmesh
from llmesh.api.registry.v1 import registry_pb2
from llmesh.api.registry.v1.registry_pb2_grpc import RegistryServiceServicer
from llmesh.home import Home


class Registry(RegistryServiceServicer):
    """Gives leases of ttl_ms, and forgets them when told to."""

    def __init__(self, *, ttl_ms: int = 150) -> None:
        self.leases: dict[str, str] = {}
        self.events: list[str] = []
        self.ttl_ms = ttl_ms
        self.refuse = False
        self.refusals: list[registry_pb2.Refusal] = []
        self._changed = asyncio.Condition()

    async def Register(self, request: registry_pb2.RegisterRequest, context: object) -> registry_pb2.RegisterResponse:
        if self.refuse:
            await self._tell("refuse")
            raise llmesh.InvalidCall("no such place")
        lease_id = f"lease-{len(self.events)}"
        self.leases[lease_id] = request.address
        await self._tell("register")
        response = registry_pb2.RegisterResponse(lease_id=lease_id)
        response.ttl.FromMilliseconds(self.ttl_ms)
        return response

    async def Renew(self, request: registry_pb2.RenewRequest, context: object) -> registry_pb2.RenewResponse:
        if request.lease_id not in self.leases:
            raise llmesh.NotFound("the lease has ended")
        await self._tell("renew")
        response = registry_pb2.RenewResponse(refusals=self.refusals)
        response.ttl.FromMilliseconds(self.ttl_ms)
        return response

    async def Release(self, request: registry_pb2.ReleaseRequest, context: object) -> registry_pb2.ReleaseResponse:
        self.leases.pop(request.lease_id, None)
        await self._tell("release")
        return registry_pb2.ReleaseResponse()

    async def _tell(self, event: str) -> None:
        async with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for what the gateway has seen."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(reached)


@pytest.fixture
def home() -> Iterator[Home]:
    """A mesh directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="lease-") as name:
        yield Home.find(f"{name}/.llmesh").create()


def gateway(registry: Registry, home: Home) -> llmesh.Server:
    return llmesh.Server(registry, address=f"unix:{home.registry_socket}", drain_limit_s=0.1)


async def test_a_lease_is_taken_kept_and_given_back(home: Home) -> None:
    registry = Registry()
    async with gateway(registry, home):
        async with llmesh.Server(EchoServicer(), name="echo", home=home) as tool:
            await registry.until(lambda: registry.events.count("renew") >= 2)
            assert list(registry.leases.values()) == [tool.address]
            assert tool.address == f"unix:{home.tool_socket('echo')}"
        assert registry.leases == {}
        assert registry.events[-1] == "release"


async def test_the_lease_goes_back_before_the_tool_stops_answering(home: Home) -> None:
    registry = Registry()
    async with gateway(registry, home):
        server = llmesh.Server(EchoServicer(), home=home)
        await server.start()
        await registry.until(lambda: "register" in registry.events)
        async with llmesh.Mesh(server.address) as mesh, asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(server.stop())
            await registry.until(lambda: "release" in registry.events)
            await EchoStub(mesh.channel).Unary(pb.UnaryRequest())
            assert not stopping.done()


async def test_a_refused_tool_says_so_once_for_each_reason_and_when_it_is_over(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    registry = Registry()
    one = registry_pb2.Refusal(service="acme.a.v1.A", step="owner", reason="NOT_OWNER", message="see ownership.yaml")
    async with gateway(registry, home), llmesh.Server(EchoServicer(), home=home):
        for refusals in ([one], [one], []):
            registry.refusals = refusals
            seen = registry.events.count("renew")
            await registry.until(lambda seen=seen: registry.events.count("renew") >= seen + 2)
    assert told(caplog) == ["lease taken", "refused by the mesh", "no longer refused by the mesh", "lease released"]
    [refused] = [record for record in caplog.records if record.message == "refused by the mesh"]
    assert vars(refused).items() >= {"service": "acme.a.v1.A", "reason": "NOT_OWNER"}.items()
    assert vars(refused)["why"] == "see ownership.yaml"


async def test_a_lease_that_the_gateway_lost_is_taken_anew(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    registry = Registry()
    async with gateway(registry, home), llmesh.Server(EchoServicer(), home=home):
        await registry.until(lambda: "renew" in registry.events)
        registry.leases.clear()
        await registry.until(lambda: registry.events.count("register") == 2)
        await registry.until(lambda: registry.events[-1] == "renew")
    assert told(caplog) == ["lease taken", "lease lost", "lease taken", "lease released"]


async def test_a_gateway_that_is_away_harms_no_call_and_is_told_once(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    registry = Registry()
    async with llmesh.Server(EchoServicer(), home=home) as tool, llmesh.Mesh(tool.address) as mesh:
        for _ in range(2):
            await EchoStub(mesh.channel).Unary(pb.UnaryRequest())
            async with gateway(registry, home):
                await registry.until(lambda: registry.events[-1:] == ["renew"])
            registry.events.append("gateway stopped")
            registry.leases.clear()
        await EchoStub(mesh.channel).Unary(pb.UnaryRequest())
    assert registry.events.count("register") == 2
    found = told(caplog)
    assert found.count("lease taken") == 2
    assert found.count("lease lost") <= 2
    assert found.count("gateway away") <= 3


async def test_a_gateway_that_refuses_is_told_once_and_asked_again(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    registry = Registry()
    registry.refuse = True
    async with gateway(registry, home), llmesh.Server(EchoServicer(), home=home):
        await registry.until(lambda: registry.events.count("refuse") == 2)
        registry.refuse = False
        await registry.until(lambda: "register" in registry.events)
    assert told(caplog).count("lease refused") == 1


async def test_a_server_with_an_address_of_its_own_takes_no_lease(home: Home) -> None:
    registry = Registry()
    async with gateway(registry, home):
        async with llmesh.Server(EchoServicer(), address=f"unix:{home.run}/other.sock"):
            pass
        async with llmesh.Server(EchoServicer(), address=f"unix:{home.run}/other.sock", home=home) as leased:
            await registry.until(lambda: "register" in registry.events)
            assert list(registry.leases.values()) == [leased.address]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "llmesh.lease"]
