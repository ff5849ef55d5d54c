"""Envoy calls a tool over TLS only where the tool's certificate is the one expected, and never in the clear instead."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from google.protobuf.message import Message

from gateway.catalog import Endpoint, Tool
from gateway.snapshot import service, tls
from gateway.snapshot.build import CLUSTER, build
from llmesh.certificates import GATEWAY
from tests.e2e.admin import get
from tests.envoy import Backend, Mesh, backend_on, mesh, policy_of, tool_of
from tests.eventually import eventually
from tests.pki import Authority, Issued, gateway

SERVICE = "acme.support.v1.Tickets"
GET = f"/{SERVICE}/Get"
NAME = "tickets.tools.example"
AUTHORITY, OTHER = Authority(), Authority("other")
SHOWN = gateway(AUTHORITY)


def secrets(shown: Issued = SHOWN, authority: Authority = AUTHORITY) -> Mapping[str, Message]:
    """What Envoy shows tools, and whom it believes."""
    return {
        tls.TOOLS: tls.certificate(tls.TOOLS, shown.certificate, shown.key),
        tls.TOOLS_AUTHORITY: tls.authority(tls.TOOLS_AUTHORITY, authority.pem),
    }


def credentials(own: Issued, believed: Authority = AUTHORITY) -> grpc.ServerCredentials:
    """A tool's: it asks for a client's certificate."""
    return grpc.ssl_server_credentials([(own.key, own.certificate)], believed.pem, require_client_auth=True)


def over_tls(*backends: Backend) -> Tool:
    """A tool with these endpoints, all of which are expected to show NAME."""
    endpoints = tuple(Endpoint(each.address, "file", tls_name=NAME) for each in backends)
    tool = tool_of(SERVICE, endpoints[0].address)
    return replace(tool, endpoints=endpoints, ready=frozenset(endpoints))


async def publish(running: Mesh, *tools: Tool, known: Mapping[str, Message]) -> None:
    await running.publish_resources(build({tool.service: tool for tool in tools}, policy_of(), secrets=known))


@pytest.fixture
async def running() -> AsyncIterator[Mesh]:
    async with mesh() as made:
        yield made


async def test_a_tool_sees_the_gateways_certificate_and_the_callers_headers(running: Mesh) -> None:
    async with backend_on(credentials=credentials(AUTHORITY.issue(NAME))) as tool:
        await publish(running, over_tls(tool), known=secrets())
        answer = await running.call(GET)
        assert answer.code is grpc.StatusCode.OK
        assert answer.seen["x-llmesh-subject"] == "sam"
        assert json.loads(answer.body)["uris"] == [GATEWAY]


@pytest.mark.parametrize(
    "own",
    [
        OTHER.issue(NAME),
        AUTHORITY.issue("other.tools.example"),
        AUTHORITY.issue("127.0.0.1"),
        AUTHORITY.issue(f"x.{NAME}"),
        AUTHORITY.issue(),
        AUTHORITY.issue(NAME, lasts=timedelta(minutes=-1)),
        gateway(AUTHORITY),
        None,
    ],
    ids=["authority", "another's-name", "address", "host-below", "nobody", "expired", "the-gateway's", "plaintext"],
)
async def test_who_does_not_show_the_expected_certificate_gets_no_call(running: Mesh, own: Issued | None) -> None:
    async with (
        backend_on(credentials=credentials(own) if own else None) as wrong,
        backend_on(credentials=credentials(AUTHORITY.issue(NAME))) as right,
    ):
        await publish(running, over_tls(wrong), known=secrets())
        answer = await running.call(GET)
        assert answer.code is grpc.StatusCode.UNAVAILABLE
        await publish(running, over_tls(right), known=secrets())
        assert (await running.call(GET)).code is grpc.StatusCode.OK
    assert not wrong.calls


async def test_a_tool_that_does_not_believe_the_gateway_is_down(running: Mesh) -> None:
    async with backend_on(credentials=credentials(AUTHORITY.issue(NAME), OTHER)) as tool:
        await publish(running, over_tls(tool), known=secrets())
        assert (await running.call(GET)).code is grpc.StatusCode.UNAVAILABLE
        await publish(running, over_tls(tool), known=secrets(gateway(OTHER)))

        async def answers() -> None:
            assert (await running.call(GET)).code is grpc.StatusCode.OK

        await eventually(answers)


async def test_an_authority_that_is_withdrawn_reaches_connections_that_stand(
    running: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "TLS_CONNECTION_S", 1)
    async with backend_on(credentials=credentials(AUTHORITY.issue(NAME))) as tool:
        await publish(running, over_tls(tool), known=secrets())
        assert (await running.call(GET)).code is grpc.StatusCode.OK
        await publish(running, over_tls(tool), known=secrets(SHOWN, OTHER))

        async def is_down() -> None:
            assert (await running.call(GET)).code is grpc.StatusCode.UNAVAILABLE

        await eventually(is_down)


async def test_a_tool_on_a_socket_and_over_tls_is_one_tool_and_takes_a_port_up_in_no_clear_call(running: Mesh) -> None:
    await publish(running, running.tool(SERVICE), known=secrets())
    cluster = running.publisher.wanted(CLUSTER)[SERVICE].version
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(backend_on(credentials=credentials(AUTHORITY.issue(NAME))))
        both = (*running.tool(SERVICE).endpoints, *over_tls(port).endpoints)
        mixed = replace(running.tool(SERVICE), endpoints=both, ready=frozenset(both))
        await publish(running, mixed, known=secrets())
        # The same cluster: what was warm stays, and was never without TLS.
        assert running.publisher.wanted(CLUSTER)[SERVICE].version == cluster
        for _ in range(100):
            assert (await running.call(GET)).code is grpc.StatusCode.OK
        assert port.calls[GET]
        assert running.backend.calls[GET]


async def test_an_endpoint_that_takes_up_tls_is_called_over_tls_with_the_name_it_then_has(running: Mesh) -> None:
    async def answers_with(code: grpc.StatusCode) -> None:
        assert (await running.call(GET)).code is code

    async with backend_on() as plain:
        in_clear = replace(over_tls(plain).endpoints[0], tls_name="")
        tool = replace(over_tls(plain), endpoints=(in_clear,), ready=frozenset([in_clear]))
        await publish(running, tool, known=secrets())
        await answers_with(grpc.StatusCode.OK)
    port = int(plain.address.rpartition(":")[2])
    await publish(running, over_tls(plain), known=secrets())
    async with backend_on(port, credentials=credentials(AUTHORITY.issue("other.tools.example"))) as wrong:
        for _ in range(5):
            await answers_with(grpc.StatusCode.UNAVAILABLE)
    async with backend_on(port, credentials=credentials(AUTHORITY.issue(NAME))):
        await eventually(lambda: answers_with(grpc.StatusCode.OK))
    assert not wrong.calls


async def test_without_secrets_tools_on_sockets_are_served_and_those_over_tls_are_not(running: Mesh) -> None:
    async with backend_on(credentials=credentials(AUTHORITY.issue(NAME))) as port:
        far = replace(over_tls(port), service="acme.support.v1.Far")
        resources = build({SERVICE: running.tool(SERVICE), far.service: far}, policy_of(), secrets=secrets())
        await running.publish_resources({url: names for url, names in resources.items() if url != tls.SECRET})

        async def near_alone() -> None:
            assert (await running.call(GET)).code is grpc.StatusCode.OK
            assert (await running.call("/acme.support.v1.Far/Get")).code is grpc.StatusCode.UNAVAILABLE

        await eventually(near_alone)
    assert not port.calls


async def test_envoy_shows_nobody_a_key(running: Mesh) -> None:
    await publish(running, running.tool(SERVICE), known=secrets())
    dump = get(running.folder / "admin.sock", "/config_dump?include_eds")
    assert "SecretsConfigDump" in dump
    assert "private_key" in dump
    for line in SHOWN.key.decode().splitlines()[1:3]:
        assert line not in dump
