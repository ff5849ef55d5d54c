"""Who tools are in their own right: which servers are told it, what it is good for, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import grpc.aio
import pytest
from echo_tool.herald import HeraldServicer
from echo_tool.service import EchoServicer

import llmesh
from gateway import identities
from gateway.catalog import CatalogBoard, Endpoint, Tool
from gateway.identities import LIVES_S, METHODS_MAX, RENEWED_EACH_S, Identities
from governance.delegation import Delegation, tool_itself
from llmesh.api.identity.v1 import identity_pb2 as pb
from llmesh.api.identity.v1.identity_pb2_grpc import IdentityServiceServicer
from llmesh.api.options.v1 import options_pb2 as options
from tests.envoy import method_of, tool_of
from tests.eventually import eventually
from tests.gateway.fakes import FakeClock, settle
from tests.pki import Authority, Issued, gateway

HERALD, OTHER = "acme.testing.v1.Herald", "acme.support.v1.Tickets"
HOST, MESH = "herald.tools.example", "127.0.0.1:8700"
USED = ("/acme.testing.v1.Echo/Unary", "/acme.testing.v1.Echo/WhoAmI")


class Hears(IdentityServiceServicer):
    """Hears what a gateway says, as any program may that serves a tool."""

    def __init__(self) -> None:
        self.heard: list[pb.TakeIdentityRequest] = []
        self.hangs = False

    async def TakeIdentity(self, request: pb.TakeIdentityRequest, context: object) -> pb.TakeIdentityResponse:
        self.heard.append(request)
        if self.hangs:
            await asyncio.Event().wait()
        return pb.TakeIdentityResponse()

    @property
    def services(self) -> list[str]:
        """Whose identities it heard of."""
        return [each.service for each in self.heard]


@dataclass(slots=True)
class World:
    """A gateway's identities, on a board of the test's own. minted: what the tokens say, token 0 first."""

    folder: Path
    board: CatalogBoard = field(default_factory=CatalogBoard)
    clock: FakeClock = field(default_factory=FakeClock)
    minted: list[Delegation] = field(default_factory=list[Delegation])

    def mint(self, delegation: Delegation) -> str:
        self.minted.append(delegation)
        return f"token {len(self.minted) - 1}"

    async def show(self, *tools: Tool) -> None:
        """Let these be all tools."""
        await self.board.post({each.service: each for each in tools}, {})

    def at(self, name: str) -> str:
        """An address of the world's."""
        return f"unix:{self.folder}/s/{name}.sock"

    def says(self, request: pb.TakeIdentityRequest) -> Delegation:
        """What a token says that was heard."""
        return self.minted[int(request.token.removeprefix("token "))]


@asynccontextmanager
async def gateway_of(world: World, **facts: object) -> AsyncGenerator[None]:
    """The world's gateway."""
    running = asyncio.create_task(Identities(world.board, world.mint, address=MESH, clock=world.clock, **facts).run())  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait((running,))


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    with TemporaryDirectory(prefix="ids") as name:
        made = World(Path(name))
        async with gateway_of(made):
            yield made


@asynccontextmanager
async def served(world: World, name: str, hears: Hears) -> AsyncGenerator[str]:
    """A server that hears; its address."""
    async with llmesh.Server(hears, address=world.at(name), drain_limit_s=0) as server:
        yield server.address


def herald(*addresses: str, service: str = HERALD, uses: Sequence[str] = USED) -> Tool:
    """A tool, at these addresses, that uses methods."""
    asks = method_of("Ask", options=options.Method(uses=[each.removeprefix("/") for each in uses]))
    made = tool_of(service, "", asks, method_of("Get"), domain="testing")
    endpoints = tuple(Endpoint(address, "test") for address in addresses)
    return replace(made, endpoints=endpoints, ready=frozenset())


async def heard(hears: Hears, count: int) -> None:
    """Return when it has heard so often."""

    async def often() -> None:
        assert len(hears.heard) >= count, len(hears.heard)

    await eventually(often)


async def test_a_tool_is_told_who_it_is_and_may_call_what_its_methods_use(world: World) -> None:
    hears = Hears()
    async with served(world, "herald", hears) as address:
        before_s = world.clock.unix_s()
        await world.show(herald(address))
        await heard(hears, 1)

    [told] = hears.heard
    assert (told.service, told.mesh, told.lasts.ToSeconds()) == (HERALD, MESH, LIVES_S)
    assert world.says(told) == Delegation(
        tool_itself(HERALD, "testing"), path=(), methods=USED, parent="", expires_s=int(before_s) + LIVES_S
    )


async def test_an_identity_is_renewed_long_before_it_ends(world: World) -> None:
    hears = Hears()
    async with served(world, "herald", hears) as address:
        await world.show(herald(address))
        for count in range(1, 4):
            await heard(hears, count)

            async def renewed(count: int = count) -> None:
                await world.clock.pass_(RENEWED_EACH_S / 10)
                assert len(hears.heard) > count

            await eventually(renewed)

    ends_s = [world.says(each).expires_s for each in hears.heard]
    assert ends_s == sorted(set(ends_s))
    assert RENEWED_EACH_S < LIVES_S / 3


async def test_a_process_that_takes_the_place_of_another_is_told_anew(world: World) -> None:
    first, second = Hears(), Hears()
    async with served(world, "herald", first) as address:
        await world.show(herald(address))
        await heard(first, 1)
    async with served(world, "herald", second):

        async def told() -> None:
            await world.clock.pass_(0.5)
            assert second.heard

        await eventually(told)


async def test_each_tool_of_a_server_is_told_of_itself(world: World) -> None:
    hears = Hears()
    async with served(world, "both", hears) as address:
        await world.show(herald(address), herald(address, service=OTHER, uses=USED[:1]))
        await heard(hears, 2)

    assert {each.service: world.says(each).methods for each in hears.heard} == {HERALD: USED, OTHER: USED[:1]}


async def test_whoever_names_another_tools_address_learns_nothing(world: World) -> None:
    """The address is the tool's own, so that the tool is told, whoever has registered it."""
    hears, thief = Hears(), Hears()
    async with served(world, "herald", hears) as address, served(world, "thief", thief) as own:
        registered = replace(herald(address), endpoints=(Endpoint(address, "lease"),))
        await world.show(registered, herald(own, service=OTHER))
        await heard(hears, 1)
        await heard(thief, 1)

    assert set(hears.services) == {HERALD}
    assert set(thief.services) == {OTHER}
    assert world.says(thief.heard[0]).caller == tool_itself(OTHER, "testing")


async def test_what_has_no_need_of_an_identity_or_too_much_gets_none(world: World) -> None:
    hears = Hears()
    many = [f"/acme.testing.v1.Echo/M{number}" for number in range(METHODS_MAX + 1)]
    async with served(world, "all", hears) as address:
        others = herald(address, service=OTHER, uses=()), herald(address, service="acme.Many", uses=many)
        await world.show(*others)
        await settle()
        # Told after them, if they were told.
        await world.show(*others, herald(address))
        await heard(hears, 1)

    assert hears.services == [HERALD]


async def test_an_endpoint_that_leaves_is_told_no_more_and_the_others_are(world: World) -> None:
    left, stays = Hears(), Hears()
    async with served(world, "left", left) as one, served(world, "stays", stays) as other:
        await world.show(herald(one, other))
        await heard(left, 1)
        await heard(stays, 1)
        await world.show(herald(other))
        for count in range(2, 4):

            async def renewed(count: int = count) -> None:
                await world.clock.pass_(RENEWED_EACH_S / 10)
                assert len(stays.heard) >= count

            await eventually(renewed)

    assert len(left.heard) == 1


async def test_no_token_travels_in_the_clear(world: World) -> None:
    control, server, hears = Hears(), grpc.aio.server(), Hears()
    from llmesh.api.identity.v1.identity_pb2_grpc import add_IdentityServiceServicer_to_server

    add_IdentityServiceServicer_to_server(hears, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with served(world, "herald", control) as address:
        await world.show(herald(f"127.0.0.1:{port}", service=OTHER), herald(address))
        await heard(control, 1)
    await server.stop(0)

    assert hears.heard == []


async def test_a_tool_that_leaves_is_told_no_more(world: World) -> None:
    hears = Hears()
    async with served(world, "herald", hears) as address:
        await world.show(herald(address))
        await heard(hears, 1)
        await world.show()
        await settle()
        for _ in range(5):
            await world.clock.pass_(RENEWED_EACH_S)

        await world.show(herald(address, service=OTHER))
        await heard(hears, 2)

    assert hears.services == [HERALD, OTHER]


async def test_what_a_tool_uses_now_is_what_it_may_call(world: World) -> None:
    hears = Hears()
    async with served(world, "herald", hears) as address:
        await world.show(herald(address))
        await heard(hears, 1)
        await world.show(herald(address, uses=USED[:1]))
        await heard(hears, 2)

    assert [world.says(each).methods for each in hears.heard] == [USED, USED[:1]]


async def test_a_server_without_the_sdk_is_left_alone(world: World) -> None:
    arrived: list[str] = []

    class Foreign(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
            arrived.append(handler_call_details.method)

    server, control = grpc.aio.server(), Hears()
    server.add_generic_rpc_handlers((Foreign(),))
    (world.folder / "s").mkdir(mode=0o700)
    server.add_insecure_port(world.at("plain"))
    await server.start()
    async with served(world, "herald", control) as address:
        await world.show(herald(world.at("plain"), service=OTHER), herald(address))
        await heard(control, 1)

        async def asked() -> None:
            assert arrived

        await eventually(asked)
        for count in range(2, 5):

            async def renewed(count: int = count) -> None:
                await world.clock.pass_(RENEWED_EACH_S / 10)
                assert len(control.heard) >= count

            await eventually(renewed)
    await server.stop(0)

    assert arrived == ["/llmesh.api.identity.v1.IdentityService/TakeIdentity"]


async def test_servers_that_hang_keep_no_other_from_its_identity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identities, "AT_ONCE", 1)
    monkeypatch.setattr(identities, "ANSWER_WITHIN_S", 0.2)
    hangs, hears = Hears(), Hears()
    hangs.hangs = True
    with TemporaryDirectory(prefix="ids") as name:
        world = World(Path(name))
        async with (
            gateway_of(world),
            served(world, "hangs", hangs) as stuck,
            served(world, "herald", hears) as address,
        ):
            await world.show(herald(stuck, service=OTHER))
            await heard(hangs, 1)
            # From now on it takes for ever.
            monkeypatch.setattr(identities, "ANSWER_WITHIN_S", 3600.0)

            async def asked_again() -> None:
                await world.clock.pass_(1.0)
                assert len(hangs.heard) > 1

            await eventually(asked_again)
            await world.show(herald(stuck, service=OTHER), herald(address))
            await heard(hears, 1)


async def test_over_tls_a_tool_takes_its_identity_from_the_gateway_alone(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue(HOST).write(tmp_path)
    tls = llmesh.Tls(certificate, key, authority.write(tmp_path))

    def as_whom(shown: Issued) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(authority.pem, shown.key, shown.certificate)

    own, evil_world, world = llmesh.OwnMesh(), World(tmp_path), World(tmp_path)
    async with llmesh.Server(HeraldServicer(), address="127.0.0.1:0", tls=tls, drain_limit_s=0, own_mesh=own) as server:
        at_tls = replace(herald(""), endpoints=(Endpoint(server.address, "file", tls_name=HOST),))
        await evil_world.show(at_tls)
        await world.show(at_tls)
        other = as_whom(authority.issue("other.tools.example"))
        async with gateway_of(evil_world, credentials=lambda: other):

            async def has_tried() -> None:
                await evil_world.clock.pass_(1.0)
                assert len(evil_world.minted) > 1

            await eventually(has_tried)
            with pytest.raises(llmesh.Unavailable):
                _ = own.channel
        async with gateway_of(world, credentials=lambda: as_whom(gateway(authority))):
            await own.wait(timeout_s=60)


async def test_a_tool_by_the_sdk_calls_by_what_it_is_told(world: World) -> None:
    own = llmesh.OwnMesh(HERALD)
    async with llmesh.Server(
        HeraldServicer(), EchoServicer(), address=world.at("herald"), drain_limit_s=0, own_mesh=own
    ) as to:
        await world.show(herald(to.address))
        await own.wait(timeout_s=60)

    assert {each.caller for each in world.minted} == {tool_itself(HERALD, "testing")}
