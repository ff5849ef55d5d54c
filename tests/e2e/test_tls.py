"""TLS on the mesh port and to tools, with real certificates: who gets in, who does not, and what is told."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.service import EchoServicer

import llmesh
from gateway.operations.figures import METRICS
from llmesh import catalog
from llmesh.api.catalog.v1 import catalog_pb2
from llmesh.supervisor.ready import wait_listening
from tests.e2e.admin import get
from tests.e2e.mesh import ECHO, PLATFORM, READER, RunningMesh, running_mesh
from tests.e2e.traffic import Traffic
from tests.envoy import backend_on
from tests.eventually import eventually
from tests.pki import Authority, Issued, gateway

if TYPE_CHECKING:
    from acme.testing.v1.echo_pb2_grpc import EchoAsyncStub

HOST = "mesh.acme.example"
NAME = "echo.tools.example"
AUTHORITY, OTHER = Authority(), Authority("other")
GONE = timedelta(minutes=-1)


@dataclass(frozen=True, slots=True)
class Secured:
    """A mesh whose port speaks TLS. issued: every key that was ever given to a process."""

    mesh: RunningMesh
    issued: list[Issued]

    def show(self, issued: Issued) -> Issued:
        """Replace what the port shows."""
        self.issued.append(issued)
        issued.write(self.mesh.folder, "port")
        return issued

    @asynccontextmanager
    async def client(self, *believed: Authority, token: str = "") -> AsyncGenerator[llmesh.Mesh]:
        """A client with a connection of its own."""
        roots = b"".join(each.pem for each in believed or (AUTHORITY,))
        own = token or self.mesh.token()
        async with llmesh.Mesh(self.mesh.address, own, root_certificates=roots, server_name=HOST) as client:
            yield client

    @property
    def told(self) -> str:
        """What the gateway says is wrong with the files."""
        path = self.mesh.home.tls_error
        return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    own = gateway(AUTHORITY)
    with running_mesh(start=False) as mesh:
        made = Secured(mesh, [own])
        made.show(AUTHORITY.issue(HOST))
        certificate, key = own.write(mesh.folder, "gateway")
        authority = AUTHORITY.write(mesh.folder)
        mesh.settings = {
            "tls": {"certificate": "port.crt", "key": "port.key"},
            "tool_tls": {"certificate": certificate.name, "key": key.name, "authority": authority.name},
        }
        mesh.write_file()
        mesh.start_gateway()
        mesh.start_envoy()
        assert asyncio.run(wait_listening("127.0.0.1", mesh.port, timeout_s=60)), mesh.said()
        yield made


def files(folder: Path, name: str, issued: Issued, believed: Authority = AUTHORITY) -> llmesh.Tls:
    certificate, key = issued.write(folder, name)
    return llmesh.Tls(certificate, key, believed.write(folder, f"{name}-authority"))


@asynccontextmanager
async def tool_on_tcp(secured: Secured, issued: Issued, believed: Authority = AUTHORITY) -> AsyncGenerator[str]:
    """Where an echo tool listens."""
    secured.issued.append(issued)
    tls = files(secured.mesh.folder, f"tool{len(secured.issued)}", issued, believed)
    async with llmesh.Server(EchoServicer(), address="127.0.0.1:0", tls=tls) as tool:
        yield tool.address


async def endpoint(secured: Secured, address: str) -> catalog_pb2.Endpoint:
    """What is told of an endpoint, as `llmesh tools why` asks for it."""
    async with secured.client(AUTHORITY, OTHER, token=secured.mesh.token(PLATFORM)) as client:
        found = await catalog.list_endpoints(client.channel)
    return next((each for each in found if each.address == address), catalog_pb2.Endpoint())


async def ready(secured: Secured, *addresses: str) -> None:
    for address in addresses:
        found = await endpoint(secured, address)
        assert found.state == catalog_pb2.Endpoint.STATE_READY, found


async def who(stub: EchoAsyncStub) -> str:
    return (await stub.WhoAmI(pb.WhoAmIRequest(), timeout=60)).subject


async def test_a_tool_on_a_socket_and_on_tcp_is_one_tool_over_tls(secured: Secured) -> None:
    async with tool_on_tcp(secured, AUTHORITY.issue(NAME)) as address, secured.client() as client:
        secured.mesh.write_file(endpoints=[{"address": address, "tls_name": NAME}])
        stub = EchoStub(client.channel)
        async with llmesh.Server(EchoServicer(), home=secured.mesh.home, name="near") as near:
            await eventually(lambda: ready(secured, address, near.address))
            for _ in range(20):
                assert await who(stub) == READER.name
            tool = await catalog.get_tool(client.channel, service=ECHO)
            assert (tool.ready_count, tool.unprotected_transport) == (2, False)
        # The one on TCP alone, which the mesh health-checks over TLS.
        for _ in range(5):
            assert await who(stub) == READER.name
        with pytest.raises(llmesh.Unavailable):
            async with llmesh.Mesh(address, root_certificates=AUTHORITY.pem, server_name=NAME) as direct:
                await who(EchoStub(direct.channel))


async def test_a_tool_on_plain_tcp_is_marked(secured: Secured) -> None:
    async with (
        llmesh.Server(EchoServicer(), address="127.0.0.1:0", insecure_dev=True) as tool,
        secured.client() as client,
    ):
        secured.mesh.write_file(endpoints=[{"address": tool.address}])
        await eventually(lambda: ready(secured, tool.address))
        assert (await catalog.get_tool(client.channel, service=ECHO)).unprotected_transport
        connect = (await endpoint(secured, tool.address)).steps[0]
        assert (connect.name, connect.passed, connect.message) == ("connect", True, "unprotected transport: plain TCP")
        assert await who(EchoStub(client.channel)) == READER.name


async def test_why_a_tool_is_not_called_over_tls_is_told(secured: Secured) -> None:
    faults = {
        "CERTIFICATE_NOT_BELIEVED": [OTHER.issue(NAME)],
        "CERTIFICATE_OF_ANOTHER": [AUTHORITY.issue("other.tools.example"), AUTHORITY.issue("127.0.0.1")],
    }
    expected: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for reason, shown in faults.items():
            for each in shown:
                expected[await stack.enter_async_context(tool_on_tcp(secured, each))] = reason
        stranger = await stack.enter_async_context(tool_on_tcp(secured, AUTHORITY.issue(NAME), OTHER))
        plain = llmesh.Server(EchoServicer(), address="127.0.0.1:0", insecure_dev=True)
        await stack.enter_async_context(plain)
        old = AUTHORITY.issue(NAME, lasts=GONE)
        late = await stack.enter_async_context(
            backend_on(credentials=grpc.ssl_server_credentials([(old.key, old.certificate)]))
        )
        expected |= {stranger: "TLS_REFUSED", plain.address: "NO_TLS", late.address: "CERTIFICATE_NOT_BELIEVED"}
        secured.mesh.write_file(endpoints=[{"address": address, "tls_name": NAME} for address in expected])

        async def told() -> None:
            found = {address: await endpoint(secured, address) for address in expected}
            assert {address: [step.reason for step in each.steps] for address, each in found.items()} == {
                address: [reason] for address, reason in expected.items()
            }
            words = " ".join(step.message for each in found.values() for step in each.steps)
            assert "certificate has expired" in words
            assert f"does not name `{NAME}`" in words

        await eventually(told)
        async with secured.client() as client:
            with pytest.raises(llmesh.MeshError):
                await who(EchoStub(client.channel))


async def handshake(secured: Secured, context: ssl.SSLContext, *, hostname: str = HOST) -> ssl.SSLObject:
    """Shake hands with the mesh port, and hang up."""
    host, port = "127.0.0.1", secured.mesh.port
    _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=hostname)
    try:
        found = writer.get_extra_info("ssl_object")
        assert isinstance(found, ssl.SSLObject)
        return found
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def believing(*believed: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata="".join(each.pem.decode() for each in believed))
    context.set_alpn_protocols(["h2"])
    return context


async def answered(secured: Secured) -> None:
    """A good call."""
    async with secured.client(AUTHORITY, OTHER) as client:
        assert await catalog.list_tools(client.channel)


async def test_the_port_speaks_tls_1_2_and_1_3_and_http_2_alone(secured: Secured) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = believing(AUTHORITY)
        context.minimum_version = context.maximum_version = version
        shaken = await handshake(secured, context)
        assert (shaken.selected_alpn_protocol(), shaken.version()) == ("h2", version.name.replace("_", "."))
    with pytest.raises(ssl.SSLError):
        await handshake(secured, believing(OTHER))
    await answered(secured)


def test_an_older_tls_is_refused(secured: Secured) -> None:
    # A ClientHello that offers TLS 1.1 at most: RFC 4346, 7.4.1.2.
    suites = b"\x00\x2f\x00\x35\xc0\x13\xc0\x14"
    body = b"\x03\x02" + bytes(32) + b"\x00" + len(suites).to_bytes(2, "big") + suites + b"\x01\x00"
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    with socket.create_connection(("127.0.0.1", secured.mesh.port), timeout=60) as raw:
        raw.sendall(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
        # An alert, fatal: protocol_version.
        assert raw.recv(7)[:1] == b"\x15"


async def test_who_speaks_in_the_clear_gets_no_answer(secured: Secured) -> None:
    async with grpc.aio.insecure_channel(secured.mesh.address) as channel:
        stub: Any = EchoStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.WhoAmI(pb.WhoAmIRequest(), metadata=secured.mesh.bearer(), timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    await answered(secured)


async def test_no_call_fails_while_the_ports_certificate_is_replaced(secured: Secured) -> None:
    async def on_a_new_connection() -> None:
        async with secured.client(AUTHORITY, OTHER) as client:
            await catalog.list_tools(client.channel)

    async with secured.client() as long_lived:

        async def on_an_old_one() -> None:
            await catalog.list_tools(long_lived.channel)

        async with Traffic(on_an_old_one, at_once=1) as old, Traffic(on_a_new_connection, at_once=1) as new:
            for authority in (OTHER, AUTHORITY, AUTHORITY):
                shown = secured.show(authority.issue(HOST))
                await eventually(lambda shown=shown: shows(secured, shown))
                await old.more(3)
                await new.more(3)
    assert (old.failures, new.failures) == ({}, {})


async def shows(secured: Secured, issued: Issued) -> None:
    shaken = await handshake(secured, believing(AUTHORITY, OTHER))
    assert shaken.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(issued.certificate.decode())


def another_certificate(folder: Path) -> None:
    (folder / "port.crt").write_bytes(AUTHORITY.issue(HOST).certificate)


def no_key(folder: Path) -> None:
    (folder / "port.key").write_text("no key")


def expired(folder: Path) -> None:
    AUTHORITY.issue(HOST, lasts=GONE).write(folder, "port")


def nobodys(folder: Path) -> None:
    AUTHORITY.issue().write(folder, "port")


def gone(folder: Path) -> None:
    (folder / "port.crt").unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (no_key, "holds no private key in PEM"),
        (another_certificate, "is not the key of"),
        (expired, "expired at"),
        (nobodys, "names no host"),
        (gone, "cannot be read: No such file"),
    ],
)
async def test_broken_files_keep_the_old_ones_and_are_told_until_they_are_mended(
    secured: Secured, spoil: Callable[[Path], None], says: str
) -> None:
    shown = secured.show(AUTHORITY.issue(HOST))
    await eventually(lambda: shows(secured, shown))
    spoil(secured.mesh.folder)

    async def told() -> None:
        assert says in secured.told
        figures = await asyncio.to_thread(get, secured.mesh.home.operations_socket, METRICS)
        assert "llmesh_certificates_refused 1.0" in figures

    await eventually(told)
    await shows(secured, shown)
    mended = secured.show(AUTHORITY.issue(HOST))

    async def untold() -> None:
        assert secured.told == ""

    await eventually(untold)
    await eventually(lambda: shows(secured, mended))
    await answered(secured)


async def test_a_gateway_that_starts_beside_broken_files_leaves_envoy_what_it_has(secured: Secured) -> None:
    shown = secured.show(AUTHORITY.issue(HOST))
    await eventually(lambda: shows(secured, shown))
    [running] = [process for process in secured.mesh.processes if process.name == "gateway"]
    running.stop()
    secured.mesh.processes.remove(running)
    no_key(secured.mesh.folder)
    secured.mesh.start_gateway()

    async def told() -> None:
        assert "holds no private key" in secured.told
        await answered(secured)

    await eventually(told)
    await shows(secured, shown)
    mended = secured.show(AUTHORITY.issue(HOST))
    await eventually(lambda: shows(secured, mended))


async def test_no_key_is_in_a_log_a_state_or_what_envoy_tells_of_itself(secured: Secured) -> None:
    told = [get(secured.mesh.home.admin_socket, page) for page in ("/config_dump?include_eds", "/certs", "/stats")]
    told += [path.read_text(errors="replace") for path in secured.mesh.home.path.rglob("*") if path.is_file()]
    assert "SecretsConfigDump" in told[0]
    assert json.loads(told[1])["certificates"]
    # The last line of a key is of its public half.
    secrets = [line for issued in secured.issued for line in issued.key.decode().splitlines()[1:3]]
    assert len(secrets) > 2
    assert not [secret for secret in secrets for text in told if secret in text]
